package tlsctl_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// Clients that negotiate nothing get a key for what their options string says, and are pushed nothing about it.
func TestLegacyClients(t *testing.T) {
	const occ = "V4,dev-type tun,link-mtu 1557,tun-mtu 1500,proto UDPv4,"
	for _, test := range []struct {
		name     string
		info     string
		options  string
		fallback string
		digest   string
		want     tlsctl.KeyMaterial
		refused  bool
	}{
		{"cipher in the options string", "", occ + "cipher AES-128-CBC,auth SHA1,keysize 128,key-method 2,tls-client", "", "",
			tlsctl.KeyMaterial{Cipher: "AES-128-CBC", Digest: "SHA1"}, false},
		{"another digest", "", occ + "cipher AES-256-CBC,auth SHA512,keysize 256,key-method 2,tls-client", "", "SHA512",
			tlsctl.KeyMaterial{Cipher: "AES-256-CBC", Digest: "SHA512"}, false},
		{"data V2", "IV_PROTO=2\n", occ + "cipher AES-256-CBC,auth SHA1,key-method 2,tls-client", "", "",
			tlsctl.KeyMaterial{Cipher: "AES-256-CBC", Digest: "SHA1", V2: true}, false},
		{"no word about ciphers", "", occ + "key-method 2,tls-client", "AES-256-CBC", "SHA256",
			tlsctl.KeyMaterial{Cipher: "AES-256-CBC", Digest: "SHA256"}, false},
		{"no word and no fallback", "", occ + "key-method 2,tls-client", "", "", tlsctl.KeyMaterial{}, true},
		{"not listed", "", occ + "cipher BF-CBC,key-method 2,tls-client", "AES-256-CBC", "", tlsctl.KeyMaterial{}, true},
		{"negotiates CBC", "IV_CIPHERS=AES-192-CBC\nIV_PROTO=2\n", occ + "key-method 2,tls-client", "", "",
			tlsctl.KeyMaterial{Cipher: "AES-192-CBC", Digest: "SHA1", V2: true}, false},
		{"AEAD in V1", "", occ + "cipher AES-256-GCM,auth [null-digest],key-method 2,tls-client", "", "SHA512",
			tlsctl.KeyMaterial{Cipher: "AES-256-GCM"}, false},
		{"compression", "IV_PROTO=2\nIV_NCP=2\nIV_COMP_STUBv2=1\n", occ + "comp-lzo,key-method 2,tls-client", "", "",
			tlsctl.KeyMaterial{Cipher: "AES-256-GCM", V2: true, Framing: tlsctl.FramingV2}, false},
		{"old compression", "IV_PROTO=2\nIV_NCP=2\n", occ + "comp-lzo,cipher AES-256-CBC,key-method 2,tls-client", "", "",
			tlsctl.KeyMaterial{Cipher: "AES-256-GCM", V2: true, Framing: tlsctl.FramingStub}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSharedSetup(t)
				ctltest.V24.Apply(&s.client)
				s.client.PeerInfo, s.client.Options = "IV_VER=2.4.12\n"+test.info, test.options
				s.cfg.Ciphers = append(s.cfg.Ciphers, "AES-256-CBC", "AES-192-CBC", "AES-128-CBC")
				s.cfg.CipherFallback, s.cfg.Digest, s.cfg.CompressMigrate, s.cfg.Epoch = test.fallback, test.digest, true, true
				c := s.dial()
				defer s.done(c)
				err := c.Connect(ctx)
				if test.refused {
					if err == nil || !strings.Contains(err.Error(), "AUTH_FAILED,Data channel cipher negotiation failed") {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				k := s.live().Owner.Keys()[0]
				if k.Cipher != test.want.Cipher || k.Digest != test.want.Digest || k.V2 != test.want.V2 || k.Framing != test.want.Framing || k.Epoch {
					t.Errorf("key %+v, want %+v", k, test.want)
				}
				pushed := strings.Join(c.Options(), ",")
				for word, want := range map[string]bool{
					"cipher " + k.Cipher: strings.Contains(test.info, "IV_NCP") || strings.Contains(test.info, "IV_CIPHERS"),
					"peer-id 7":          test.want.V2,
					"compress stub-v2":   test.want.Framing == tlsctl.FramingV2,
					"comp-lzo no":        test.want.Framing == tlsctl.FramingStub,
				} {
					if strings.Contains(pushed, word) != want {
						t.Errorf("pushed %q, want %q in it: %v", pushed, word, want)
					}
				}
				time.Sleep(2 * time.Second)
				if err := c.Renegotiate(ctx); err != nil {
					t.Fatal(err)
				}
				if err := s.awaitKeys(ctx, 2); err != nil {
					t.Fatal(err)
				}
				if k := s.live().Owner.Keys()[1]; k.Cipher != test.want.Cipher || k.Digest != test.want.Digest || k.Framing != test.want.Framing {
					t.Errorf("next key %+v", k)
				}
				checkKeys(t, c, s.live().Owner, 0, 1)
			})
		})
	}
}

