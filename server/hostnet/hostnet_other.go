//go:build !linux

package hostnet

import (
	"errors"
	"net/netip"
)

var errNotLinux = errors.New("not available on this system: not Linux")

// Preflight finds nothing wrong on systems that it does not know.
func Preflight() error { return nil }

// EnableForwarding always fails on this system.
func EnableForwarding(v4, v6 bool) (restore func() error, err error) { return nil, errNotLinux }

// Overlaps finds nothing on this system.
func Overlaps([]netip.Prefix, string) ([]string, error) { return nil, nil }

// DefaultGateways knows none on this system.
func DefaultGateways() (v4, v6 netip.Addr, err error) { return netip.IPv4Unspecified(), v6, nil }

// DropPrivileges always fails on this system.
func DropPrivileges(userName, groupName string, keep ...Capability) error { return errNotLinux }

// NoDumps always fails on this system.
func NoDumps() error { return errNotLinux }

// Nice always fails on this system.
func Nice(int) error { return errNotLinux }

// ThreadLimit knows of none on this system.
func ThreadLimit(root bool) (limit int, known bool) { return 0, false }

// Flows is the table of connections that the kernel tracks. There is none on this system.
type Flows struct{}

// Forget has nothing to forget.
func (*Flows) Forget(...netip.Addr) error { return nil }
