package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
	"postern/tlsctl"
)

// A hundred logins a second, hundreds of sessions that say goodbye all at once, as many that fall silent together and time
// out in the same second, and floods of what strangers can send: everybody gets in, nobody is left, and those who move data
// beside them lose next to nothing of it (S011, S012). LOADSTORM=1000 and LOADSTORM=10000 (make
// storm) are the storms that performance is measured with, and floods ten times as wild.
func TestE2ELoadStorm(t *testing.T) {
	t.Parallel() // it mostly waits, as the soaks do
	sessions, rate := 300, 1000
	patience, flood := 4, 1 // seconds: what clients wait, the server has twice as much; and how long each flood lasts
	if sessions = stormSize(t, sessions); os.Getenv("LOADSTORM") != "" {
		rate, patience, flood = 10000, 20, 5
	}
	f := newField(t)
	f.addHost("load")
	f.addHost("crowd")
	f.loadPeer()
	srv := f.loadSoakServer(fmt.Sprintf("keepalive %d %d", patience/4, patience), "max-clients 12000")
	// More than one address, since a server bounds what comes from one.
	from := []string{f.Host("crowd").Wan4.String()}
	for i := range 7 {
		a := fmt.Sprintf("198.18.0.%d", 200+i)
		_, err := f.Host("crowd").Run(f.ctx, "ip", "addr", "add", a+"/24", "dev", "eth0")
		f.must(err)
		from = append(from, a)
	}
	const perSecond = 100
	storm := time.Duration(sessions) * time.Second / perSecond
	// beside measures a flow both ways and its pings, during what.
	beside := func(name string, long time.Duration, what func()) {
		t.Helper()
		c := f.soakCrew(strings.ReplaceAll(name, " ", "-"), long, "-proto", "udp", "-n", "2", "-traffic", "both", "-io", "stock", "-size", "600", "-rate", strconv.Itoa(rate/2), "-probe", lab.Lan4,
			"-pid", strconv.Itoa(srv.Pid()))
		what()
		c.report(long + time.Minute)
		t.Logf("%s: %.2f cores, pings p50 %.2f, p99 %.2f ms", name, c.Server.Cores, c.Ping.P50, c.Ping.P99)
		for way, m := range map[string]struct{ Sent, Packets uint64 }{"up": {c.Up.Sent, c.Up.Packets}, "down": {c.Down.Sent, c.Down.Packets}} {
			t.Logf("%s, %s: %d of %d packets arrived", name, way, m.Packets, m.Sent)
			if want := uint64(long.Seconds()) * uint64(rate) * 9 / 10; m.Packets < want {
				t.Errorf("%s: %d packets arrived %s in %v, want 90 %% of %d a second", name, m.Packets, way, long, rate)
			}
		}
	}
	crowd := func(name string, stay time.Duration) *soakCrew {
		t.Helper()
		return f.soakCrewOn("crowd", name, stay, "-proto", "mixed", "-n", strconv.Itoa(sessions), "-storm", strconv.Itoa(perSecond), "-from", strings.Join(from, ","))
	}

	beside("alone", 2*time.Second, func() {})
	beside("logins and goodbyes", storm+6*time.Second, func() {
		c := crowd("goodbye", time.Second)
		c.report(storm + 2*time.Minute)
		if c.Connected != sessions || c.Left != sessions {
			t.Errorf("%d of %d sessions connected, %d stayed", c.Connected, sessions, c.Left)
		}
		srv.emptied(2)
	})
	srv.emptied(0)
	silent := crowd("silent", time.Hour)
	srv.expectClients(storm+time.Minute, sessions)
	beside("timeouts", time.Duration(2*patience+4)*time.Second, func() {
		silent.Kill()
		srv.emptied(2)
	})
	srv.emptied(0)
	kinds := f.junk()
	beside("floods", time.Duration(len(kinds)*flood)*time.Second, func() {
		for _, next := range kinds {
			f.flood("crowd", next, rate*5, time.Duration(flood)*time.Second)
		}
	})
	f.must(lab.Until(20*time.Second, func() error {
		if u := srv.use(); u.goroutines > 40 {
			return fmt.Errorf("%d goroutines are left", u.goroutines)
		}
		return nil
	}))
	t.Logf("at the end: %+v", srv.use())
	t.Log(f.postern("status", "--lanes", "--socket", filepath.Join(f.Dir, "control.sock")))
}

// stormSize is how many sessions a storm has: LOADSTORM, or the usual number.
func stormSize(t *testing.T, usual int) int {
	t.Helper()
	s := os.Getenv("LOADSTORM")
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("LOADSTORM=%q: want a number of sessions", s)
	}
	return n
}

// emptied waits until no more than so many clients are left.
func (s *soakServer) emptied(most int) {
	s.f.t.Helper()
	s.f.must(lab.Until(time.Minute, func() error {
		if have := len(s.snapshot().Clients); have > most {
			time.Sleep(300 * time.Millisecond) // a snapshot of thousands is work
			return fmt.Errorf("%d clients, want %d", have, most)
		}
		return nil
	}))
}

// junk makes what strangers flood servers with: each kind is a function that writes the next packet.
func (f *field) junk() map[string]func(b []byte) []byte {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, seed))
	random := func(b []byte) []byte {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	reset := func(id tlsctl.SessionID) []byte {
		return tlsctl.NewClientWrap(tlsctl.Wrapping{}, time.Now()).Seal(nil, &tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV2, Session: id})
	}
	captured := reset(tlsctl.SessionID{1, 2, 3, 4, 5, 6, 7, 8})
	return map[string]func(b []byte) []byte{
		"noise":         func(b []byte) []byte { return random(b[:40]) },
		"forged resets": func([]byte) []byte { return reset(tlsctl.SessionID(random(make([]byte, 8)))) },
		"one reset":     func([]byte) []byte { return captured },
		"forged data": func(b []byte) []byte {
			binary.BigEndian.PutUint32(random(b[:60]), 9<<27|uint32(rng.IntN(3))) // of somebody who is in
			return b[:60]
		},
	}
}

// flood sends packets at a rate.
func (f *field) flood(host string, next func(b []byte) []byte, rate int, long time.Duration) {
	f.t.Helper()
	var conn net.Conn
	f.must(f.Host(host).Do(func() (err error) {
		conn, err = net.Dial("udp", fmt.Sprintf("%v:1194", f.Host("router").Wan4))
		return err
	}))
	defer conn.Close()
	var b [100]byte
	n := 0
	for begun := time.Now(); time.Since(begun) < long; time.Sleep(time.Millisecond) {
		for due := int(time.Since(begun).Seconds() * float64(rate)); n < due; n++ {
			if _, err := conn.Write(next(b[:])); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				f.t.Fatal(err)
			}
		}
	}
	f.t.Logf("%d packets sent", n)
}
