package server

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/datachan"
	"postern/tlsctl/ctltest"
)

// says gives a client a peer info and an options string.
func says(peerInfo, options string) func(*ctltest.Config) {
	return func(c *ctltest.Config) { c.PeerInfo, c.Options = peerInfo, options }
}

// Every data format that a client may have, over either transport and through a renegotiation.
func TestDataFormats(t *testing.T) {
	const occ = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,"
	const compressor = "IV_COMP_STUB=1\nIV_COMP_STUBv2=1\n"
	for _, c := range []struct {
		name   string
		change func(*ctltest.Config)
		want   datachan.Config // but for ids
		status string
	}{
		{"2.6", ctltest.V26.Apply, datachan.Config{V2: true, Cipher: "AES-256-GCM"}, "AES-256-GCM"},
		{"2.7", ctltest.V27.Apply, datachan.Config{V2: true, Cipher: "AES-256-GCM", Epoch: true}, "AES-256-GCM"},
		{"3.11", ctltest.V311.Apply, datachan.Config{V2: true, Cipher: "AES-256-GCM", Epoch: true}, "AES-256-GCM"},
		{"CBC alone", says("IV_VER=2.6.14\nIV_PROTO=2\nIV_NCP=2\nIV_CIPHERS=AES-256-CBC\n", occ+"cipher AES-256-CBC,auth SHA256,tls-client"),
			datachan.Config{V2: true, Cipher: "AES-256-CBC"}, "AES-256-CBC"},
		{"no negotiation", says("IV_VER=2.4.12\nIV_PROTO=2\n", occ+"auth SHA256,tls-client"), datachan.Config{V2: true, Cipher: "AES-128-CBC"}, "AES-128-CBC"},
		{"comp-lzo no", says("IV_VER=2.4.12\nIV_PROTO=2\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM\nIV_LZO=1\n", occ+"comp-lzo,tls-client"),
			datachan.Config{V2: true, Cipher: "AES-256-GCM", Framing: datachan.Stub}, "AES-256-GCM"},
		{"compress", says("IV_VER=2.5.11\nIV_PROTO=6\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM\n"+compressor, occ+"comp-lzo,tls-client"),
			datachan.Config{V2: true, Cipher: "AES-256-GCM", Framing: datachan.StubV2}, "AES-256-GCM"},
		{"compress with CBC", says("IV_VER=2.5.11\nIV_PROTO=6\nIV_NCP=2\nIV_CIPHERS=AES-256-CBC\n"+compressor, occ+"comp-lzo,tls-client"),
			datachan.Config{V2: true, Cipher: "AES-256-CBC", Framing: datachan.StubV2}, "AES-256-CBC"},
	} {
		for _, over := range []string{"UDP", "TCP"} {
			t.Run(c.name+"/"+over, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					w.cfg.DataCiphers = append(w.cfg.DataCiphers, "AES-256-CBC")
					w.cfg.CipherFallback, w.cfg.Auth = "AES-128-CBC", "SHA256"
					w.start()
					dial := w.peer
					if over == "TCP" {
						dial = w.streamPeer
					}
					alice := dial("alice", homeAddr, c.change).connect()
					got := alice.format(0)
					got.ID, got.Peer, got.Digest = 0, 0, ""
					if got != c.want {
						t.Errorf("the client was told %+v, want %+v", got, c.want)
					}
					alice.mustReach()
					alice.mustReachFrom(alice.addr6(), lanHost6)
					time.Sleep(10 * time.Second)
					alice.renegotiate()
					alice.mustReach()
					if st := w.find("alice"); st.Cipher != c.status {
						t.Errorf("status shows cipher %q", st.Cipher)
					}
				})
			})
		}
	}
}

// CBC is for those who ask for it: a client that has nothing else is turned away by default (S072).
func TestCBCIsOptional(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr, says("IV_VER=2.6.14\nIV_PROTO=2\nIV_NCP=2\nIV_CIPHERS=AES-256-CBC\n", "V4,tls-client"))
		if text, _ := alice.refusal(); !strings.Contains(text, "no shared cipher") {
			t.Errorf("told %q", text)
		}
	})
}

// What a client compresses in spite of all is dropped, and counts as a sign of life; its stream goes on (S079).
func TestCompressedPayload(t *testing.T) {
	for _, over := range []string{"UDP", "TCP"} {
		t.Run(over, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.cfg.PingRestart = 20 * time.Second
				w.start()
				dial := w.peer
				if over == "TCP" {
					dial = w.streamPeer
				}
				alice := dial("alice", homeAddr, says("IV_VER=2.5.11\nIV_PROTO=6\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM\nIV_COMP_STUBv2=1\n", "V4,comp-lzo,tls-client")).connect()
				packet := udp(alice.addr4(), lanHost, []byte("ask"))
				for range 10 {
					time.Sleep(10 * time.Second)
					alice.sendUnframed(append([]byte{0x50, 11, 0}, packet...))
				}
				synctest.Wait()
				if got := w.drops(dropCompressed); got != 10 {
					t.Errorf("%d dropped as compressed, want 10 (%v)", got, w.srv.drops.snapshot())
				}
				if got := w.written(); len(got) > 0 {
					t.Errorf("%d packets written", len(got))
				}
				alice.mustReach()
			})
		})
	}
}

// sendUnframed seals a payload as if there were no framing.
func (p *peer) sendUnframed(payload []byte) {
	p.w.t.Helper()
	k, ok := p.ctl.Key(p.sendKey)
	if !ok {
		p.w.t.Fatal("no key")
	}
	c := p.format(p.sendKey)
	c.Framing = datachan.NoFraming
	key, err := c.NewKey(k.ToServer[:], k.ToClient[:])
	must(p.w.t, err)
	id, _ := p.key(p.sendKey).Reserve(1) // those of the one key
	b := make([]byte, len(payload)+datachan.Room)
	var s datachan.Scratch
	p.sendRaw(b[:key.Seal(b, payload, id, &s)])
}

// The sizes on the wire are the same whatever is in the packets: nothing is compressed (S079).
func TestNothingIsCompressed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr, says("IV_VER=2.4.12\nIV_PROTO=2\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM\nIV_LZO=1\n", "V4,comp-lzo,tls-client")).connect()
		size := func(payload []byte) uint64 {
			before := w.find("alice").Sent
			w.inject(udp(lanHost, alice.addr4(), payload))
			return w.find("alice").Sent - before
		}
		random := make([]byte, 1400)
		for i := range random {
			random[i] = byte(i * i * 31)
		}
		if a, b := size(bytes.Repeat([]byte{'a'}, 1400)), size(random); a != b || a < 1400 {
			t.Errorf("%d and %d bytes", a, b)
		}
	})
}
