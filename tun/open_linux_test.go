package tun_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/tun"
)

// eachWay runs a test with offload and without.
func eachWay(t *testing.T, f func(t *testing.T, plain bool)) {
	t.Run("offload", func(t *testing.T) { f(t, false) })
	t.Run("plain", func(t *testing.T) { f(t, true) })
}

func TestOpenMakesAndRemoves(t *testing.T) {
	eachWay(t, func(t *testing.T, plain bool) {
		ns := newNamespace(t, "open")
		for _, name := range []string{"", "tun", "mytun", "mytun"} {
			d, queues := ns.open(tun.Options{Name: name, MTU: 1400, Plain: plain}, 3)
			want := name
			if name == "" || name == "tun" {
				want = "tun0"
			}
			if d.Name() != want {
				t.Errorf("opened %q for %q, want %q", d.Name(), name, want)
			}
			if d.MTU() != 1400 || !strings.Contains(ns.ip("link", "show", want), "mtu 1400") {
				t.Errorf("MTU %d; %s", d.MTU(), ns.ip("link", "show", want))
			}
			if len(queues) != 3 {
				t.Errorf("%d queues, want 3", len(queues))
			}
			_, offload := queues[0].(tun.Offloader)
			if offload == plain {
				t.Errorf("offload is %v", offload)
			}
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if ns.has(want) {
				t.Errorf("%s is still there", want)
			}
			if _, err := queues[2].Read(); err != os.ErrClosed {
				t.Errorf("read after close: %v", err)
			}
			if err := queues[1].Write([][]byte{udp4.build()}, tun.GSO{}); err != os.ErrClosed {
				t.Errorf("write after close: %v", err)
			}
		}
	})
}

// The device of a process that is killed goes with it. The test runs itself again as that process.
func TestKilled(t *testing.T) {
	if os.Getenv("PTTUN_CHILD") != "" {
		d, err := tun.Open(tun.Options{Name: "killed0", Plain: os.Getenv("PTTUN_CHILD") == "plain"})
		if err != nil {
			t.Fatal(err)
		}
		queues, err := d.Queues(2)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("ready")
		for {
			if _, err := queues[1].Read(); err != nil {
				t.Fatal(err)
			}
		}
	}
	eachWay(t, func(t *testing.T, plain bool) {
		ns := newNamespace(t, "killed")
		child := exec.Command("ip", "netns", "exec", ns.name, os.Args[0], "-test.run=^TestKilled$")
		child.Env = append(os.Environ(), "PTTUN_CHILD=offload")
		if plain {
			child.Env = append(os.Environ(), "PTTUN_CHILD=plain")
		}
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		if line != "ready\n" || !ns.has("killed0") {
			t.Errorf("the child says %q", line)
		}
		child.Process.Kill()
		child.Wait()
		if ns.has("killed0") {
			t.Error("its device is still there")
		}
	})
}

// A device that the administrator has made is used and stays.
func TestOpenExisting(t *testing.T) {
	eachWay(t, func(t *testing.T, plain bool) {
		for _, multi := range []bool{true, false} {
			ns := newNamespace(t, fmt.Sprint("existing", multi))
			args, want := []string{"tuntap", "add", "dev", "vpn0", "mode", "tun"}, 1
			if multi {
				args, want = append(args, "multi_queue"), 2
			}
			ns.ip(args...)
			for _, plain := range []bool{plain, !plain, plain} { // one way leaves nothing that hinders the other
				d, queues := ns.open(tun.Options{Name: "vpn0", Plain: plain}, 2, "10.9.0.1/24")
				if len(queues) != want {
					t.Errorf("%d queues, want %d", len(queues), want)
				}
				if got := sendThrough(t, ns, queues, "10.9.0.5:9"); got != 1 {
					t.Errorf("plain %v: the datagram came in %d packets", plain, got)
				}
				ns.must(func() error {
					if _, err := tun.Open(tun.Options{Name: "vpn0", Plain: plain}); err == nil {
						return errors.New("opened a device that is in use")
					}
					return nil
				})
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				if !ns.has("vpn0") {
					t.Fatal("the device is gone")
				}
			}
		}
	})
}

// sendThrough sends a datagram into the device and returns how many packets with it come out of its queues.
func sendThrough(t *testing.T, ns *namespace, queues []tun.Queue, to string) (n int) {
	t.Helper()
	content := []byte("a datagram to be found")
	got := make(chan int, len(queues))
	for _, q := range queues {
		go func() {
			for {
				pkts, err := q.Read()
				if err != nil {
					return
				}
				for i := range pkts {
					if seg, err := pkts[i].Segment(0); err == nil && bytes.Contains(seg, content) {
						got <- pkts[i].Segments()
						return
					}
				}
			}
		}()
	}
	ns.must(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(content)
		return err
	})
	select {
	case n = <-got:
	case <-time.After(10 * time.Second):
		t.Error("the datagram did not come out of the device")
	}
	return n
}

