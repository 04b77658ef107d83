//go:build !linux && !darwin

package tun

import (
	"errors"
	"fmt"
)

// Open fails: water has no TUN device for this system that needs no further set-up.
func Open(o Options) (Device, error) {
	return nil, fmt.Errorf("open tun device %q: %w", o.Name, errors.ErrUnsupported)
}
