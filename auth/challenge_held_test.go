package auth

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func held(source string) *heldLogin {
	return &heldLogin{name: "alice", source: netip.MustParsePrefix(source)}
}

// A state is good once, and until its deadline.
func TestHeldOnceAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHeldLogins(10, 10, time.Minute)
		a := l.hold(held("192.0.2.1/32"))
		time.Sleep(59 * time.Second)
		b := l.hold(held("192.0.2.1/32"))
		if a == b || len(a) < 20 || strings.Contains(a, ":") {
			t.Errorf("states %q and %q", a, b)
		}
		if l.take(a) == nil || l.take(a) != nil {
			t.Error("the first is not good exactly once")
		}
		time.Sleep(time.Minute)
		if l.take(b) != nil {
			t.Error("the second is good after its minute")
		}
		if l.take("") != nil || l.take("guess") != nil {
			t.Error("a guess is good")
		}
		if len(l.held) != 0 || l.order.Len() != 0 || len(l.sources) != 0 {
			t.Errorf("left behind: %v %v %v", l.held, l.order, l.sources)
		}
		l.hold(held("192.0.2.1/32"))
		time.Sleep(time.Hour)
		l.hold(held("192.0.2.2/32"))
		if len(l.held) != 1 || l.order.Len() != 1 || len(l.sources) != 1 {
			t.Errorf("expired and still there: %v %v %v", l.held, l.order, l.sources)
		}
	})
}

// However many there are, memory is bounded, and a source drives out its own before those of others.
func TestHeldBounded(t *testing.T) {
	l := newHeldLogins(8, 3, time.Minute)
	owner := l.hold(held("198.51.100.7/32"))
	var flood []string
	for range 1000 {
		flood = append(flood, l.hold(held("192.0.2.1/32")))
	}
	if n := l.order.Len(); n != 4 || len(l.held) != 4 {
		t.Errorf("%d held of one source and another", n)
	}
	for i, state := range flood {
		if got := l.take(state) != nil; got != (i >= 997) {
			t.Errorf("state %d is good: %v", i, got)
		}
	}
	if l.take(owner) == nil {
		t.Error("the owner's was driven out")
	}
	for i := range 1000 {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(i))
		l.hold(&heldLogin{source: netip.PrefixFrom(netip.AddrFrom4(a), 32)})
	}
	if l.order.Len() != 8 || len(l.held) != 8 || len(l.sources) != 8 {
		t.Errorf("%d held, %d by state, %d sources", l.order.Len(), len(l.held), len(l.sources))
	}
}
