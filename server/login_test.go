package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/server/link"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// While one client's login takes its time, another's packets go through, and a third logs in.
func TestSlowLoginStallsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			if r.Username == "bob" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return passwords(ctx, r)
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		bob := w.peer("bob", otherAddr, withLogin("bob", "secret"))
		began, answered := time.Now(), make(chan error)
		go func() { answered <- bob.ctl.Connect(w.ctx) }()
		for waiting := true; waiting; {
			select {
			case err := <-answered:
				if !strings.Contains(err.Error(), "AUTH_FAILED,TEMP") {
					t.Errorf("bob: %v, want AUTH_FAILED,TEMP: the login service did not answer", err)
				}
				waiting = false
			case <-time.After(time.Second):
				at := time.Now()
				alice.mustReach()
				if time.Since(at) != 0 {
					t.Errorf("a packet took %v", time.Since(at))
				}
			}
		}
		if took := time.Since(began); took < loginTimeout || took > loginTimeout+time.Second {
			t.Errorf("bob heard after %v, want %v: the bound of a login (S058)", took, loginTimeout)
		}
		if got, want := w.clients(), []string{"alice"}; !slices.Equal(got, want) {
			t.Errorf("connected: %v, want %v", got, want)
		}
	})
}

// Refusals are sent at one time after the login came, whatever their reason (S045), and take nothing (S039).
func TestRefusalsTakeOneTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "disabled"), []byte("disable\n"), 0o600))
		w.cfg.ClientConfigDir = dir
		w.cfg.Pool4.Last = w.cfg.Pool4.First // one address
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			switch string(r.Password) {
			case "unknown":
				return nil, &auth.Denied{Reason: "unknown user", Public: auth.PublicRefusal, Err: auth.ErrUnknownUser}
			case "slow":
				time.Sleep(1700 * time.Millisecond)
				return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
			case "away":
				return nil, errors.New("directory is away")
			case "nameless":
				return &auth.Identity{}, nil
			case "strange":
				return &auth.Identity{Name: "../etc"}, nil
			}
			return passwords(ctx, r)
		})
		w.cfg.UsernameAsCN = true
		revoked, err := w.ca.Issue("revoked", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		w.revoke(revoked.Leaf.SerialNumber)
		w.start()
		w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()

		const denied = "AUTH_FAILED," + auth.PublicRefusal
		for i, c := range []struct{ name, password, want string }{
			{"bob", "wrong", denied},
			{"bob", "unknown", denied},
			{"bob", "slow", denied},
			{"bob", "away", "AUTH_FAILED,TEMP"},
			{"bob", "nameless", "AUTH_FAILED,TEMP"},
			{"bob", "strange", "AUTH_FAILED,this name"},
			{"disabled", "secret", "AUTH_FAILED"},
			{"revoked", "secret", "AUTH_FAILED,certificate revoked"},
			{"bob", "secret", "AUTH_FAILED,TEMP"}, // no free address
		} {
			at := netip.AddrPortFrom(otherAddr.Addr(), uint16(41000+i))
			p := w.peer(c.name, at, withLogin(c.name, c.password))
			if c.name == "revoked" {
				p = w.peerWith(revoked, netip.AddrPortFrom(thirdAddr.Addr(), 42000), withLogin(c.name, c.password))
			}
			text, after := p.refusal()
			if !strings.HasPrefix(text, c.want) {
				t.Errorf("%s with password %q: %q, want %q", c.name, c.password, text, c.want)
			}
			if off := after - 2*time.Second; off < -300*time.Millisecond || off > 300*time.Millisecond {
				t.Errorf("%s with password %q: refused after %v, want 2 s", c.name, c.password, after)
			}
		}
		time.Sleep(time.Minute)
		if snap := w.srv.Snapshot(); snap.HalfOpen != 0 || snap.Pool.Leased != 1 || w.srv.table.count() != 1 {
			t.Errorf("a minute later: %d half-open, %d leases, %d sessions; want 0, 1, 1", snap.HalfOpen, snap.Pool.Leased, w.srv.table.count())
		}
		if w.srv.half.total != 0 {
			t.Errorf("%d sessions counted as half-open, want 0", w.srv.half.total)
		}
		if n := w.log.count("login ended"); n != 9 {
			t.Errorf("%d lines about refusals, want 9", n)
		}
	})
}

