package main

import (
	"fmt"
	"testing"
)

// Packets inside may be as long as tun-mtu says, over UDP, where the kernel cuts what is around them into fragments, and
// over TCP.
func TestE2EJumbo(t *testing.T) {
	f := newField(t, "alice", "bob")
	f.serve("tun-mtu 60000", "mssfix 0", "local * 1194 udp", "local * 443 tcp-server")
	r := f.Host("router")
	alice := f.connect("alice", "tun-mtu 60000", fmt.Sprintf("remote %v 1194 udp", r.Wan4))
	bob := f.connect("bob", "tun-mtu 60000", fmt.Sprintf("remote %v 443 tcp-client", r.Wan4))
	for _, v := range []*vpn{alice, bob} {
		v.ping("10.83.0.1", 3, 56)
		v.ping("10.83.0.1", 5, 9000)
		v.ping("10.83.0.1", 5, 59000)
		v.move(20_000_000)
	}
}
