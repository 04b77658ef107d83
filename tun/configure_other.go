//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"net/netip"
)

// Configure fails: set the device up by hand.
func Configure(name string, addrs []netip.Prefix, mtu, txqueuelen int) error {
	return fmt.Errorf("configure %s: %w", name, errors.ErrUnsupported)
}

// AddRoutes fails: set the routes by hand.
func AddRoutes(name string, routes []Route) (undo func() error, err error) {
	return nil, fmt.Errorf("add routes to %s: %w", name, errors.ErrUnsupported)
}
