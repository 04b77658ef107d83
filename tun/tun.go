// Package tun moves IP packets between the server and the kernel's TUN device: made with water, and where the
// kernel has them, read and written as superpackets through several queues with a virtio-net header.
package tun

import (
	"errors"
	"net/netip"
)

var (
	// ErrDropped means that the kernel did not take a packet: the device is down, a queue is full, the packet makes
	// no sense. Count it and go on.
	ErrDropped = errors.New("tun: packet dropped")
	// ErrGone means that the device was removed under its queues; they will never read again.
	ErrGone = errors.New("tun: device is gone")
	// ErrMalformed means that a superpacket cannot be cut: its headers and its GSO disagree.
	ErrMalformed = errors.New("tun: malformed superpacket")
)

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
	Bytes []byte // with at least 64 bytes of spare capacity when it comes from a Queue
	GSO   GSO
	cut   cut // how far Segment has come
}

// A Queue is one queue of a device.
type Queue interface {
	// Read waits for one packet, then returns all that are at hand, up to a bound. They are lent until the next
	// Read and may be written to (Segment does). One goroutine. os.ErrClosed after Close, ErrGone when the device
	// was removed; no other error, and none while the device is down.
	Read() ([]Packet, error)
	// Write writes one packet or superpacket, gathered from frags, and is done with them when it returns. It never
	// waits. Any goroutine. os.ErrClosed after Close, else ErrDropped.
	Write(frags [][]byte, g GSO) error
	Close() error
}

// An Offloader is a Queue that takes superpackets. Without it, or where both are false, Write takes only packets with
// a zero GSO.
type Offloader interface {
	Offload() (tcp, udp bool)
}

// A Device is a TUN device.
type Device interface {
	Name() string
	MTU() int
	// Queues opens up to n queues; called once. It returns fewer where the device has no more, but at least one.
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

// Class returns the DSCP of an IP packet where TOS and traffic class have it, in the upper six bits of a byte; 0 for what
// is not IPv4 or IPv6.
func Class(p []byte) uint8 {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return p[1] &^ 3
	case len(p) >= 40 && p[0]>>4 == 6:
		return (p[0]<<4 | p[1]>>4) &^ 3
	}
	return 0
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
