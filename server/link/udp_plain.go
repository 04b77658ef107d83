package link

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// plain moves one datagram per system call, by nothing but package net.
type plain struct {
	u      *UDP
	conn   *net.UDPConn
	buf    []byte // Receive's
	trains [1]Train

	mu sync.Mutex // the write deadline is the socket's, so one Send at a time
}

func newPlain(u *UDP, conn *net.UDPConn) *plain {
	return &plain{u: u, conn: conn, buf: make([]byte, readBuf+Slack)}
}

func (p *plain) receive() ([]Train, error) {
	for failures := 0; ; {
		n, from, err := p.conn.ReadFromUDPAddrPort(p.buf[:readBuf])
		switch {
		case err != nil:
			if err := p.u.receiveFailed(err, failures); err != nil {
				return nil, err
			}
			failures++
		case n == 0:
			p.u.in.empty.Add(1)
		default:
			p.u.received(1, n)
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			p.trains[0] = Train{Addr: from, Bytes: p.buf[: n : n+Slack], Size: n}
			return p.trains[:], nil
		}
	}
}

func (p *plain) send(trains []Train) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clogged := false
	for i := range trains {
		t := &trains[i]
		size := t.Size
		if size <= 0 {
			size = len(t.Bytes)
		}
		for rest := t.Bytes; len(rest) > 0; {
			packet := rest[:min(size, len(rest))]
			rest = rest[len(packet):]
			if clogged {
				p.drop(syscall.EAGAIN)
				continue
			}
			// Anew for each packet: only one that waits may run out of time, not the last of many. And once more
			// for one that did: on a busy machine the time may be over before the kernel was asked at all.
			var err error
			for range 2 {
				p.conn.SetWriteDeadline(time.Now().Add(sendPatience))
				if _, err = p.conn.WriteToUDPAddrPort(packet, t.Addr); !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			switch {
			case err == nil:
				p.u.out.batches.Add(1)
				p.u.out.packets.Add(1)
				p.u.out.bytes.Add(uint64(len(packet)))
			case errors.Is(err, net.ErrClosed):
				return net.ErrClosed
			case errors.Is(err, os.ErrDeadlineExceeded):
				p.drop(syscall.EAGAIN) // what the kernel said before the wait
				clogged = true
			default:
				if errors.Is(err, syscall.EMSGSIZE) {
					p.u.tooLarge(t.Addr.Addr())
				}
				p.drop(err)
			}
		}
	}
	return nil
}

func (p *plain) drop(err error) {
	p.u.out.errors.add(err)
	p.u.out.dropped.Add(1)
}