// revoke has the configuration's revocation list name serial numbers.
func (w *world) revoke(serials ...*big.Int) {
	w.t.Helper()
	crl, err := w.ca.Revoke(1, time.Now().Add(240*time.Hour), serials...)
	must(w.t, err)
	w.cfg.CRL = config.Material{Name: "[inline]", Bytes: crl}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The pool is used up: the newcomer is told, those who are in notice nothing, and an address that is given back is to
// be had (F42). An alarm is raised before that.
func TestPoolExhausted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Pool4.Last = w.cfg.Pool4.First.Next()
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		if alice.addr4() == bob.addr4() {
			t.Fatalf("both have %v", alice.addr4())
		}
		text, _ := w.peer("carol", thirdAddr).refusal()
		if want := "AUTH_FAILED,TEMP"; !strings.HasPrefix(text, want) || !strings.Contains(text, "no free address") {
			t.Errorf("carol was told %q, want %q and no free address", text, want)
		}
		alice.mustReach()
		bob.mustReach()
		time.Sleep(15 * time.Second)
		if w.log.count("alarm", "address pool") != 1 {
			t.Error("no alarm about the pool")
		}
		bob.ctl.Say("EXIT")
		time.Sleep(10 * time.Second)
		carol := w.peer("carol", netip.AddrPortFrom(thirdAddr.Addr(), 1)).connect()
		carol.mustReach()
		alice.mustReach()
	})
}

// A flood of resets from where a client is, and from everywhere, neither ends nor moves the client, nor leaves anything
// behind (S017).
func TestResetFlood(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		answers := 0
		w.net.Filter(func(from, to netip.AddrPort, _ []byte) bool {
			if from == hubAddr && to != homeAddr {
				answers++
			}
			return true
		})
		attacker := w.net.Client(thirdAddr)
		defer attacker.Close()
		for second := range 20 {
			for i := range 1000 {
				reset := tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV2, Session: tlsctl.SessionID{1, byte(second), byte(i >> 8), byte(i)}}
				b := reset.AppendTo(nil)
				if i%2 == 0 {
					alice.sendRaw(b)
				} else {
					attacker.Send([]link.Train{{Addr: hubAddr, Bytes: b, Size: len(b)}})
				}
			}
			time.Sleep(time.Second)
			alice.mustReach()
		}
		if snap := w.srv.Snapshot(); len(snap.Clients) != 1 || snap.HalfOpen != 0 || snap.Clients[0].Real != homeAddr {
			t.Errorf("afterwards: %+v", snap)
		}
		if answers > 20*500 { // one for each that asked, at most (S004)
			t.Errorf("%d answers to 10,000 resets of strangers", answers)
		}
		if n := w.log.count(""); n > 2 {
			t.Errorf("%d log lines, want only the two about alice's login:\n%s", n, w.log)
		}
	})
}

// A second session from the address of a client takes its place when it is admitted, and not before (S017, S050).
func TestSecondSessionReplacesWhenAdmitted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		decide := make(chan error)
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			if string(r.Password) == "wait" {
				if err := <-decide; err != nil {
					return nil, err
				}
			}
			return &auth.Identity{Name: r.Username}, nil
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "now")).connect()
		second := func() (*ctltest.Client, chan error) {
			p := w.newPeer(alice.cert, []func(*ctltest.Config){withLogin("alice", "wait")})
			ctl := ctltest.NewClient(alice.sendRaw, p.cfg)
			t.Cleanup(ctl.Close)
			old := alice.ctl
			alice.deliver(func(pkt []byte) {
				old.Deliver(slices.Clone(pkt))
				ctl.Deliver(pkt)
			})
			done := make(chan error, 1)
			go func() { done <- ctl.Connect(w.ctx) }()
			synctest.Wait()
			return ctl, done
		}

		// Refused: the older session never notices.
		_, done := second()
		time.Sleep(3 * time.Second)
		alice.mustReach()
		decide <- &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
		if err := <-done; err == nil {
			t.Fatal("the second session was let in")
		}
		time.Sleep(10 * time.Second)
		alice.mustReach()
		if leased, _, _ := w.srv.usage(); leased != 1 {
			t.Errorf("%d leases, want 1", leased)
		}

		// Admitted: it has the older one's place and addresses.
		ctl, done := second()
		time.Sleep(3 * time.Second)
		alice.mustReach()
		was := alice.addr4()
		decide <- nil
		if err := <-done; err != nil {
			t.Fatalf("the second session: %v", err)
		}
		synctest.Wait()
		alice.use(ctl)
		alice.mustReach()
		if alice.addr4() != was {
			t.Errorf("the second session has %v, the first had %v", alice.addr4(), was)
		}
		if got, want := w.clients(), []string{"alice"}; !slices.Equal(got, want) {
			t.Errorf("connected: %v, want %v", got, want)
		}
	})
}

