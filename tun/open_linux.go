package tun

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Open opens a device as Options ask, with superpackets where the kernel has them.
//
// water makes the device but cannot ask for a virtio-net header, and the kernel takes that flag only when the first
// queue is attached. So water makes a persistent device and lets go of it, and our first queue attaches and takes the
// persistence back: the device goes with our last queue, even if the process is killed.
func Open(o Options) (Device, error) {
	d, err := open(&o)
	if err != nil {
		return nil, fmt.Errorf("open tun device %q: %w", o.Name, err)
	}
	return d, nil
}

func open(o *Options) (Device, error) {
	old, err := existing(o)
	if err != nil {
		return nil, err
	}
	if o.Plain || o.Tap {
		return openPlain(o, old)
	}
	d, err := openOffload(o, old)
	if errors.Is(err, errNoOffload) {
		return openPlain(o, old)
	}
	return d, err
}

// errNoOffload means that this kernel has no virtio-net header for us.
var errNoOffload = errors.New("no offload")

// existing returns the device that o names if it is there already and free.
func existing(o *Options) (*netlink.Tuntap, error) {
	if o.anyName() {
		return nil, nil
	}
	if len(o.Name) >= unix.IFNAMSIZ || strings.Contains(o.Name, "%") {
		return nil, errors.New("not a device name") // the kernel would cut it off, or put a number in
	}
	link, err := netlink.LinkByName(o.Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t, ok := link.(*netlink.Tuntap)
	switch {
	case !ok || (t.Mode == netlink.TUNTAP_MODE_TAP) != o.Tap:
		return nil, fmt.Errorf("a device of this name exists and is not a %s device", strings.ToUpper(o.kind()))
	case t.Queues+t.DisabledQueues > 0:
		return nil, errors.New("in use by another process")
	}
	return t, nil
}

// setMTU sets the MTU that o asks for and returns the device's.
func setMTU(name string, o *Options) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	if o.MTU == 0 || o.MTU == link.Attrs().MTU {
		return link.Attrs().MTU, nil
	}
	if err := netlink.LinkSetMTU(link, o.MTU); err != nil {
		return 0, fmt.Errorf("set MTU %d: %w", o.MTU, err)
	}
	return o.MTU, nil
}

// newWater makes a device, or attaches to one, through water.
func newWater(name string, kind water.DeviceType, persist, multi bool) (*water.Interface, error) {
	w, err := water.New(water.Config{
		DeviceType:             kind,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Persist: persist, MultiQueue: multi},
	})
	if err != nil {
		return nil, err
	}
	// water leaves the descriptor open to programs that we start; they would keep the device.
	err = control(w.ReadWriteCloser, func(fd int) error {
		unix.CloseOnExec(fd)
		return nil
	})
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// control calls f with the descriptor of rw.
func control(rw io.ReadWriteCloser, f func(fd int) error) error {
	sc, ok := rw.(syscall.Conn)
	if !ok {
		return errors.New("not a file")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func openPlain(o *Options, old *netlink.Tuntap) (Device, error) {
	name, multi, kind := o.Name, true, water.DeviceType(water.TUN)
	if o.Tap {
		kind = water.TAP
	}
	if o.anyName() {
		name = ""
	}
	if old != nil {
		multi = old.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
	}
	w, err := newWater(name, kind, old != nil, multi) // water would take the persistence of an old device away
	if err != nil {
		return nil, err
	}
	if old != nil {
		// Whoever had it before may have asked for superpackets.
		err = control(w.ReadWriteCloser, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0) })
		if err != nil {
			w.Close()
			return nil, fmt.Errorf("switch off offload: %w", err)
		}
	}
	d := &plainDevice{name: w.Name(), queues: []Queue{newPlainQueue(w)}}
	if multi {
		d.more = func() (*water.Interface, error) { return newWater(d.name, kind, old != nil, true) }
	}
	if d.mtu, err = setMTU(d.name, o); err == nil && o.Hardware != nil {
		err = setHardware(d.name, o.Hardware)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// setHardware gives a device a hardware address.
func setHardware(name string, addr net.HardwareAddr) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetHardwareAddr(link, addr)
	}
	if err != nil {
		return fmt.Errorf("set hardware address %v: %w", addr, err)
	}
	return nil
}

