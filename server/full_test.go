package server

import (
	"net/netip"
	"testing"

	"postern/server/config"
	"postern/server/datachan"
	"postern/tlsctl"
)

// S008: who has only proved an address takes no place of max-clients.
func TestHalfOpenTakeNoClientsPlace(t *testing.T) {
	table := newTable(&config.Config{MaxClients: 10})
	for i := range 11 {
		c := &client{sid: tlsctl.SessionID{byte(i + 1)}}
		c.path.Store(&path{outside: outside{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1194)}})
		if _, ok := table.enter(c); !ok {
			t.Fatalf("session %d found no place, though nobody is logged in", i)
		}
	}
}

// Members do; a newer session of a name that is in takes that one's place.
func TestMembersTakeClientsPlaces(t *testing.T) {
	table := newTable(&config.Config{MaxClients: 2})
	join := func(i byte, name string) *client {
		c := &client{sid: tlsctl.SessionID{i}}
		c.path.Store(&path{outside: outside{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 1194)}})
		if _, ok := table.enter(c); !ok {
			t.Fatal("no room")
		}
		if _, ok := table.publish(c, &member{name: name, peer: datachan.PeerID(i)}, nil); !ok {
			t.Fatal("not published")
		}
		return c
	}
	alice := join(1, "alice")
	if table.full("bob", 2, 1) {
		t.Error("full with one of two")
	}
	join(2, "bob")
	if !table.full("carol", 2, 1) || table.full("bob", 2, 1) {
		t.Error("with two of two, carol must wait and bob may begin again")
	}
	table.remove(alice)
	if table.full("carol", 2, 1) {
		t.Error("full after alice left")
	}
}
