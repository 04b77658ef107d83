package tun_test

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/tun"
)

// A TAP device carries whole Ethernet frames both ways, has the hardware address that was asked for, and goes when it is
// closed. A device of the other kind is not taken.
func TestOpenTap(t *testing.T) {
	ns := newNamespace(t, "tap")
	mac := net.HardwareAddr{2, 0, 0x5e, 0x10, 0, 1}
	d, queues := ns.open(tun.Options{Name: "tap", MTU: 1400, Tap: true, Hardware: mac}, 2)
	if d.Name() != "tap0" || len(queues) != 2 {
		t.Fatalf("opened %s with %d queues", d.Name(), len(queues))
	}
	if shown := ns.ip("link", "show", "tap0"); !strings.Contains(shown, "link/ether "+mac.String()) || !strings.Contains(shown, "mtu 1400") {
		t.Errorf("%s", shown)
	}
	ns.ip("link", "set", "tap0", "up")
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x07\x88\xb5"), bytes.Repeat([]byte("frame "), 20)...)
	err := ns.do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0xb588) // 0x88b5 on the wire: for experiments
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		link, err := net.InterfaceByName("tap0")
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0xb588, Ifindex: link.Index}); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
			return err
		}
		if err := queues[0].Write([][]byte{frame[:14], frame[14:]}, tun.GSO{}); err != nil {
			return err
		}
		got := make([]byte, 2000)
		n, err := unix.Read(fd, got)
		if err != nil {
			return err
		}
		if !bytes.Equal(got[:n], frame) {
			t.Errorf("the kernel got %x, want %x", got[:n], frame)
		}
		_, err = unix.Write(fd, frame)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan []byte, 16)
	for _, q := range queues {
		go func() {
			for {
				packets, err := q.Read()
				if err != nil {
					return
				}
				for _, p := range packets {
					came <- bytes.Clone(p.Bytes)
				}
			}
		}()
	}
	for deadline := time.After(10 * time.Second); ; {
		select {
		case b := <-came: // among what the kernel says by itself on a new link
			if !bytes.Equal(b, frame) {
				continue
			}
		case <-deadline:
			t.Error("the frame did not arrive")
		}
		break
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if ns.has("tap0") {
		t.Error("the device is still there")
	}
	ns.ip("tuntap", "add", "dev", "tun5", "mode", "tun")
	if err := ns.do(func() error { _, err := tun.Open(tun.Options{Name: "tun5", Tap: true}); return err }); err == nil || !strings.Contains(err.Error(), "not a TAP device") {
		t.Errorf("a TUN device as TAP: %v", err)
	}
}
