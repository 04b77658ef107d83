package firewall

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words that rules are written in. Each loads what it looks at into register 1 and leaves nothing there for
// the next.

// A side is which end of a packet is looked at.
type side int

const (
	source side = iota
	destination
)

// A family is an address family: where it keeps addresses in its header, and its ICMP.
type family struct {
	number byte
	is6    bool
	offset [2]uint32 // by side
	length uint32
	icmp   byte
}

var (
	ipv4 = family{unix.NFPROTO_IPV4, false, [2]uint32{12, 16}, 4, unix.IPPROTO_ICMP}
	ipv6 = family{unix.NFPROTO_IPV6, true, [2]uint32{8, 24}, 16, unix.IPPROTO_ICMPV6}
)

var families = []family{ipv4, ipv6}

// from matches packets that came through a device, or through any other.
func from(device string, same bool) []expr.Any { return deviceIs(expr.MetaKeyIIFNAME, device, same) }

// to matches packets that leave through a device, or through any other.
func to(device string, same bool) []expr.Any { return deviceIs(expr.MetaKeyOIFNAME, device, same) }

func deviceIs(key expr.MetaKey, device string, same bool) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	op := expr.CmpOpEq
	if !same {
		op = expr.CmpOpNeq
	}
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// only matches packets of the family.
func (f family) only() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.number}},
	}
}

// load loads an address of a packet, which is known to be of the family.
func (f family) load(s side) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset[s], Len: f.length}}
}

// address matches packets whose address is in a set, or is not. They are known to be of the family.
func (f family) address(s side, set string, in bool) []expr.Any {
	return append(f.load(s), &expr.Lookup{SourceRegister: 1, SetName: set, Invert: !in})
}

// within matches packets from or to a network. They are known to be of the family.
func (f family) within(s side, net netip.Prefix) []expr.Any {
	list := f.load(s)
	if !net.IsSingleIP() {
		mask := make([]byte, f.length)
		for bit := range net.Bits() {
			mask[bit/8] |= 0x80 >> (bit % 8)
		}
		list = append(list, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: f.length, Mask: mask, Xor: make([]byte, f.length)})
	}
	return append(list, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: net.Masked().Addr().AsSlice()})
}

// is matches packets from or to one address.
func is(s side, addr netip.Addr) []expr.Any {
	f := ipv4
	if addr.Is6() {
		f = ipv6
	}
	return append(f.only(), f.within(s, netip.PrefixFrom(addr, addr.BitLen()))...)
}

// port matches packets of a protocol whose port is in a set.
func port(protocol byte, s side, set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2 * uint32(s), Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: set},
	}
}

// protocol matches packets of a protocol.
func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

// portsWithin matches packets of TCP or UDP from or to some ports.
func portsWithin(s side, p PortRange) []expr.Any {
	number := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
	list := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2 * uint32(s), Len: 2}}
	if p.First == p.Last {
		return append(list, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: number(p.First)})
	}
	return append(list,
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: number(p.First)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: number(p.Last)})
}

// toHost matches packets to one of the host's own addresses.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_LOCAL)},
	}
}

// state matches packets whose connection is in one of some states, or in none of them.
func state(states uint32, in bool) []expr.Any {
	op := expr.CmpOpNeq
	if !in {
		op = expr.CmpOpEq
	}
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(states), Xor: native(0)},
		&expr.Cmp{Op: op, Register: 1, Data: native(0)},
	}
}

// unanswered matches packets that belong to no connection whose other side has spoken first.
func unanswered() []expr.Any {
	return state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, false)
}
func related() []expr.Any { return state(expr.CtStateBitRELATED, true) }

// replying matches packets of the side that has not opened their connection.
func replying() []expr.Any {
	const reply = 1 // IP_CT_DIR_REPLY
	return append(state(expr.CtStateBitESTABLISHED, true),
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{reply}})
}

// translated matches packets of connections whose source was masqueraded.
func translated() []expr.Any {
	const sourceNAT = 1 << 4 // IPS_SRC_NAT
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(sourceNAT), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
	}
}

func untrack() []expr.Any    { return []expr.Any{&expr.Notrack{}} }
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{FullyRandom: true}} }
func accept() []expr.Any     { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func giveBack() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }
func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// native is a number as the host writes it.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
