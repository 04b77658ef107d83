package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/config"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// Handshakes that fail, a thousand of them, and whatever their TLS ends with, are nothing to those who are in (S032).
func TestFailingHandshakesHarmNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		var good []*peer
		for i := range 5 {
			good = append(good, w.peer(fmt.Sprintf("good%d", i), netip.AddrPortFrom(homeAddr.Addr(), uint16(50000+i))).connect())
		}
		stranger, err := ctltest.NewAuthority("Another CA")
		must(t, err)
		bad, err := stranger.Issue("mallory", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		for i := range 1000 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(113 + i/200), byte(1 + i%200)}), 40000)
			p := w.peerWith(bad, from, func(c *ctltest.Config) {
				switch i % 3 {
				case 1: // a certificate of nobody, and none at all
					c.TLS.Certificates = nil
				case 2: // an old TLS
					c.TLS.MaxVersion = tls.VersionTLS11
				}
			})
			if err := p.ctl.Connect(w.ctx); err == nil {
				t.Fatalf("handshake %d did not fail", i)
			}
			if i%100 == 0 {
				for _, g := range good {
					g.mustReach()
				}
			}
		}
		synctest.Wait()
		if got := len(w.clients()); got != len(good) {
			t.Errorf("%d of %d are left", got, len(good))
		}
	})
}

// Resets over two listeners, interleaved, are each answered where they came from, at once and once (S006).
func TestResetsAreAnsweredWhereTheyCameFrom(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.apart = true
		w.start()
		const n = 2000
		socks := make(map[netip.AddrPort]interface {
			Close() error
		})
		var answers, wrong atomic.Int64
		for i := range n {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(113 + i/250), byte(1 + i%250)}), uint16(30000+i))
			sid := tlsctl.SessionID{byte(i >> 8), byte(i), 3, 4, 5, 6, 7, 8}
			to := []netip.AddrPort{hubAddr, hubAddr2}[i%2]
			p := &peer{w: w, sock: w.net.Client(at), to: to, closed: make(chan struct{})}
			p.deliver(func(pkt []byte) {
				answers.Add(1)
				// A reset without acknowledgements: opcode, our id, no acks, packet id 0. It does not name the client.
				if len(pkt) != 14 || pkt[0]>>3 != byte(tlsctl.OpHardResetServerV2) {
					wrong.Add(1)
				}
			})
			go p.receive()
			socks[at] = p.sock
			p.sendRaw(tlsctl.NewClientWrap(tlsctl.Wrapping{}, time.Now()).Seal(nil, &tlsctl.Packet{Opcode: tlsctl.OpHardResetClientV2, Session: sid}))
			if i%50 == 49 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if got := answers.Load(); got != n || wrong.Load() != 0 {
			t.Errorf("%d answers to %d resets, %d of them not what they should be", got, n, wrong.Load())
		}
		time.Sleep(2 * time.Minute)
		if got := answers.Load(); got != n {
			t.Errorf("%d answers after two minutes: some were repeated (S004)", got)
		}
		if s := w.srv.Snapshot(); s.HalfOpen != 0 {
			t.Errorf("%d sessions for nothing but resets (S001)", s.HalfOpen)
		}
		for _, s := range socks {
			s.Close()
		}
	})
}

// No session is ever resumed, whatever the client keeps: each handshake is a whole one, so that a changed CA or
// revocation list always counts (S063).
func TestNoResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		inBubble(t, func(t *testing.T, w *world) {
			w.start()
			cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
			cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, nil)
			must(t, err)
			for i := range 3 {
				alice := w.peerWith(cert, netip.AddrPortFrom(homeAddr.Addr(), uint16(40000+i)), func(c *ctltest.Config) {
					c.TLS.MaxVersion, c.TLS.ClientSessionCache, c.TLS.ServerName = version, cache, "server"
					c.TLS.VerifyConnection = func(s tls.ConnectionState) error {
						if s.DidResume {
							t.Error("a session was resumed")
						}
						return nil
					}
				}).connect()
				alice.mustReach()
			}
			if cache.gets == 0 {
				t.Error("the client did not try to resume: this shows nothing")
			}
			if cache.puts != 0 {
				t.Errorf("%d tickets were handed out", cache.puts)
			}
		})
	}
}

