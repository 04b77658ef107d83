// Package link carries OpenVPN packets to and from clients: UDP sockets that move many datagrams per system
// call, and TCP streams cut into frames. It knows addresses and bytes, never what the bytes mean.
package link

import "net/netip"

// Slack is how many bytes behind every Train that Receive returns the opener of the last packet in it may borrow
// (cap(Bytes) >= len(Bytes)+Slack). It puts them back: on a stream they are the next packet's.
const Slack = 16

// A Train is packets to or from one address, back to back in one buffer: each Size bytes long, the last one
// perhaps shorter.
type Train struct {
	Addr  netip.AddrPort // unmapped (never IPv4-in-IPv6)
	Bytes []byte
	Size  int
	Local Local // where it came to or shall leave from; zero leaves that to the kernel
	Class uint8 // the DSCP, in TOS's upper six bits, that it shall leave with
}

// packet is the one that begins at at.
func (t *Train) packet(at int) []byte {
	end := len(t.Bytes)
	if t.Size > 0 {
		end = min(at+t.Size, end)
	}
	return t.Bytes[at:end]
}

// Local is an end of ours. Receive fills it in on a socket that is multihomed, and Send heeds it where it is set.
type Local struct {
	Addr      netip.Addr // unmapped
	Interface int        // the index; 0: the routing table decides
}

// A Socket is one way to reach clients: a UDP socket that many share, or one client's TCP stream.
type Socket interface {
	// Receive waits for at least one packet and returns all that are at hand. The trains stay valid until the
	// next Receive. One goroutine. It returns net.ErrClosed after Close; on a stream any error ends the client.
	Receive() ([]Train, error)
	// Send sends the trains in order, with one system call where the kernel can. It keeps nothing of them after
	// it returns. It never waits for a slow receiver: what does not fit is dropped and counted. Any goroutine.
	Send([]Train) error
	// Close ends Receive with net.ErrClosed. Any goroutine, any number of times.
	Close() error
}
