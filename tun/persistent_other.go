//go:build !linux

package tun

import "errors"

var errNotPersistent = errors.New("persistent devices are made on Linux only")

// MakePersistent always fails on this system.
func MakePersistent(string, Owner) error { return errNotPersistent }

// RemovePersistent always fails on this system.
func RemovePersistent(string) error { return errNotPersistent }
