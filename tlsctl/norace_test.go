//go:build !race

package tlsctl_test

const raceEnabled = false
