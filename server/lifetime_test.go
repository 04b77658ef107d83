package server

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/server/datachan"
)

// pinged is how many pings came since it was asked last.
func (p *peer) pinged() int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.pings
	p.pings = 0
	return n
}

// An idle client gets pings, a busy one none; a silent one is given up when ping-restart is over, and what was its is
// free.
func TestKeepalive(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.Ping, w.cfg.PingRestart = 10*time.Second, 60*time.Second
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		for range 100 {
			time.Sleep(time.Second)
			bob.send(datachan.AppendPing(nil))
			w.inject(udp(lanHost, bob.addr4(), nil))
			if len(w.clients()) == 2 {
				continue
			}
			break
		}
		if got := w.clients(); !slices.Equal(got, []string{"bob"}) {
			t.Fatalf("connected: %v, want bob alone: alice is silent", got)
		}
		if n := alice.pinged(); n < 5 || n > 6 {
			t.Errorf("alice got %d pings in a minute, want one every 10 s", n)
		}
		if n := bob.pinged(); n != 0 {
			t.Errorf("bob got %d pings, and traffic every second", n)
		}
		if w.log.count("client disconnected", "ping timeout", "alice") != 1 {
			t.Errorf("log:\n%s", w.log)
		}
		if leased, _, _ := w.srv.usage(); leased != 1 || w.srv.table.zones[0].find(alice.addr4()) != nil {
			t.Errorf("%d addresses leased", leased)
		}
		bob.mustReach()
	})
}

// Packets that do not open keep nobody alive (S076).
func TestForgeriesAreNoSignOfLife(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.PingRestart = 30 * time.Second
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		old := alice.seal(udp(alice.addr4(), lanHost, nil))
		alice.sendRaw(old)
		forged := slices.Clone(old)
		forged[len(forged)-1]++
		for range 33 {
			time.Sleep(time.Second)
			alice.sendRaw(old)
			alice.sendRaw(forged)
		}
		if got := w.clients(); len(got) != 0 {
			t.Errorf("connected: %v", got)
		}
	})
}

// Keepalive begins when a client is let in: a login that takes longer than ping-restart ends nobody.
func TestKeepaliveBeginsAfterLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.PingRestart = 4 * time.Second
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			time.Sleep(9 * time.Second)
			return passwords(ctx, r)
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		time.Sleep(2500 * time.Millisecond)
		alice.mustReach()
	})
}

// A client that was let in and never asks for its options is given up like any other.
func TestMemberThatNeverAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.cfg.PingRestart = 30 * time.Second
		w.start()
		alice := w.peer("alice", homeAddr, oldClient)
		if err := alice.ctl.Handshake(w.ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if leased, _, _ := w.srv.usage(); leased != 1 {
			t.Fatalf("%d leases, want one", leased)
		}
		time.Sleep(30 * time.Second)
		if leased, _, _ := w.srv.usage(); leased != 0 || w.srv.table.count() != 0 || w.srv.half.total != 0 {
			t.Errorf("%d leases, %d sessions, %d half-open", leased, w.srv.table.count(), w.srv.half.total)
		}
	})
}

// A client that says goodbye is gone: on the control channel, or with a data message, which is how the old say it.
func TestGoodbye(t *testing.T) {
	for _, c := range []struct {
		name string
		say  func(p *peer)
	}{
		{"EXIT", func(p *peer) { p.ctl.Say("EXIT") }},
		{"OCC_EXIT", func(p *peer) { p.send(datachan.AppendExit(nil)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				c.say(alice)
				time.Sleep(100 * time.Millisecond)
				alice.got()
				w.inject(udp(lanHost, alice.addr4(), nil))
				alice.sendRaw(alice.seal(udp(alice.addr4(), lanHost, nil)))
				if len(w.written())+len(alice.got()) != 0 {
					t.Error("data goes through after the goodbye (S030)")
				}
				time.Sleep(6 * time.Second)
				if leased, _, _ := w.srv.usage(); leased != 0 || w.srv.table.count() != 0 || len(w.clients()) != 0 {
					t.Errorf("%d leases, %d sessions", leased, w.srv.table.count())
				}
				alice.w.peerWith(alice.cert, otherAddr).connect().mustReach()
			})
		})
	}
}

