// Package tun moves IP packets between the server and the kernel's TUN device: made with water, and where the
// kernel has them, read and written as superpackets through several queues with a virtio-net header.
package tun

import "net/netip"

// GSO says how a superpacket is to be cut. The zero value is one ordinary packet whose checksums are complete.
// Fields are those of struct virtio_net_hdr (linux/virtio_net.h).
type GSO struct {
	Type       uint8  // GSONone, GSOTCPv4, GSOTCPv6, GSOUDPL4
	NeedsCsum  bool   // the checksum at CsumStart+CsumOffset holds only the pseudo header's sum
	HdrLen     uint16 // never trusted on read: the real one is found from the headers
	Size       uint16 // payload bytes per segment
	CsumStart  uint16
	CsumOffset uint16
}

const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDPL4 = 5
)

// A Packet is an IP packet, or a superpacket that the kernel left whole.
type Packet struct {
	Bytes []byte
	GSO   GSO
}

// A Queue is one queue of a device.
type Queue interface {
	// Read waits for one packet, then returns all that are at hand, up to a bound. They are lent until the next
	// Read and may be written to (Segment does). One goroutine. os.ErrClosed after Close.
	Read() ([]Packet, error)
	// Write writes one packet or superpacket, gathered from frags. Any goroutine.
	Write(frags [][]byte, g GSO) error
	Close() error
}

// A Device is a TUN device. Offload reports whether its queues speak GSO.
type Device interface {
	Name() string
	MTU() int
	// Queues opens n queues; called once.
	Queues(n int) ([]Queue, error)
	Close() error
}

// Destination returns the destination address of an IP packet; ok is false for what is not IPv4 or IPv6 or is
// too short for its header.
func Destination(p []byte) (a netip.Addr, ok bool) {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return netip.Addr{}, false
}

// Source returns the source address of an IP packet, as Destination does.
func Source(p []byte) (a netip.Addr, ok bool) {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[12:16])), true
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[8:24])), true
	}
	return netip.Addr{}, false
}
