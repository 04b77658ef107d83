package server

import (
	"fmt"
	"math/bits"
	"net/netip"

	"postern/server/config"
)

// otherEnd is the second word of ifconfig for a client's address that no pool and no client file gave: the mask, or in
// net30 and p2p the other end.
func otherEnd(cfg *config.Config, a netip.Addr) netip.Addr {
	switch cfg.Topology {
	case config.P2P:
		return cfg.Addr4.Addr()
	case config.Net30:
		b := a.As4()
		b[3] ^= 3 // the two in the middle of four stand for each other
		return netip.AddrFrom4(b)
	}
	return maskOf(cfg.Addr4)
}

// oddAddress tells what is wrong with the fixed IPv4 address of a client file, "" if nothing. The client is given it all
// the same, as OpenVPN does.
func oddAddress(cfg *config.Config, set *config.Client) string {
	a, second := set.IfconfigPush4, set.IfconfigMask
	if !a.IsValid() {
		return ""
	}
	mask := isMask(second)
	switch {
	case cfg.Topology == config.Subnet && !mask:
		return fmt.Sprintf("ifconfig-push %v %v: the second word is no mask, as topology subnet wants it", a, second)
	case cfg.Topology != config.Subnet && mask:
		return fmt.Sprintf("ifconfig-push %v %v: the second word is a mask, and topology %v wants the other end's address", a, second, cfg.Topology)
	case cfg.Topology == config.Net30 && (otherEnd(cfg, a) != second || a.As4()[3]&3 == 0 || a.As4()[3]&3 == 3):
		return fmt.Sprintf("ifconfig-push %v %v: Windows takes only the two addresses in the middle of four, as 10.8.0.5 and 10.8.0.6", a, second)
	case cfg.PushConstraint.IsValid() && !cfg.PushConstraint.Contains(a):
		return fmt.Sprintf("ifconfig-push %v: it is outside %v", a, cfg.PushConstraint)
	}
	return ""
}

// isMask reports whether an address is a netmask.
func isMask(a netip.Addr) bool {
	b := a.As4()
	w := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return w != 0 && w<<bits.LeadingZeros32(^w) == 0
}