// A renegotiation goes by the certificates, rules and need of a login that are current, while the session goes on with
// the rest of what it began with.
func TestReload(t *testing.T) {
	other, err := ctltest.NewAuthority("Another CA")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(s *setup, next *tlsctl.Config)
		server string // whose certificate the client sees then
		want   func(error, *setup) bool
	}{
		{"nothing", func(s *setup, next *tlsctl.Config) {}, "server", nil},
		{"server certificate", func(s *setup, next *tlsctl.Config) {
			next.TLS = &tls.Config{Certificates: []tls.Certificate{s.issue("new server", x509.ExtKeyUsageServerAuth)}}
		}, "new server", nil},
		{"other settings", func(s *setup, next *tlsctl.Config) {
			next.Ciphers, next.Timing.HandWindow, next.Wrap = []string{"AES-128-CBC"}, time.Second, tlsctl.Wrapping{}
		}, "server", nil},
		{"authority", func(s *setup, next *tlsctl.Config) {
			next.Certs = &tlsctl.CertRules{Roots: other.Pool()}
		}, "server", nil},
		{"revocation list", func(s *setup, next *tlsctl.Config) {
			next.Certs = &tlsctl.CertRules{Roots: s.ca.Pool()}
			der, err := s.ca.Revoke(1, time.Now().Add(time.Hour), s.client.TLS.Certificates[0].Leaf.SerialNumber)
			if err != nil {
				t.Fatal(err)
			}
			crl, err := tlsctl.ParseCRL(der, []*x509.Certificate{s.ca.Cert})
			if err != nil {
				t.Fatal(err)
			}
			next.Certs.CRL.Store(crl)
		}, "server", func(err error, s *setup) bool { return err.Error() == "AUTH_FAILED,certificate revoked" }},
		{"login", func(s *setup, next *tlsctl.Config) { next.WantLogin = true }, "server",
			func(err error, s *setup) bool { return err.Error() == "AUTH_FAILED,user name and password required" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				s := newSetup(t)
				s.client.Login = false
				var current atomic.Pointer[tlsctl.Config]
				s.cfg.Current = current.Load
				current.Store(&s.cfg)
				var seen atomic.Pointer[string]
				s.client.TLS.VerifyConnection = func(cs tls.ConnectionState) error {
					seen.Store(&cs.PeerCertificates[0].Subject.CommonName)
					return nil
				}
				c := s.connect(ctx)
				defer s.done(c)
				if got := *seen.Load(); got != "server" {
					t.Errorf("client saw %q", got)
				}
				time.Sleep(2 * time.Second)
				next := s.cfg
				test.change(s, &next)
				current.Store(&next)
				if test.name == "authority" {
					s.live().Renegotiate()
					time.Sleep(5 * time.Second)
					if keys, left := len(s.live().Owner.Keys()), slices.Contains(s.live().Owner.Events(), "leaving"); keys != 1 || left {
						t.Errorf("%d keys, session ended: %v; want the first key, until its time is over", keys, left)
					}
					return
				}
				err := c.Renegotiate(ctx)
				if err == nil && test.want != nil {
					_, err = c.AwaitMessage(ctx, "nothing")
				}
				if (err != nil) != (test.want != nil) || err != nil && !test.want(err, s) {
					t.Fatalf("got %v", err)
				}
				if got := *seen.Load(); got != test.server {
					t.Errorf("client saw %q, want %q", got, test.server)
				}
				if test.want == nil {
					if err := s.awaitKeys(ctx, 2); err != nil {
						t.Fatal(err)
					}
					checkKeys(t, c, s.live().Owner, 0, 1)
				}
			})
		})
	}
}