// A server that ends tells its clients, and is gone as soon as they have heard it; nothing keeps it for longer than two
// seconds.
func TestShutdown(t *testing.T) {
	for _, c := range []struct {
		name   string
		notify int
		deaf   bool
		want   string
		within time.Duration
	}{
		{"heard", 1, false, "RESTART,[P]:server ends", 100 * time.Millisecond},
		{"to the next server", 2, false, "RESTART,[PN]:server ends", 100 * time.Millisecond},
		{"with last words under way", 1, false, "RESTART,[P]:server ends", 100 * time.Millisecond},
		{"deaf client", 1, true, "", farewellTime + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.ExitNotify = c.notify
				w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
					if r.Username == "carol" {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return passwords(ctx, r)
				})
				w.start()
				alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
				bob := w.streamPeer("bob", otherAddr, withLogin("bob", "secret")).connect()
				carol := w.peer("carol", thirdAddr, withLogin("carol", "secret"))
				go carol.ctl.Connect(w.ctx)
				time.Sleep(time.Second)
				if c.name == "with last words under way" {
					dave := w.peer("dave", at(1), withLogin("dave", "secret")).connect()
					dave.ctl.Say("EXIT")
					time.Sleep(time.Second)
				}
				if c.deaf {
					alice.deliver(func([]byte) {})
				}
				if took := w.stop(); took > c.within {
					t.Errorf("the server took %v to end, want at most %v", took, c.within)
				}
				for _, p := range []*peer{alice, bob} {
					if p == alice && c.deaf {
						continue
					}
					if got := p.ctl.Messages(); c.want != "" && got[len(got)-1] != c.want {
						t.Errorf("%s was told %q, want %q", p.name, got, c.want)
					}
				}
				if len(w.srv.table.all(nil)) != 0 {
					t.Error("sessions outlive the server")
				}
			})
		})
	}
}

// A device that is removed ends the server with an error.
func TestDeviceGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		w.peer("alice", homeAddr).connect()
		w.dev.Remove()
		if err := <-w.ended; err == nil || !strings.Contains(err.Error(), "TUN device") {
			t.Errorf("the server ended with %v", err)
		}
		w.ended = nil
	})
}

// session-timeout ends a session however busy it is; inactive one that moves too little, which pings are not.
func TestSessionLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		busy   int // bytes inside a second
		ends   time.Duration
	}{
		{"session-timeout", func(c *config.Config) { c.SessionTimeout = time.Minute }, 100, time.Minute},
		{"inactive, idle", func(c *config.Config) { c.Inactive = time.Minute }, 0, time.Minute},
		{"inactive, busy", func(c *config.Config) { c.Inactive = time.Minute }, 100, 0},
		{"inactive 60 10000, slow", func(c *config.Config) { c.Inactive, c.InactiveBytes = time.Minute, 10000 }, 100, time.Minute},
		{"inactive 60 1000, busy", func(c *config.Config) { c.Inactive, c.InactiveBytes = time.Minute, 1000 }, 100, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.Ping, w.cfg.PingRestart = 2*time.Second, 10*time.Second
				c.change(w.cfg)
				w.start()
				alice := w.peer("alice", homeAddr).connect()
				began := time.Now()
				for len(w.clients()) > 0 && time.Since(began) < 3*time.Minute {
					alice.send(datachan.AppendPing(nil))
					if c.busy > 0 {
						alice.send(udp(alice.addr4(), lanHost, make([]byte, c.busy-28)))
					}
					time.Sleep(time.Second)
				}
				lasted := time.Since(began)
				switch {
				case c.ends == 0 && len(w.clients()) == 0:
					t.Errorf("the session ended after %v", lasted)
				case c.ends != 0 && (lasted < c.ends || lasted > c.ends+3*time.Second):
					t.Errorf("the session lasted %v, want %v", lasted, c.ends)
				}
			})
		})
	}
}

