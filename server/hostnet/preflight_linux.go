package hostnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// Preflight looks whether a TUN device can be made and configured here. The error says what is missing and how it
// is got: ErrNoTUN, ErrNoNetAdmin or both.
func Preflight() error {
	return errors.Join(checkTUN(tunDevice), checkNetAdmin())
}

func checkTUN(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w: load the kernel's module with \"modprobe tun\"; a container must be given the device %s", ErrNoTUN, err, tunDevice)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w: start as root, or let this user read and write the device", ErrNoTUN, err)
	}
	return fmt.Errorf("%w: %w", ErrNoTUN, err)
}

func checkNetAdmin() error {
	caps, err := capabilities()
	if err != nil {
		return err
	}
	if !caps.effective().has(KeepNetAdmin) {
		return fmt.Errorf("%w: start as root, or give this service the capability (systemd: AmbientCapabilities, containers: --cap-add NET_ADMIN)", ErrNoNetAdmin)
	}
	return nil
}
