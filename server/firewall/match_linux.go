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

// A family is an address family: where it keeps addresses in its header, and the set of those that clients have.
type family struct {
	number byte
	offset [2]uint32 // by side
	length uint32
	nets   string
}

var (
	ipv4 = family{unix.NFPROTO_IPV4, [2]uint32{12, 16}, 4, setNets4}
	ipv6 = family{unix.NFPROTO_IPV6, [2]uint32{8, 24}, 16, setNets6}
)

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

// load matches packets of the family and loads an address of theirs.
func (f family) load(s side) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset[s], Len: f.length},
	}
}

// address matches packets of the family whose address is one of the clients', or is none of theirs.
func (f family) address(s side, client bool) []expr.Any {
	return append(f.load(s), &expr.Lookup{SourceRegister: 1, SetName: f.nets, Invert: !client})
}

// is matches packets to one address.
func is(addr netip.Addr) []expr.Any {
	f := ipv4
	if addr.Is6() {
		f = ipv6
	}
	return append(f.load(destination), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr.AsSlice()})
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

// toHost matches packets to one of the host's own addresses.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_LOCAL)},
	}
}

// unanswered matches packets that belong to no connection whose other side has spoken first.
func unanswered() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: native(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: native(0),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)},
	}
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
func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// native is a number as the host writes it.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