// A session ends when its certificate does (S070, F26), and says why.
func TestCertificateExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
		must(t, err)
		alice := w.peerWith(cert, homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		time.Sleep(59 * time.Minute)
		alice.mustReach()
		time.Sleep(2 * time.Minute)
		if got := w.clients(); !slices.Equal(got, []string{"bob"}) {
			t.Errorf("connected a minute after: %v", got)
		}
		if got := alice.ctl.Messages(); !slices.Contains(got, "AUTH_FAILED,certificate expired") {
			t.Errorf("alice was told %q", got)
		}
		bob.mustReach()
	})
}

// The end of the server's own certificate is announced 30, 7 and 1 days ahead; a reload with another ends that (S070, F25).
func TestOwnCertificateEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.ownCertificate(40 * 24 * time.Hour)
		w.start()
		day := 24 * time.Hour
		begin := time.Now()
		for _, c := range []struct{ day, want int }{{9, 0}, {11, 1}, {12, 1}, {32, 1}, {34, 2}, {38, 2}, {39, 3}} {
			w.srv.checkOwnCertificate(w.srv.live.Load(), begin.Add(time.Duration(c.day)*day+time.Minute))
			if got := w.log.count("alarm", "certificate"); got != c.want {
				t.Errorf("%d warnings after %d days of 40, want %d", got, c.day, c.want)
			}
		}
		w.ownCertificate(400 * day)
		next := *w.cfg
		_, err := w.srv.Reload(&next, Login{})
		must(t, err)
		w.srv.checkOwnCertificate(w.srv.live.Load(), begin.Add(39*day))
		if got := w.log.count("alarm", "certificate"); got != 3 {
			t.Errorf("%d warnings once the certificate was renewed, want the three before", got)
		}
		w.ownCertificate(-time.Minute)
		next = *w.cfg
		if _, err := w.srv.Reload(&next, Login{}); err == nil {
			t.Error("a certificate that has expired was taken")
		}
	})
}

// A certificate that appears in the revocation list ends its session, and nobody else's; a list that is damaged, older,
// or gone changes nothing but the log; one that is out of date lets nobody in and ends nobody (S068, F23, F24).
func TestRevocationWhileConnected(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		file := filepath.Join(t.TempDir(), "crl.pem")
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		list := func(number int64, life time.Duration, revoked bool) {
			t.Helper()
			b, err := w.ca.Revoke(number, time.Now().Add(life))
			if revoked {
				b, err = w.ca.Revoke(number, time.Now().Add(life), cert.Leaf.SerialNumber)
			}
			must(t, err)
			must(t, os.WriteFile(file, b, 0o600))
			must(t, os.Chtimes(file, time.Time{}, time.Now()))
		}
		list(1, 24*time.Hour, false)
		first, err := os.ReadFile(file)
		must(t, err)
		w.cfg.CRL = config.Material{Name: file, Bytes: first}
		w.start()
		alice := w.peerWith(cert, homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		time.Sleep(time.Minute)
		if n := w.log.count("alarm") + w.log.count("revocation list read"); n != 0 {
			t.Errorf("the log speaks of a list that has not changed:\n%s", w.log)
		}

		for _, bad := range []string{"", "garbage"} {
			must(t, os.WriteFile(file, []byte(bad), 0o600))
			must(t, os.Chtimes(file, time.Time{}, time.Now()))
			before := w.log.count("alarm")
			time.Sleep(150 * time.Second)
			if n := w.log.count("alarm") - before; n < 2 || n > 3 {
				t.Errorf("%d alarms in 2.5 minutes with %q for a list, want one a minute", n, bad)
			}
		}
		must(t, os.WriteFile(file, first, 0o600))
		alice.mustReach()

		list(2, 2*time.Hour, true)
		time.Sleep(5 * time.Second)
		if got := w.clients(); !slices.Equal(got, []string{"bob"}) {
			t.Errorf("connected 5 s after the list changed: %v", got)
		}
		if got := alice.ctl.Messages(); !slices.Contains(got, "AUTH_FAILED,certificate revoked") {
			t.Errorf("alice was told %q", got)
		}
		if text, _ := w.peerWith(cert, thirdAddr).refusal(); text != "AUTH_FAILED,certificate revoked" {
			t.Errorf("alice, again, was told %q", text)
		}

		must(t, os.WriteFile(file, first, 0o600)) // the older one
		must(t, os.Chtimes(file, time.Time{}, time.Now()))
		time.Sleep(5 * time.Second)
		if text, _ := w.peerWith(cert, at(1)).refusal(); text != "AUTH_FAILED,certificate revoked" {
			t.Errorf("with an older list alice was told %q", text)
		}

		list(3, time.Hour, true)
		time.Sleep(50 * time.Minute)
		if w.log.count("alarm", "crl age") == 0 {
			t.Error("no alarm when four fifths of the list's life are over")
		}
		time.Sleep(15 * time.Minute)
		if text, _ := w.peer("carol", at(2)).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,TEMP") {
			t.Errorf("with a list out of date carol was told %q", text)
		}
		merged := *w.srv.live.Load().cfg
		if merged.CRL.Bytes, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		if _, err := w.srv.Reload(&merged, Login{}); err != nil { // looks at everybody again
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		bob.mustReach()
	})
}

