package tlsctl_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

var (
	errTestOver = errors.New("test is over")
	address     = netip.MustParseAddrPort("192.0.2.7:40000")
)

// A setup is a server, a client and the wires between them, to be changed before dial.
type setup struct {
	t        *testing.T
	ca       *ctltest.Authority
	cfg      tlsctl.Config
	client   ctltest.Config
	newOwner func() *ctltest.Owner
	up, down ctltest.Wire
	server   *ctltest.Server
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	ca, err := ctltest.NewAuthority("Test CA")
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{t: t, ca: ca}
	s.equip(s.issue("server", x509.ExtKeyUsageServerAuth), s.issue("alice", x509.ExtKeyUsageClientAuth))
	return s
}

// shared are certificates for the many bubbles, which all begin at one time, and with names so long that a flight of
// TLS is more than any window.
var shared = sync.OnceValues(func() (s struct {
	ca             *ctltest.Authority
	server, client tls.Certificate
}, err error) {
	long := func(c *x509.Certificate) {
		for i := range 60 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("%02d.%s.example.com", i, strings.Repeat("x", 60)))
		}
	}
	if s.ca, err = ctltest.NewAuthority("Test CA"); err != nil {
		return s, err
	}
	if s.server, err = s.ca.Issue("server", x509.ExtKeyUsageServerAuth, long); err != nil {
		return s, err
	}
	s.client, err = s.ca.Issue("alice", x509.ExtKeyUsageClientAuth, long)
	return s, err
})

// newSharedSetup is newSetup without the cost of new certificates, for bubbles.
func newSharedSetup(t *testing.T) *setup {
	t.Helper()
	certs, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{t: t, ca: certs.ca}
	s.equip(certs.server, certs.client)
	return s
}

func (s *setup) equip(server, client tls.Certificate) {
	s.newOwner = func() *ctltest.Owner { return new(ctltest.Owner) }
	s.cfg = tlsctl.Config{
		TLS:     &tls.Config{Certificates: []tls.Certificate{server}},
		Certs:   &tlsctl.CertRules{Roots: s.ca.Pool()},
		Ciphers: []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"},
		TunMTU:  1500,
		Timing:  tlsctl.Timing{Renegotiate: -1},
		Log:     zerolog.Nop(),
	}
	s.client = ctltest.Config{
		TLS: &tls.Config{
			Certificates: []tls.Certificate{client},
			RootCAs:      s.ca.Pool(),
			ServerName:   "server",
			// A name in the CN alone, as OpenVPN has it, is not for crypto/tls to judge.
			InsecureSkipVerify: true,
		},
		Login: true, Username: "alice", Password: "secret",
	}
}

func (s *setup) issue(cn string, purpose x509.ExtKeyUsage) tls.Certificate {
	s.t.Helper()
	cert, err := s.ca.Issue(cn, purpose, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert
}

// dial starts server and client; nothing has been said yet. Both end with the test, and must, or the bubble fails it.
func (s *setup) dial() *ctltest.Client {
	s.t.Helper()
	if s.server == nil {
		server, err := ctltest.NewServer(&s.cfg, s.newOwner)
		if err != nil {
			s.t.Fatal(err)
		}
		s.server = server
	}
	var c *ctltest.Client
	first := true
	reply := func(pkt []byte) { s.down.Send(pkt, c.Deliver) }
	c = ctltest.NewClient(func(pkt []byte) {
		s.up.Send(pkt, func(b []byte) {
			if !s.client.Stream {
				s.server.Deliver(address, b, reply)
				return
			}
			f := first
			first = false
			if err := s.server.DeliverStream(address, b, f, reply); err != nil {
				s.t.Errorf("deliver: %v", err)
			}
		})
	}, s.client)
	return c
}

// connect is dial, for a client that is in.
func (s *setup) connect(ctx context.Context) *ctltest.Client {
	s.t.Helper()
	c := s.dial()
	if err := c.Connect(ctx); err != nil {
		s.done(c)
		s.t.Fatal(err)
	}
	return c
}

// done ends client and server.
func (s *setup) done(c *ctltest.Client) {
	c.Close()
	s.server.Close(errTestOver)
	if n := tlsctl.Panics(); n != 0 {
		s.t.Errorf("%d panics", n)
	}
}

// live returns the one session of the server.
func (s *setup) live() *ctltest.Live {
	s.t.Helper()
	opened := s.server.Opened()
	if len(opened) != 1 {
		s.t.Fatalf("%d sessions were opened, want 1", len(opened))
	}
	return opened[0]
}

// inBubble runs f in virtual time, with five minutes of it.
func inBubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		f(t, ctx)
	})
}

