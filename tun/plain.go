package tun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/songgao/water"
)

// slack is the spare room behind a packet that was read: who opens or seals it may need to put a tag there.
const slack = 64

// plainDevice is a device as water opens it: ordinary packets, one to a system call, on every system that water knows.
type plainDevice struct {
	name   string
	mtu    int
	queues []Queue
	more   func() (*water.Interface, error) // another queue; nil if there can be only one
}

func (d *plainDevice) Name() string { return d.name }
func (d *plainDevice) MTU() int     { return d.mtu }

// Queues returns fewer than n queues where the system, or the device as it was made, has only one.
func (d *plainDevice) Queues(n int) ([]Queue, error) {
	for len(d.queues) < n && d.more != nil {
		w, err := d.more()
		if err != nil {
			return nil, fmt.Errorf("open queue %d of %s: %w", len(d.queues), d.name, err)
		}
		d.queues = append(d.queues, newPlainQueue(w))
	}
	return d.queues, nil
}

func (d *plainDevice) Close() error { return closeQueues(d.queues) }

func closeQueues(queues []Queue) error {
	var errs []error
	for _, q := range queues {
		if err := q.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type plainQueue struct {
	counters
	rw     io.ReadWriteCloser
	packet [1]Packet
	in     []byte // the reader's

	mu  sync.Mutex
	out []byte // fragments put together; under mu
}

func newPlainQueue(rw io.ReadWriteCloser) *plainQueue {
	return &plainQueue{rw: rw, in: make([]byte, maxPacket+slack)}
}

func (q *plainQueue) Read() ([]Packet, error) {
	n, err := q.rw.Read(q.in[:maxPacket])
	switch {
	case err == nil:
		q.read(1, 1, n)
		q.packet[0] = Packet{Bytes: q.in[: n : n+slack]}
		return q.packet[:], nil
	case errors.Is(err, os.ErrClosed):
		return nil, os.ErrClosed
	}
	return nil, fmt.Errorf("%w: %w", ErrGone, err)
}

// Write puts fragments together. It takes no superpackets.
func (q *plainQueue) Write(frags [][]byte, g GSO) error {
	if g != (GSO{}) || len(frags) == 0 {
		return ErrDropped
	}
	pkt := frags[0]
	if len(frags) > 1 {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.out = q.out[:0]
		for _, f := range frags {
			q.out = append(q.out, f...)
		}
		pkt = q.out
	}
	_, err := q.rw.Write(pkt)
	q.wrote(1, len(pkt), err == nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed):
		return os.ErrClosed
	}
	return ErrDropped
}

func (q *plainQueue) Close() error {
	if err := q.rw.Close(); err != nil {
		return fmt.Errorf("close tun queue: %w", err)
	}
	return nil
}