// A directory of revoked serials, one of which appears. That it cannot be read ends nobody.
func TestRevocationDirectory(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		dir := filepath.Join(t.TempDir(), "crl")
		must(t, os.Mkdir(dir, 0o700))
		w.cfg.CRL, w.cfg.CRLDir = config.Material{Name: dir}, true
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		bob := w.peer("bob", otherAddr).connect()
		must(t, os.Rename(dir, dir+".aside"))
		must(t, os.WriteFile(dir, nil, 0o600)) // ENOTDIR, of which nothing can be concluded
		time.Sleep(10 * time.Second)
		alice.mustReach()
		if text, _ := w.peer("carol", thirdAddr).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,TEMP") {
			t.Errorf("carol was told %q", text)
		}
		must(t, os.Remove(dir))
		must(t, os.Rename(dir+".aside", dir))
		must(t, os.WriteFile(filepath.Join(dir, alice.cert.Leaf.SerialNumber.String()), nil, 0o600))
		time.Sleep(5 * time.Second)
		if got := w.clients(); !slices.Equal(got, []string{"bob"}) {
			t.Errorf("connected: %v", got)
		}
		bob.mustReach()
	})
}

// A reload changes what is asked of newcomers; sessions go on. A broken one changes nothing (S095).
func TestReload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		next := *w.cfg
		next.Push = []string{"topology subnet", "route 172.16.0.0 255.255.0.0"}
		next.MaxClients = 7
		kept, err := w.srv.Reload(&next, Login{Auth: passwords})
		if err != nil || !slices.Equal(kept, []string{"max-clients"}) {
			t.Errorf("reload: %v, %v; want max-clients to be kept", kept, err)
		}
		alice.mustReach()
		if text, _ := w.peer("bob", otherAddr, withLogin("bob", "wrong")).refusal(); !strings.Contains(text, auth.PublicRefusal) {
			t.Errorf("bob was told %q: logins are wanted now", text)
		}
		bob := w.peer("bob", thirdAddr, withLogin("bob", "secret")).connect()
		if !slices.Contains(bob.ctl.Options(), next.Push[1]) {
			t.Errorf("options %q lack the new route", bob.ctl.Options())
		}
		broken := next
		broken.Cert.Bytes = nil
		if _, err := w.srv.Reload(&broken, Login{}); err == nil {
			t.Error("a configuration without a certificate was taken")
		}
		bob.mustReach()
		alice.mustReach()
	})
}

