package tuntest_test

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"postern/tun"
	"postern/tun/tuntest"
)

func open(t *testing.T, o tuntest.Options, n int) (*tuntest.Device, []tun.Queue) {
	t.Helper()
	d := tuntest.New(o)
	queues, err := d.Queues(n)
	if err != nil || len(queues) != n {
		t.Fatalf("%d queues, %v", len(queues), err)
	}
	return d, queues
}

// What is injected is read, all that is at hand at once, by the queue it was meant for.
func TestInject(t *testing.T) {
	d, queues := open(t, tuntest.Options{}, 2)
	for i := range 70 {
		d.Inject(1, tun.Packet{Bytes: []byte{byte(i)}, GSO: tun.GSO{Size: uint16(i)}})
	}
	for i := 0; i < 70; {
		pkts, err := queues[1].Read()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && len(pkts) != 64 {
			t.Errorf("%d packets at once, want 64", len(pkts))
		}
		for _, p := range pkts {
			if p.Bytes[0] != byte(i) || p.GSO.Size != uint16(i) || cap(p.Bytes) < len(p.Bytes)+64 {
				t.Errorf("packet %d: %v %+v, capacity %d", i, p.Bytes, p.GSO, cap(p.Bytes))
			}
			i++
		}
	}
}

func TestWritten(t *testing.T) {
	d, queues := open(t, tuntest.Options{TCP: true}, 2)
	g := tun.GSO{Type: tun.GSOTCPv4, NeedsCsum: true, Size: 2}
	if err := queues[1].Write([][]byte{{1, 2}, {3}}, g); err != nil {
		t.Fatal(err)
	}
	got := <-d.Written()
	if got.Queue != 1 || got.Packet.GSO != g || !bytes.Equal(got.Packet.Bytes, []byte{1, 2, 3}) {
		t.Errorf("got %+v", got)
	}
	if err := queues[0].Write([][]byte{{1}}, tun.GSO{Type: tun.GSOUDPL4}); !errors.Is(err, tun.ErrDropped) {
		t.Errorf("a superpacket that the device does not know: %v", err)
	}
}

// A reader that waits is ended by Close and by Remove, in a bubble too.
func TestEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*tuntest.Device)
		want error
	}{
		"close":  {func(d *tuntest.Device) { d.Close(); d.Close() }, os.ErrClosed},
		"remove": {(*tuntest.Device).Remove, tun.ErrGone},
	} {
		synctest.Test(t, func(t *testing.T) {
			d, queues := open(t, tuntest.Options{}, 1)
			got := make(chan error, 1)
			go func() {
				_, err := queues[0].Read()
				got <- err
			}()
			synctest.Wait()
			if len(got) != 0 {
				t.Fatalf("%s: read did not wait", name)
			}
			tt.end(d)
			if err := <-got; !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		})
	}
}

func TestDown(t *testing.T) {
	_, queues := open(t, tuntest.Options{Down: true}, 1)
	if err := queues[0].Write([][]byte{{1}}, tun.GSO{}); !errors.Is(err, tun.ErrDropped) {
		t.Errorf("write while down: %v", err)
	}
}
