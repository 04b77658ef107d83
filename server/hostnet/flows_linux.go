package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flows is the table of connections that the kernel tracks. The zero value is ready. Any goroutine.
type Flows struct {
	turn    sync.Mutex // of whoever looks through the table
	mu      sync.Mutex
	waiting []*forgetting // guarded by mu
}

// A forgetting is addresses whose connections are to be forgotten. What it comes to is known when done is closed.
type forgetting struct {
	addrs []netip.Addr
	done  bool // guarded by Flows.turn, and so is err
	err   error
}

// Forget has the kernel forget every connection from or to one of some addresses: packets of it that arrive later belong
// to nobody. It may take as long as it takes to read the table; calls that come meanwhile share the next reading.
func (f *Flows) Forget(addrs ...netip.Addr) error {
	mine := &forgetting{addrs: addrs}
	f.mu.Lock()
	f.waiting = append(f.waiting, mine)
	f.mu.Unlock()
	f.turn.Lock()
	defer f.turn.Unlock()
	if mine.done {
		return mine.err
	}
	f.mu.Lock()
	all := f.waiting
	f.waiting = nil
	f.mu.Unlock()
	var ends flowEnds
	for _, w := range all {
		ends = append(ends, w.addrs...)
	}
	err := ends.forget()
	for _, w := range all {
		w.done, w.err = true, err
	}
	return err
}

// flowEnds are addresses, as a filter of connections.
type flowEnds []netip.Addr

func (ends flowEnds) forget() error {
	const tries = 3 // the table may change while it is read
	for _, family := range []struct {
		number netlink.InetFamily
		is6    bool
	}{{unix.AF_INET, false}, {unix.AF_INET6, true}} {
		if !slices.ContainsFunc(ends, func(a netip.Addr) bool { return a.IsValid() && a.Is6() == family.is6 }) {
			continue
		}
		var err error
		for range tries {
			if _, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family.number, ends); !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("forget tracked connections (nf_conntrack_netlink): %w", err)
		}
	}
	return nil
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (ends flowEnds) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return slices.ContainsFunc([]net.IP{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP, flow.Reverse.DstIP}, func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && slices.Contains(ends, a.Unmap())
	})
}