// checkKeys compares the keys that both ends have.
func checkKeys(t *testing.T, c *ctltest.Client, o *ctltest.Owner, want ...tlsctl.KeyID) {
	t.Helper()
	if got := c.KeyIDs(); !slices.Equal(got, want) {
		t.Errorf("client has keys %v, want %v", got, want)
	}
	var got []tlsctl.KeyID
	newest := make(map[tlsctl.KeyID]tlsctl.KeyMaterial)
	for _, k := range o.Keys() {
		got = append(got, k.ID)
		newest[k.ID] = k
	}
	if !slices.Equal(got, want) {
		t.Errorf("server has keys %v, want %v", got, want)
	}
	for id, k := range newest {
		theirs, _ := c.Key(id)
		if string(k.ToClient) != string(theirs.ToClient[:]) || string(k.FromClient) != string(theirs.ToServer[:]) {
			t.Errorf("the ends have different keys under id %d", id)
		}
	}
}

type wrapCase struct {
	name string
	// set gives both ends their wrap.
	set func(t *testing.T, s *setup)
}

func wrapCases() []wrapCase {
	static := func(t *testing.T) []byte {
		key, err := tlsctl.ParseStaticKey(tlsctl.GenerateStaticKey())
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	v2 := func(early bool) func(t *testing.T, s *setup) {
		return func(t *testing.T, s *setup) {
			key, err := tlsctl.NewServerKey(slices.Concat(static(t)[:128]))
			if err != nil {
				t.Fatal(err)
			}
			file, err := key.GenerateClientKey(nil, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			kc, wkc, err := tlsctl.ParseClientKeyV2(file)
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.Wrap.CryptV2 = key
			if s.client.Wrap, err = tlsctl.NewClientWrapV2(kc, wkc, early, time.Now()); err != nil {
				t.Fatal(err)
			}
			s.client.CryptV2 = true
		}
	}
	return []wrapCase{
		{"none", func(t *testing.T, s *setup) { s.client.Wrap = tlsctl.NewClientWrap(s.cfg.Wrap, time.Now()) }},
		{"tls-auth", func(t *testing.T, s *setup) {
			key, err := tlsctl.NewAuthKey(static(t), 0, "SHA512")
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.Wrap.Auth = key
			s.client.Wrap = tlsctl.NewClientWrap(s.cfg.Wrap, time.Now())
		}},
		{"tls-crypt", func(t *testing.T, s *setup) {
			key, err := tlsctl.NewCryptKey(static(t))
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.Wrap.Crypt = key
			s.client.Wrap = tlsctl.NewClientWrap(s.cfg.Wrap, time.Now())
		}},
		{"tls-crypt-v2", v2(true)},
		{"tls-crypt-v2 without cookie", v2(false)},
	}
}

// Every kind of client gets in under every wrap, over datagrams and streams, and both ends have the same key then.
func TestConnect(t *testing.T) {
	for _, wrap := range wrapCases() {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, stream := range []bool{false, true} {
				for _, old := range []bool{false, true} {
					name := wrap.name + " " + tls.VersionName(version)
					if stream {
						name += " stream"
					}
					if old {
						name += " old"
					}
					t.Run(name, func(t *testing.T) {
						inBubble(t, func(t *testing.T, ctx context.Context) {
							testConnect(t, ctx, wrap, version, stream, old)
						})
					})
				}
			}
		}
	}
}

func testConnect(t *testing.T, ctx context.Context, wrap wrapCase, version uint16, stream, old bool) {
	s := newSetup(t)
	wrap.set(t, s)
	s.cfg.TLS.MaxVersion = version
	s.client.Stream = stream
	s.up.Delay, s.down.Delay = 10*time.Millisecond, 10*time.Millisecond
	want := "route-gateway 10.9.0.1,topology subnet,ping 10,ping-restart 60,ifconfig 10.9.0.2 255.255.255.0," +
		"peer-id 7,cipher AES-256-GCM"
	if old {
		s.client.PeerInfo = ctltest.PeerInfo24
		s.client.AckOnce = true
	} else {
		want += ",protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1500"
	}
	start := time.Now()
	c := s.dial()
	defer s.done(c)
	if err := c.Connect(ctx); err != nil {
		t.Fatalf("connect: %v", err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	if got := strings.Join(c.Options(), ","); got != want {
		t.Errorf("got options\n%s, want\n%s", got, want)
	}
	synctest.Wait()
	owner := s.live().Owner
	checkKeys(t, c, owner, 0)
	if got, want := owner.Events(), []string{"admit 0", "install 0", "confirm 0", "established"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	hellos, passwords := owner.Hellos()
	h := hellos[0]
	if !h.First || h.CommonName != "alice" || h.Username != "alice" || passwords[0] != "secret" || !h.HasLogin ||
		len(h.Chain) != 2 || h.TLSVersion != version || h.Cipher != "AES-256-GCM" || h.SessionName != s.live().Name() {
		t.Errorf("hello %+v", h)
	}
	// S047: what Admit was given does not stay in memory.
	if string(h.Password) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("the password is still there: %q", string(h.Password))
	}
	if k := owner.Keys()[0]; k.PeerID != 7 || k.Cipher != "AES-256-GCM" || !k.V2 || k.Started.Before(start) {
		t.Errorf("key material %+v", k)
	}
}
