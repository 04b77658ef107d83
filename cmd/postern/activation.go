package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"postern/server/config"
	"postern/server/link"
)

// firstPassed is the first descriptor that systemd passes (sd_listen_fds).
const firstPassed = 3

// A passed socket is one that systemd opened for this process, with the name that its unit gives it.
type passed struct {
	*link.Inherited
	name string
}

// takePassed takes over the sockets that systemd has passed, if any. Programs that are started do not see them.
func takePassed() (socks []passed, err error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1000 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, which is no number of sockets", count)
	}
	for i := range n {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		s, inheritErr := link.Inherit(firstPassed + i)
		if inheritErr != nil {
			err = fmt.Errorf("socket %q of the unit: %w: leave it out", name, inheritErr)
			continue
		}
		socks = append(socks, passed{s, name})
	}
	if err != nil {
		giveBack(socks)
		return nil, err
	}
	return socks, nil
}

func giveBack(socks []passed) {
	for _, s := range socks {
		s.Close()
	}
}

// claim finds the passed socket for a listening address, nil when there is none, and takes it off the list.
func claim(socks *[]passed, l config.Listen) (*link.Inherited, error) {
	i := slices.IndexFunc(*socks, func(s passed) bool { return s.Network == l.Network && s.Addr == l.Addr })
	if i < 0 {
		return nil, nil
	}
	s := (*socks)[i]
	if s.V6Only != (l.V6Only && l.Addr.Addr() == netip.IPv6Unspecified()) {
		return nil, fmt.Errorf("socket %q of the unit, %s %v: the configuration's `bind ipv6only` and the unit's BindIPv6Only= differ", s.name, s.Network, s.Addr)
	}
	*socks = slices.Delete(*socks, i, i+1)
	return s.Inherited, nil
}

// unclaimed is an error for passed sockets that no listening address is for: clients would wait there for nobody.
func unclaimed(socks []passed) error {
	if len(socks) == 0 {
		return nil
	}
	s := socks[0]
	proto := s.Network
	if s.Network == "tcp" {
		proto = "tcp-server"
	}
	if s.Addr.Addr().Is6() {
		proto = strings.Replace(proto+"6", "tcp-server6", "tcp6-server", 1)
	}
	return fmt.Errorf("socket %q of the unit, %s %v, is on no line of the configuration: add `local %v %d %s`, or leave it out of the unit",
		s.name, s.Network, s.Addr, s.Addr.Addr(), s.Addr.Port(), proto)
}
