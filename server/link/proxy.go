package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// A proxyHeader is what a balancer says first of a connection that it passes on: the PROXY protocol, version 2.
//
//	| signature, 12 bytes | version and command | family and transport | length, 2 bytes | addresses | TLVs |
//
// The text of version 1 is not taken: it has no length, and where either may come a header cannot be told from data.
type proxyHeader struct {
	size   int            // of the whole header
	source netip.AddrPort // zero: the balancer speaks for itself, or does not know
}

const (
	proxyFixed = 16
	// maxProxyHeader has room for addresses and for what balancers tell of TLS.
	maxProxyHeader = 2048

	proxyLocal, proxyProxy            = 0x20, 0x21
	proxyUnspec, proxyTCP4, proxyTCP6 = 0x00, 0x11, 0x21
	proxyChecksum                     = 0x03 // the TLV with a CRC32c of the header
)

const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

var errNotProxy = errors.New("no PROXY header of version 2")

// parseProxy reads the header at the start of b. It returns false when b is a header's beginning, and more must come.
func parseProxy(b []byte) (h proxyHeader, complete bool, err error) {
	if n := min(len(b), len(proxySignature)); string(b[:n]) != proxySignature[:n] {
		return h, false, errNotProxy
	}
	if len(b) < proxyFixed {
		return h, false, nil
	}
	command, family := b[12], b[13]
	h.size = proxyFixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case command != proxyLocal && command != proxyProxy:
		return h, false, fmt.Errorf("PROXY header with version and command %#x", command)
	case h.size > maxProxyHeader:
		return h, false, fmt.Errorf("PROXY header of %d bytes", h.size)
	case len(b) < h.size:
		return h, false, nil
	}
	if command == proxyLocal {
		return h, true, nil // whatever it says of addresses, of whichever kind, is to be ignored
	}
	rest := b[proxyFixed:h.size]
	addresses := 0
	switch family {
	case proxyUnspec:
		if len(rest) > 0 {
			return h, true, nil // addresses of a kind that the balancer does not name, of unknown length
		}
	case proxyTCP4:
		addresses = 12
	case proxyTCP6:
		addresses = 36
	default:
		return h, false, fmt.Errorf("PROXY header for another transport, %#x", family)
	}
	if len(rest) < addresses {
		return h, false, fmt.Errorf("PROXY header with %d bytes for addresses", len(rest))
	}
	if err := checkProxyTLVs(b[:h.size], proxyFixed+addresses); err != nil {
		return h, false, err
	}
	if addresses == 0 {
		return h, true, nil
	}
	var from netip.Addr
	var port uint16
	if addresses == 12 {
		from, port = netip.AddrFrom4([4]byte(rest)), binary.BigEndian.Uint16(rest[8:])
	} else {
		from, port = netip.AddrFrom16([16]byte(rest)).Unmap(), binary.BigEndian.Uint16(rest[32:])
	}
	if from.IsUnspecified() || from.IsMulticast() || port == 0 {
		return h, false, fmt.Errorf("PROXY header for %v, where nobody can be", netip.AddrPortFrom(from, port))
	}
	h.source = netip.AddrPortFrom(from, port)
	return h, true, nil
}

// checkProxyTLVs walks what follows the addresses, from at on: type (1), length (2), value. A checksum must be right.
func checkProxyTLVs(header []byte, at int) error {
	for at < len(header) {
		if len(header)-at < 3 {
			return errors.New("PROXY header ends within a TLV")
		}
		kind, size := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		at += 3
		if size > len(header)-at {
			return errors.New("PROXY header ends within a TLV")
		}
		if kind == proxyChecksum {
			if size != 4 {
				return fmt.Errorf("PROXY header with a checksum of %d bytes", size)
			}
			table := crc32.MakeTable(crc32.Castagnoli)
			sum := crc32.Update(0, table, header[:at]) // the sum itself counts as zeros
			sum = crc32.Update(sum, table, make([]byte, 4))
			sum = crc32.Update(sum, table, header[at+4:])
			if sum != binary.BigEndian.Uint32(header[at:]) {
				return errors.New("PROXY header with a wrong checksum")
			}
		}
		at += size
	}
	return nil
}

// Balanced reports whether the connection comes from a balancer that has not said yet for whom.
func (s *Stream) Balanced() bool { return s.balanced }

// Introduce waits for a balancer's PROXY header and takes the client's address from it. A connection from elsewhere it
// leaves alone: what looks like a header there is data. It counts towards the time for the first packet; after an error
// the stream is of no use. One goroutine, before Receive.
func (s *Stream) Introduce() error {
	for s.balanced {
		h, complete, err := parseProxy(s.in.peek())
		switch {
		case err != nil:
			return err
		case complete:
			s.in.skip(h.size)
			s.balanced = false
			if h.source.IsValid() {
				s.addr = h.source
			}
			return nil
		}
		if err := s.more(); err != nil {
			return err
		}
	}
	return nil
}

// more reads what is at hand behind what has been read.
func (s *Stream) more() error {
	n, err := s.conn.Read(s.in.space())
	if s.in.filled(n); n > 0 {
		return nil // an error comes again
	}
	return err
}