// Of one name's sessions the newest stays; with duplicate-cn all do, with addresses of their own (S050).
func TestDuplicateNames(t *testing.T) {
	for _, duplicates := range []bool{false, true} {
		t.Run(fmt.Sprint(duplicates), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.DuplicateCN = duplicates
				w.start()
				first := w.peer("alice", homeAddr).connect()
				first.mustReach()
				second := w.peerWith(first.cert, otherAddr).connect()
				second.mustReach()
				if !duplicates {
					first.send(udp(first.addr4(), lanHost, nil))
					if got := w.written(); len(got) != 0 || len(w.clients()) != 1 {
						t.Errorf("the first session still sends %d packets; connected: %v", len(got), w.clients())
					}
					if second.addr4() != first.addr4() {
						t.Errorf("the second session has %v, the first had %v", second.addr4(), first.addr4())
					}
					return
				}
				first.mustReach()
				if second.addr4() == first.addr4() || len(w.clients()) != 2 {
					t.Errorf("addresses %v and %v, connected: %v", first.addr4(), second.addr4(), w.clients())
				}
			})
		})
	}
}

// Many logins with one certificate at once, over UDP and TCP, leave one session and one lease (S050).
func TestSimultaneousLogins(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		const n = 15 // what one source may begin at once
		for i := range n {
			from := netip.AddrPortFrom(homeAddr.Addr(), uint16(40000+i))
			p := w.peerWith
			if i%2 == 1 {
				p = w.streamPeerWith
			}
			ctl := p(cert, from).ctl
			go ctl.Connect(w.ctx)
		}
		time.Sleep(time.Minute)
		leased, _, _ := w.srv.usage()
		if got := w.clients(); len(got) != 1 || leased != 1 || w.srv.table.count() != 1 || len(w.srv.table.byName) != 1 {
			t.Errorf("connected: %v, %d leases, %d sessions; want 1 of each", got, leased, w.srv.table.count())
		}
	})
}

// What a client's file says: fixed addresses, pushes, and nothing of the pool for IPv6 beside a fixed IPv4 address.
func TestClientFile(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "alice"), []byte("ifconfig-push 10.8.0.9 255.255.255.0\npush \"route 172.16.0.0 255.255.0.0\"\n"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "bob"), []byte("ifconfig-push 10.8.0.9 255.255.255.0\n"), 0o600))
		w.cfg.ClientConfigDir = dir
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		for _, want := range []string{"topology subnet", "route 172.16.0.0 255.255.0.0", "ifconfig 10.8.0.9 255.255.255.0"} {
			if !slices.Contains(alice.ctl.Options(), want) {
				t.Errorf("options %q lack %q", alice.ctl.Options(), want)
			}
		}
		if got := alice.option("ifconfig-ipv6"); got != "" {
			t.Errorf("alice has %s, too", got)
		}
		alice.mustReach()
		// Her address is taken, though by a line in another's file (S113).
		text, _ := w.peer("bob", otherAddr).refusal()
		if !strings.Contains(text, "address in use") {
			t.Errorf("bob was told %q, want that the address is in use", text)
		}
		alice.mustReach()
	})
}

// Only files of their own let clients in with ccd-exclusive.
func TestClientFileExclusive(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "alice"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "DEFAULT"), nil, 0o600))
		w.cfg.ClientConfigDir, w.cfg.CCDExclusive = dir, true
		w.start()
		w.peer("alice", homeAddr).connect().mustReach()
		if text, _ := w.peer("bob", otherAddr).refusal(); text != "AUTH_FAILED" {
			t.Errorf("bob was told %q, want AUTH_FAILED", text)
		}
	})
}