// offloadDevice is a device whose queues have virtio-net headers.
type offloadDevice struct {
	name     string
	mtu      int
	multi    bool // more than one queue
	old      bool // was there before us, and stays
	tcp, udp bool // superpackets, both ways
	queues   []Queue
}

func (d *offloadDevice) Name() string { return d.name }
func (d *offloadDevice) MTU() int     { return d.mtu }

// Queues returns one queue, whatever n is, for a device that was made without multi_queue.
func (d *offloadDevice) Queues(n int) ([]Queue, error) {
	for len(d.queues) < n && d.multi {
		f, err := attach(d.name, true)
		if err != nil {
			return nil, fmt.Errorf("open queue %d of %s: %w", len(d.queues), d.name, err)
		}
		if err := d.add(f); err != nil {
			return nil, err
		}
	}
	return d.queues, nil
}

func (d *offloadDevice) add(f *os.File) error {
	q, err := newOffloadQueue(f, d.tcp, d.udp)
	if err != nil {
		f.Close()
		return err
	}
	d.queues = append(d.queues, q)
	return nil
}

func (d *offloadDevice) Close() error {
	if d.old {
		// The next one to attach may not know of superpackets.
		_ = control(d.queues[0].(*offloadQueue).file, func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0) })
	}
	return closeQueues(d.queues)
}

func openOffload(o *Options, old *netlink.Tuntap) (_ Device, err error) {
	d := &offloadDevice{name: o.Name, multi: true, old: old != nil}
	if d.old {
		d.multi = old.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
	} else {
		name := o.Name
		if o.anyName() {
			name = ""
		}
		w, err := newWater(name, water.TUN, true, true)
		if err != nil {
			return nil, err
		}
		d.name = w.Name()
		defer func() {
			if err != nil && len(d.queues) == 0 {
				remove(d.name)
			}
		}()
		if err := w.Close(); err != nil {
			return nil, err
		}
	}
	f, err := attach(d.name, d.multi)
	if err != nil {
		return nil, err
	}
	err = control(f, func(fd int) error {
		if !d.old {
			if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
				return os.NewSyscallError("TUNSETPERSIST", err)
			}
		}
		return d.probe(fd, o)
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	if err := d.add(f); err != nil {
		return nil, err
	}
	if d.mtu, err = setMTU(d.name, o); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// probe asks for the most offload first and takes what the kernel has.
func (d *offloadDevice) probe(fd int, o *Options) error {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	for _, features := range []int{
		tcp | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6, // Linux 6.2
		tcp | unix.TUN_F_TSO_ECN,
		tcp,
	} {
		udp := features&unix.TUN_F_USO4 != 0
		if udp && o.NoUDP {
			continue
		}
		if setOffload(fd, features) == nil {
			d.tcp, d.udp = true, udp
			return nil
		}
	}
	return errNoOffload
}

// setOffload asks for features, all of them or none.
var setOffload = func(fd, features int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, features) }

// remove deletes a device that could not be opened after it was made.
func remove(name string) {
	if link, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(link)
	}
}

// attach opens a queue of the device name, with a virtio-net header.
func attach(name string, multi bool) (*os.File, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", err)
	}
	// Silently ignored on a device that already has a queue without the header.
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, req); err != nil || req.Uint16()&unix.IFF_VNET_HDR == 0 {
		unix.Close(fd)
		return nil, errNoOffload
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHdrLen); err != nil {
		unix.Close(fd)
		return nil, errNoOffload
	}
	// Only an attached descriptor can be polled, so the file is made of it now, not before.
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}