func TestOpenRefuses(t *testing.T) {
	ns := newNamespace(t, "refuse")
	ns.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
	ns.ip("tuntap", "add", "dev", "tap0", "mode", "tap")
	for _, name := range []string{"veth0", "tap0", "lo", "much-too-long-a-name", "vpn%d", "a/b"} {
		eachWay(t, func(t *testing.T, plain bool) {
			err := ns.do(func() error {
				d, err := tun.Open(tun.Options{Name: name, Plain: plain})
				if err == nil {
					d.Close()
					return fmt.Errorf("opened %s", name)
				}
				if !strings.Contains(err.Error(), name) {
					return fmt.Errorf("error does not name the device: %w", err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// F32: when the device is deleted under the process, readers learn of it, every time they ask.
func TestDeviceDeleted(t *testing.T) {
	eachWay(t, func(t *testing.T, plain bool) {
		ns := newNamespace(t, "gone")
		d, queues := ns.open(tun.Options{Plain: plain}, 2)
		errs := make(chan error)
		for _, q := range queues {
			go func() {
				for {
					if _, err := q.Read(); err != nil {
						errs <- err
						return
					}
				}
			}()
		}
		ns.ip("link", "del", d.Name())
		for range queues {
			if err := <-errs; !errors.Is(err, tun.ErrGone) {
				t.Errorf("read: %v, want ErrGone", err)
			}
		}
		for _, q := range queues {
			if _, err := q.Read(); !errors.Is(err, tun.ErrGone) {
				t.Errorf("read again: %v, want ErrGone", err)
			}
			if err := q.Write([][]byte{udp4.build()}, tun.GSO{}); !errors.Is(err, tun.ErrDropped) {
				t.Errorf("write: %v, want ErrDropped", err)
			}
		}
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := queues[0].Read(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
	})
}

// F33, F34: while the device is down, writes are drops and reads wait, without spinning; after up, traffic goes on.
func TestDeviceDown(t *testing.T) {
	eachWay(t, func(t *testing.T, plain bool) {
		ns := newNamespace(t, "down")
		d, queues := ns.open(tun.Options{Plain: plain}, 1, "10.9.0.1/24")
		ns.ip("link", "set", d.Name(), "down")
		if err := queues[0].Write([][]byte{udp4.build()}, tun.GSO{}); err != tun.ErrDropped {
			t.Errorf("write while down: %v, want ErrDropped", err)
		}
		before := processTime(t)
		woken := make(chan struct{})
		go func() {
			defer close(woken)
			for { // packets from before down may still be there
				pkts, err := queues[0].Read()
				if err != nil {
					return
				}
				if dst, _ := tun.Destination(pkts[0].Bytes); dst == netip.MustParseAddr("10.9.0.7") {
					return
				}
			}
		}()
		select {
		case <-woken:
			t.Fatal("read returned while down")
		case <-time.After(time.Second): // the time over which work is measured
		}
		if used := processTime(t) - before; used > 500*time.Millisecond {
			t.Errorf("%v of CPU in a second while down", used)
		}
		ns.ip("link", "set", d.Name(), "up")
		ns.must(func() error {
			c, err := net.Dial("udp", "10.9.0.7:9")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("up again"))
			return err
		})
		select {
		case <-woken:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing came out after up")
		}
	})
}

func processTime(t *testing.T) time.Duration {
	t.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// F34: a packet that the kernel finds fault with is a drop, whatever the fault.
func TestWriteRubbish(t *testing.T) {
	eachWay(t, func(t *testing.T, plain bool) {
		ns := newNamespace(t, "rubbish")
		_, queues := ns.open(tun.Options{Plain: plain}, 1, "10.9.0.1/24")
		q := queues[0]
		for name, w := range map[string]struct {
			frags [][]byte
			g     tun.GSO
		}{
			"nothing":            {},
			"an empty packet":    {frags: [][]byte{{}}},
			"not IP":             {frags: [][]byte{{0x10, 2, 3}}},
			"an impossible GSO":  {frags: [][]byte{tcp4.build()}, g: tun.GSO{Type: 77, Size: 1}},
			"csum beyond it":     {frags: [][]byte{tcp4.build()}, g: tun.GSO{NeedsCsum: true, CsumStart: 9000}},
			"too many fragments": {frags: make([][]byte, 2000)},
		} {
			if err := q.Write(w.frags, w.g); err != tun.ErrDropped {
				t.Errorf("%s: %v, want ErrDropped", name, err)
			}
		}
		if err := q.Write([][]byte{udp4.build()[:20], {}, udp4.build()[20:]}, tun.GSO{}); err != nil {
			t.Errorf("a packet in pieces: %v", err)
		}
	})
}

func TestQueueAllocates(t *testing.T) {
	eachWay(t, func(t *testing.T, plain bool) {
		ns := newNamespace(t, "alloc")
		_, queues := ns.open(tun.Options{Plain: plain}, 1, "10.9.0.1/24")
		q := queues[0]
		// An echo request to the device's own address is answered into the device, at once.
		ping := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, 5, 10, 9, 0, 1, 8, 0, 0xf7, 0xff, 0, 0, 0, 0}
		s := ^slowSum(ping[:20])
		ping[10], ping[11] = byte(s>>8), byte(s)
		frags := [][]byte{ping[:20], ping[20:]}
		n := testing.AllocsPerRun(200, func() {
			if err := q.Write(frags, tun.GSO{}); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Read(); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%v allocations for a packet in and out, want 0", n)
		}
	})
}

func TestConfigure(t *testing.T) {
	ns := newNamespace(t, "conf")
	d, _ := ns.open(tun.Options{}, 1)
	addrs := []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd99::1/64")}
	for range 2 { // again changes nothing
		ns.must(func() error { return tun.Configure(d.Name(), addrs, 1380, 777) })
		got := ns.ip("addr", "show", d.Name())
		for _, want := range []string{"10.9.0.1/24", "fd99::1/64", "mtu 1380", "qlen 777", "UP"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %s", want, got)
			}
		}
		if strings.Contains(got, "tentative") {
			t.Errorf("an address is not usable yet: %s", got)
		}
	}
	err := ns.do(func() error { return tun.Configure("nothere", addrs, 0, 0) })
	if err == nil || !strings.Contains(err.Error(), "nothere") {
		t.Errorf("configure of no device: %v", err)
	}
}

func TestAddRoutes(t *testing.T) {
	ns := newNamespace(t, "route")
	d, _ := ns.open(tun.Options{}, 1, "10.9.0.1/24", "fd99::1/64")
	ns.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
	ns.ip("link", "set", "veth0", "up")
	ns.ip("route", "add", "10.50.0.0/16", "dev", d.Name())
	ns.ip("route", "add", "10.60.0.0/16", "dev", "veth0")
	route := func(dst, gw string, metric int) tun.Route {
		r := tun.Route{Net: netip.MustParsePrefix(dst), Metric: metric}
		if gw != "" {
			r.Gateway = netip.MustParseAddr(gw)
		}
		return r
	}
	before := ns.ip("route") + ns.ip("-6", "route")
	var undo func() error
	ns.must(func() (err error) {
		undo, err = tun.AddRoutes(d.Name(), []tun.Route{
			route("10.20.3.4/16", "10.9.0.2", 0), route("10.30.0.0/16", "", 50), route("10.50.0.0/16", "", 0),
			route("10.70.0.0/16", "172.16.0.1", 0), route("fd20::/48", "fd99::2", 0), route("fd30::/48", "", 7),
		})
		return err
	})
	got := ns.ip("route") + ns.ip("-6", "route")
	for _, want := range []string{"10.20.0.0/16 via 10.9.0.2", "10.30.0.0/16", "metric 50", "10.70.0.0/16 via 172.16.0.1",
		"fd20::/48 via fd99::2", "fd30::/48", "metric 7"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	ns.must(func() error { return undo() })
	if got := ns.ip("route") + ns.ip("-6", "route"); got != before {
		t.Errorf("after undo\n%swant\n%s", got, before)
	}

	// One that cannot be added takes the others with it.
	err := ns.do(func() error {
		_, err := tun.AddRoutes(d.Name(), []tun.Route{route("10.20.0.0/16", "", 0), route("10.60.0.0/16", "", 0)})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "10.60.0.0/16") {
		t.Errorf("a route that another device has: %v", err)
	}
	if got := ns.ip("route") + ns.ip("-6", "route"); got != before {
		t.Errorf("after a failure\n%swant\n%s", got, before)
	}

	ns.must(func() (err error) {
		undo, err = tun.AddRoutes(d.Name(), []tun.Route{route("10.20.0.0/16", "", 0)})
		return err
	})
	d.Close()
	ns.must(func() error { return undo() }) // gone with the device, so nothing to complain of
}
