package tun

import (
	"errors"
	"fmt"
	"os"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MakePersistent makes a TUN device that stays while nobody has it, with room for more than one queue. When it is there
// already, it only gets another owner.
func MakePersistent(name string, o Owner) error {
	if _, err := existing(&Options{Name: name}); err != nil {
		return fmt.Errorf("make persistent device %s: %w", name, err)
	}
	w, err := newWater(name, water.TUN, true, true)
	if err != nil {
		return fmt.Errorf("make persistent device %s: %w", name, err)
	}
	defer w.Close()
	err = control(w.ReadWriteCloser, func(fd int) error {
		if o.UID >= 0 {
			if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, o.UID); err != nil {
				return os.NewSyscallError("TUNSETOWNER", err)
			}
		}
		if o.GID >= 0 {
			if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, o.GID); err != nil {
				return os.NewSyscallError("TUNSETGROUP", err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make persistent device %s: %w", name, err)
	}
	return nil
}

// RemovePersistent removes a TUN device that nobody has.
func RemovePersistent(name string) error {
	link, err := existing(&Options{Name: name})
	switch {
	case err == nil && link == nil:
		err = errors.New("there is none")
	case err == nil:
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove persistent device %s: %w", name, err)
	}
	return nil
}
