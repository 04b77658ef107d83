package hostnet

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A capSet is a set of capabilities, a bit for each.
type capSet uint64

func (s capSet) has(c Capability) bool { return s>>c&1 != 0 }

func setOf(list []Capability) (s capSet) {
	for _, c := range list {
		s |= 1 << c
	}
	return s
}

// capData is the capability sets of a thread as the kernel reads and writes them: the lower 32 capabilities, then
// the upper.
type capData [2]unix.CapUserData

func (d *capData) effective() capSet {
	return capSet(d[0].Effective) | capSet(d[1].Effective)<<32
}

func (d *capData) permitted() capSet {
	return capSet(d[0].Permitted) | capSet(d[1].Permitted)<<32
}

// only is data with s permitted and effective, and nothing to inherit.
func only(s capSet) capData {
	low, high := uint32(s), uint32(s>>32)
	return capData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
}

// capabilities reads those of the calling thread.
func capabilities() (*capData, error) {
	var data capData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	return &data, nil
}

// setCapabilities sets those of all threads.
func setCapabilities(data capData) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	return allThreadsError(errno)
}

// allThreadsError explains an error of a system call that was made on every thread.
func allThreadsError(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return fmt.Errorf("%w: the program was built with cgo", errno)
	}
	return errno
}