// The files are written: the pool when it changes, the status at the end, also where there is no pool file.
func TestStateFiles(t *testing.T) {
	for _, withPool := range []bool{false, true} {
		inBubble(t, func(t *testing.T, w *world) {
			pool, status := new(memoryFile), new(memoryFile)
			if w.status = status; withPool {
				w.pool = pool
				w.cfg.PoolPersist, w.cfg.PoolPersistEvery = "ipp.txt", 10*time.Minute
			}
			w.cfg.Status, w.cfg.StatusVersion = "status", 2
			w.start()
			w.peer("alice", homeAddr).connect()
			time.Sleep(2 * time.Second)
			if got, want := pool.String(), "alice,10.8.0.2,fd00:8::1000\n"; withPool && got != want {
				t.Errorf("pool file %q, want %q", got, want)
			}
			w.stop()
			if got := status.String(); !strings.HasPrefix(got, "TITLE,") || !strings.HasSuffix(got, "END\n") {
				t.Errorf("status file %q", got)
			}
		})
	}
}

// A disk that hangs delays nobody: pings, packets and timeouts go on, and the server ends without it (F09).
func TestDiskHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		disk := &memoryFile{hang: make(chan struct{})}
		w.pool, w.status = disk, disk
		w.cfg.PoolPersist, w.cfg.PoolPersistEvery = "ipp.txt", 10*time.Minute
		w.cfg.Status, w.cfg.StatusVersion, w.cfg.StatusEvery = "status", 2, time.Second
		w.cfg.Ping, w.cfg.PingRestart = 10*time.Second, time.Minute
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		w.peer("bob", otherAddr).connect() // and is silent
		for range 30 {
			time.Sleep(5 * time.Second)
			alice.send(datachan.AppendPing(nil))
		}
		if n := alice.pinged(); n < 10 {
			t.Errorf("%d pings in 150 s, want one every 10 s", n)
		}
		alice.mustReach()
		if c := w.srv.Snapshot().Clients; len(c) != 1 || c[0].Name != "alice" {
			t.Errorf("%v are connected, want alice alone", c)
		}
		w.stop()
		close(disk.hang)
	})
}

// memoryFile is a StateFile in memory, on a disk that may hang.
type memoryFile struct {
	mu    sync.Mutex
	bytes []byte
	aside []byte
	hang  chan struct{} // saves wait for it, if it is not nil
}

func (f *memoryFile) Load() ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bytes), nil
}

func (f *memoryFile) Save(b []byte) error {
	if f.hang != nil {
		<-f.hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes = slices.Clone(b)
	return nil
}

func (f *memoryFile) SetAside() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.aside = slices.Clone(f.bytes)
	return "aside", nil
}

func (f *memoryFile) String() string {
	b, _ := f.Load()
	return string(b)
}

// A pool file that was cut, zeroed or garbled ends no start: what can be read of it counts, it is set aside whole, and
// somebody is told (F08, S112).
func TestBrokenPoolFile(t *testing.T) {
	const good = "alice,10.8.0.9,fd00:8::1007\nbob,10.8.0.11,fd00:8::1009\n"
	for name, broken := range map[string]string{
		"cut":     good[:40],
		"zeroed":  strings.Repeat("\x00", 200_000),
		"garbled": "alice,10.8.0.9,fd00:8::1007\nbo\xffb,10.9\x00.0.11,\n",
		"foreign": "some other file\n",
	} {
		inBubble(t, func(t *testing.T, w *world) {
			file := &memoryFile{bytes: []byte(broken)}
			w.pool = file
			w.cfg.PoolPersist, w.cfg.PoolPersistEvery = "ipp.txt", 10*time.Minute
			w.start()
			alice := w.peer("alice", homeAddr).connect()
			if got, want := alice.addr4().String(), "10.8.0.9"; strings.HasPrefix(broken, "alice") && got != want {
				t.Errorf("%s: alice has %s, want %s", name, got, want)
			}
			time.Sleep(3 * time.Second)
			if string(file.aside) != broken {
				t.Errorf("%s: %d bytes were set aside, want %d", name, len(file.aside), len(broken))
			}
			if n := w.log.count("pool file cannot be read whole"); n != 1 {
				t.Errorf("%s: somebody was told %d times", name, n)
			}
			if !strings.Contains(file.String(), "alice,"+alice.addr4().String()) {
				t.Errorf("%s: the file was not written anew: %q", name, file)
			}
		})
	}
}
