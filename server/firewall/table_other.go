//go:build !linux

package firewall

import "fmt"

// A Firewall is a table in the kernel. There is none on this system.
type Firewall struct{}

var errNotLinux = fmt.Errorf("firewall: %w: not Linux", ErrUnsupported)

// Apply always fails on this system.
func Apply(Rules) (*Firewall, error) { return nil, errNotLinux }

// Replace always fails on this system.
func (*Firewall) Replace(Rules, ...Change) error { return errNotLinux }

// Update always fails on this system.
func (*Firewall) Update([]Change) error { return errNotLinux }

// Remove has nothing to remove.
func (*Firewall) Remove() error { return nil }

// RemoveStale has nothing to remove.
func RemoveStale(string) error { return nil }

// Obstacles finds none.
func Obstacles() ([]string, error) { return nil, nil }