// When all places of half-open sessions are taken, a silent one makes room for a client that wants to log in (S008).
func TestFullOfHalfOpenSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		silent := w.peer("silent", homeAddr)
		go silent.ctl.Connect(w.ctx)
		w.net.Filter(func(from, _ netip.AddrPort, pkt []byte) bool {
			op, _, _, ok := tlsctl.PeekSession(pkt)
			return from != homeAddr || !ok || op != tlsctl.OpControl
		})
		time.Sleep(time.Second)
		h := w.srv.half
		h.mu.Lock()
		h.total += maxHalfOpen - 1 // all others are at their login
		h.mu.Unlock()
		w.peer("alice", otherAddr).connect().mustReach()
		if n := w.srv.table.count(); n != 1 {
			t.Errorf("%d sessions, want alice's alone", n)
		}
		if h.total != maxHalfOpen-1 {
			t.Errorf("%d are counted, want %d", h.total, maxHalfOpen-1)
		}
	})
}

// A fixed address that lies outside the pool belongs to the newest who claims it; who had it before may not use it any
// more, and keeps the rest (S082).
func TestFixedAddressPassesOn(t *testing.T) {
	for _, fixed := range []string{"10.9.0.9", "10.8.0.200"} { // elsewhere, and in the pool's network
		t.Run(fixed, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				dir := t.TempDir()
				for i, name := range []string{"alice", "bob"} {
					text := fmt.Sprintf("ifconfig-push %s 255.255.255.0\nifconfig-ipv6-push fd00:9::%d/64\n", fixed, i+1)
					must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
				}
				w.cfg.ClientConfigDir = dir
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				alice.mustReach()
				bob := w.peer("bob", otherAddr).connect()
				bob.mustReach()
				alice.send(udp(alice.addr4(), lanHost, nil))
				if got := w.written(); len(got) != 0 {
					t.Errorf("alice still sends from %v, which is bob's", alice.addr4())
				}
				alice.mustReachFrom(alice.addr6(), lanHost6)
				alice.ctl.Say("EXIT")
				time.Sleep(10 * time.Second)
				bob.mustReach() // her going takes nothing of his
			})
		})
	}
}

// A yes that comes after the bound of a login is none (S040).
func TestLateYes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = loginFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
			time.Sleep(loginTimeout + time.Second)
			return &auth.Identity{Name: r.Username}, nil
		})
		w.start()
		if text, _ := w.peer("alice", homeAddr, withLogin("alice", "secret")).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,TEMP") {
			t.Errorf("alice was told %q", text)
		}
	})
}

// Who has proved its address and says nothing more is forgotten soon, without a line in the log; a second beginning from
// its address takes its place (S017).
func TestHalfOpenSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		mute := func(_, _ netip.AddrPort, pkt []byte) bool {
			op, _, _, ok := tlsctl.PeekSession(pkt)
			return !ok || op != tlsctl.OpControl
		}
		w.net.Filter(mute)
		silent := w.peer("silent", homeAddr)
		begin := func() {
			t.Helper()
			ctl := ctltest.NewClient(silent.sendRaw, silent.cfg)
			t.Cleanup(ctl.Close)
			silent.deliver(ctl.Deliver)
			go ctl.Connect(w.ctx)
			time.Sleep(time.Second)
			synctest.Wait()
			if n := w.srv.table.count(); n != 1 || w.srv.half.total != 1 || w.srv.Snapshot().HalfOpen != 1 {
				t.Errorf("%d sessions, %d half-open, want one", n, w.srv.half.total)
			}
		}
		begin()
		begin()
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if n := w.srv.table.count() + w.srv.half.total + len(w.srv.table.pending) + len(w.srv.table.byControl); n != 0 {
			t.Errorf("%d things are remembered", n)
		}
		if n := w.log.count("info") + w.log.count("warn"); n > 1 {
			t.Errorf("%d log lines above debug:\n%s", n, w.log)
		}
	})
}

// What strangers can have written into the log is bounded (S103).
func TestHush(t *testing.T) {
	var h hush
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	written := 0
	for second := range 60 {
		in := 0
		for range 1000 {
			if h.allows(now.Add(time.Duration(second) * time.Second)) {
				in++
			}
		}
		if in > hushSecond {
			t.Fatalf("%d lines in second %d, want at most %d", in, second, hushSecond)
		}
		written += in
	}
	if written != hushMinute {
		t.Errorf("%d lines in a minute, want %d", written, hushMinute)
	}
	if n := h.taken(); n != 60*1000-hushMinute {
		t.Errorf("%d lines withheld, want %d", n, 60*1000-hushMinute)
	}
	if h.taken() != 0 || !h.allows(now.Add(time.Minute)) {
		t.Error("a new minute does not begin anew")
	}
}
