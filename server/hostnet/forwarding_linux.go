package hostnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	forwarding4 = "/proc/sys/net/ipv4/ip_forward"
	forwarding6 = "/proc/sys/net/ipv6/conf/all/forwarding"
	acceptRA    = "/proc/sys/net/ipv6/conf/*/accept_ra"
)

// EnableForwarding lets the host forward packets of the families asked for, and keeps what is on already. restore
// puts back what was changed; it needs CAP_NET_ADMIN. After an error nothing is changed.
//
// A host that forwards IPv6 stops listening to router advertisements and loses the default route it has from them,
// unless told to go on (accept_ra 2). That is done for every device that listens now.
func EnableForwarding(v4, v6 bool) (restore func() error, err error) {
	var done settings
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("enable forwarding: %w", err), done.undo())
		}
	}()
	if v4 {
		if err := done.change(forwarding4, "0", "1"); err != nil {
			return nil, err
		}
	}
	if v6 {
		if on, err := read(forwarding6); err != nil {
			return nil, fmt.Errorf("IPv6: %w", err)
		} else if on != "0" {
			return done.undo, nil
		}
		devices, err := filepath.Glob(acceptRA)
		if err != nil {
			return nil, err
		}
		for _, path := range devices {
			// "all" has no effect; what "default" says is for devices to come.
			if filepath.Base(filepath.Dir(path)) == "all" {
				continue
			}
			if err := done.change(path, "1", "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		if err := done.change(forwarding6, "0", "1"); err != nil {
			return nil, err
		}
	}
	return done.undo, nil
}

// settings are kernel settings that were changed, in order.
type settings []struct{ path, old string }

// change writes to where it finds from, and remembers it.
func (s *settings) change(path, from, to string) error {
	old, err := read(path)
	if err != nil {
		return err
	}
	if old != from {
		return nil
	}
	if err := os.WriteFile(path, []byte(to), 0); err != nil {
		return fmt.Errorf("%w: set it with sysctl before the start", err)
	}
	*s = append(*s, struct{ path, old string }{path, old})
	return nil
}

// undo puts everything back, last change first, and forgets it. A device that has gone took its settings along.
func (s *settings) undo() error {
	var errs []error
	for _, setting := range slices.Backward(*s) {
		if err := os.WriteFile(setting.path, []byte(setting.old), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("put back: %w", err))
		}
	}
	*s = nil
	return errors.Join(errs...)
}

func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}