type countingCache struct {
	tls.ClientSessionCache
	gets, puts int
}

func (c *countingCache) Get(key string) (*tls.ClientSessionState, bool) {
	c.gets++
	return c.ClientSessionCache.Get(key)
}

func (c *countingCache) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.puts++
	}
	c.ClientSessionCache.Put(key, s)
}

// URLs in a certificate are never followed (S069).
func TestURLsInCertificatesAreNotFollowed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var calls atomic.Int64
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			c.Close()
		}
	}()
	url := "http://" + l.Addr().String() + "/x"
	inBubble(t, func(t *testing.T, w *world) {
		list, err := w.ca.Revoke(1, time.Now().Add(24*time.Hour))
		must(t, err)
		w.cfg.CRL = config.Material{Name: "[inline]", Bytes: list}
		w.start()
		cert, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, func(c *x509.Certificate) {
			c.OCSPServer, c.IssuingCertificateURL, c.CRLDistributionPoints = []string{url}, []string{url}, []string{url}
		})
		must(t, err)
		w.peerWith(cert, homeAddr).connect().mustReach()
	})
	l.Close()
	<-accepting
	if n := calls.Load(); n != 0 {
		t.Errorf("%d connections to what a certificate names", n)
	}
}

// No name can make a second field or line of the status or the pool file (S089).
func TestNamesStayInTheirField(t *testing.T) {
	for _, user := range []string{"a,b", "a\nCLIENT_LIST,x", "a\tb", `a"b`, "a\r", "END"} {
		snap := testSnapshot()
		snap.Clients[0].User = user
		for version, sep := range map[int]string{2: ",", 3: "\t"} {
			lines := 0
			for line := range strings.Lines(string(snap.StatusText(version))) {
				if f := strings.Split(strings.TrimSuffix(line, "\n"), sep); f[0] == "CLIENT_LIST" {
					lines++
					if len(f) != 13 {
						t.Errorf("user %q: %d fields in %q", user, len(f), line)
					}
				}
			}
			if lines != len(snap.Clients) {
				t.Errorf("user %q: %d lines for %d clients", user, lines, len(snap.Clients))
			}
		}
	}
	// What becomes a name in the pool file has passed here.
	for _, name := range []string{"a,b", "a\nb", "a b", `a"b`, "", "DEFAULT", "default", ".hidden", "../x", strings.Repeat("a", 65)} {
		if safeName(name) {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

// A CA that a reload replaces: certificates of the old one are refused from the next handshake on, those of both are
// taken while both are configured (F27).
func TestReplacedCA(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		next, err := ctltest.NewAuthority("Next CA")
		must(t, err)
		old, err := w.ca.Issue("old", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		fresh, err := next.Issue("fresh", x509.ExtKeyUsageClientAuth, nil)
		must(t, err)
		port := uint16(40000)
		in := func(cert tls.Certificate) error {
			port++
			p := w.peerWith(cert, netip.AddrPortFrom(homeAddr.Addr(), port))
			return p.ctl.Connect(w.ctx)
		}
		ofOld, ofNext := inline("CERTIFICATE", w.ca.Cert.Raw), inline("CERTIFICATE", next.Cert.Raw)
		both := ofOld
		both.Bytes = slices.Concat(ofOld.Bytes, ofNext.Bytes)
		for _, step := range []struct {
			name     string
			ca       config.Material
			old, new bool
		}{{"old", ofOld, true, false}, {"both", both, true, true}, {"next", ofNext, false, true}} {
			cfg := *w.cfg
			cfg.CA = step.ca
			_, err := w.srv.Reload(&cfg, Login{})
			must(t, err)
			if err := in(old); (err == nil) != step.old {
				t.Errorf("with %s: a certificate of the old CA: %v", step.name, err)
			}
			if err := in(fresh); (err == nil) != step.new {
				t.Errorf("with %s: a certificate of the next CA: %v", step.name, err)
			}
		}
	})
}
