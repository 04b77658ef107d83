// Package tuntest is a TUN device in memory, for tests without a kernel: channels only, so it works in a
// testing/synctest bubble too.
package tuntest

import (
	"os"
	"slices"
	"sync"

	"postern/tun"
)

// slack is the spare capacity behind a packet, as the real device leaves it.
const slack = 64

// Options say what the device is like. The zero value is "tun0", MTU 1500, without offload.
type Options struct {
	Name     string
	MTU      int
	TCP, UDP bool // the queues take superpackets
	Down     bool // Write drops everything, as while the interface is down
}

// Device is a tun.Device whose kernel side is the test.
type Device struct {
	o      Options
	writes chan Written
	gone   chan struct{}
	mu     sync.Mutex
	queues []*queue // never appended to after Queues
}

// Written is what was written to a queue: a copy.
type Written struct {
	Queue  int
	Packet tun.Packet
}

// New returns a device that holds up to 4096 written packets; what is written beyond is dropped.
func New(o Options) *Device {
	if o.Name == "" {
		o.Name = "tun0"
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	return &Device{o: o, writes: make(chan Written, 4096), gone: make(chan struct{})}
}

func (d *Device) Name() string { return d.o.Name }
func (d *Device) MTU() int     { return d.o.MTU }

func (d *Device) Queues(n int) ([]tun.Queue, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []tun.Queue
	for i := range n {
		q := &queue{d: d, i: i, in: make(chan tun.Packet, 1024), closed: make(chan struct{})}
		d.queues = append(d.queues, q)
		out = append(out, q)
	}
	return out, nil
}

// Inject gives a packet or superpacket to the reader of queue i; it is copied. It waits while 1024 are ahead, and
// reports false when the queue is closed.
func (d *Device) Inject(i int, p tun.Packet) bool {
	d.mu.Lock()
	q := d.queues[i]
	d.mu.Unlock()
	p = tun.Packet{Bytes: slices.Clone(p.Bytes), GSO: p.GSO} // uncut, whatever the test did with it
	select {
	case q.in <- p:
		return true
	case <-q.closed:
		return false
	}
}

// Written yields what the queues' users write, in order.
func (d *Device) Written() <-chan Written { return d.writes }

// Remove does as if somebody deleted the interface: readers meet tun.ErrGone. It is called once at most.
func (d *Device) Remove() { close(d.gone) }

func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.queues {
		q.Close()
	}
	return nil
}

type queue struct {
	d      *Device
	i      int
	in     chan tun.Packet
	once   sync.Once
	closed chan struct{}

	lent []tun.Packet // the reader's
	buf  []byte
}

func (q *queue) Offload() (tcp, udp bool) { return q.d.o.TCP, q.d.o.UDP }

func (q *queue) Read() ([]tun.Packet, error) {
	select { // closed wins over packets at hand
	case <-q.closed:
		return nil, os.ErrClosed
	default:
	}
	q.lent, q.buf = q.lent[:0], q.buf[:0]
	select {
	case p := <-q.in:
		q.lend(p)
	case <-q.closed:
		return nil, os.ErrClosed
	case <-q.d.gone:
		return nil, tun.ErrGone
	}
	for len(q.lent) < 64 && len(q.buf) < 64<<10 {
		select {
		case p := <-q.in:
			q.lend(p)
			continue
		default:
		}
		break
	}
	return q.lent, nil
}

// lend puts p into the queue's buffer, as the real one does: lent bytes are overwritten by the next Read, so a user that
// keeps them is found out.
func (q *queue) lend(p tun.Packet) {
	at := len(q.buf)
	q.buf = append(q.buf, p.Bytes...)
	end := len(q.buf)
	q.buf = append(q.buf, make([]byte, slack)...)
	p.Bytes = q.buf[at : end : end+slack]
	q.lent = append(q.lent, p)
}

func (q *queue) Write(frags [][]byte, g tun.GSO) error {
	select {
	case <-q.closed:
		return os.ErrClosed
	case <-q.d.gone:
		return tun.ErrDropped
	default:
	}
	if q.d.o.Down || len(frags) == 0 || !q.takes(g) {
		return tun.ErrDropped
	}
	select {
	case q.d.writes <- Written{Queue: q.i, Packet: tun.Packet{Bytes: slices.Concat(frags...), GSO: g}}:
		return nil
	default:
		return tun.ErrDropped
	}
}

func (q *queue) takes(g tun.GSO) bool {
	switch g.Type {
	case tun.GSONone:
		return !g.NeedsCsum || q.d.o.TCP
	case tun.GSOUDPL4:
		return q.d.o.UDP
	}
	return q.d.o.TCP
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}
