package main

import (
	"path/filepath"
	"testing"
	"time"

	"postern/cmd/lab"
)

// What the stock client does when its session ends for a reason: after inactive it stops, after session-timeout it
// connects again, and of two devices with one certificate the older one stops.
func TestE2EPartings(t *testing.T) {
	t.Parallel()
	t.Run("inactive", func(t *testing.T) {
		t.Parallel()
		f := newField(t, "alice")
		srv := f.serve("inactive 4")
		v := f.connect("alice")
		f.must(v.Expect("Halt command was pushed by server ('inactive')", 1, 20*time.Second))
		f.must(ended(v.Wait(10 * time.Second)))
		f.must(srv.Expect("client disconnected", 1, 10*time.Second))
	})
	t.Run("session-timeout", func(t *testing.T) {
		t.Parallel()
		f := newField(t, "alice")
		f.serve("session-timeout 4")
		v := f.connect("alice")
		f.must(v.Expect("server-pushed-connection-reset", 1, 20*time.Second))
		v.up(2)
		v.ping(lab.Lan4, 3, 56)
		v.stop()
	})
	t.Run("displaced", func(t *testing.T) {
		t.Parallel()
		f := newField(t, "alice")
		srv := f.serve()
		older := f.connect("alice")
		f.addHost("laptop")
		p, err := f.Host("laptop").Start("laptop.log", "openvpn", "--config", filepath.Join(f.Dir, "alice.ovpn"))
		f.must(err)
		newer := &vpn{Process: p, f: f, host: f.Host("laptop")}
		newer.up(1)
		f.must(older.Expect("Halt command was pushed by server ('connected from elsewhere')", 1, 10*time.Second))
		f.must(ended(older.Wait(10 * time.Second)))
		newer.ping(lab.Lan4, 5, 56)
		newer.stop()
		f.must(srv.Expect("client disconnected", 2, 10*time.Second))
	})
}
