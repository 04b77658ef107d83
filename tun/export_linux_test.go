package tun

import (
	"testing"

	"golang.org/x/sys/unix"
)

// WithoutFeatures makes the kernel one that has none of these TUN_F features, until the test ends: it refuses a request
// that has one of them, as kernels do.
func WithoutFeatures(t *testing.T, mask int) {
	ask := setOffload
	t.Cleanup(func() { setOffload = ask })
	setOffload = func(fd, features int) error {
		if features&mask != 0 {
			return unix.EINVAL
		}
		return ask(fd, features)
	}
}
