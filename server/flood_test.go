package server

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/config"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// Whatever strangers flood a server with, each packet costs one counter, or where it is a good first packet one answer: no
// session, no goroutine, hardly a line in the log, and who is in notices nothing (S012, S103, F31).
func TestFloodsCostCounters(t *testing.T) {
	key := config.Material{Name: "[inline]", Bytes: tlsctl.GenerateStaticKey()}
	raw, err := tlsctl.ParseStaticKey(key.Bytes)
	must(t, err)
	crypt, err := tlsctl.NewCryptKey(raw)
	must(t, err)
	auth, err := tlsctl.NewAuthKey(raw, -1, "SHA256")
	must(t, err)
	keyV2 := config.Material{Name: "[inline]", Bytes: tlsctl.GenerateServerKeyV2()}
	raw, err = tlsctl.ParseServerKeyV2(keyV2.Bytes)
	must(t, err)
	serverV2, err := tlsctl.NewServerKey(raw)
	must(t, err)
	plain := func(w tlsctl.Wrapping) func() *tlsctl.ClientWrap {
		return func() *tlsctl.ClientWrap { return tlsctl.NewClientWrap(w, time.Now()) }
	}
	for mode, m := range map[string]struct {
		client func() *tlsctl.ClientWrap
		change func(c *config.Config)
	}{
		"none":      {plain(tlsctl.Wrapping{}), func(*config.Config) {}},
		"tls-auth":  {plain(tlsctl.Wrapping{Auth: auth}), func(c *config.Config) { c.TLSAuth, c.TLSAuthDirection, c.Auth = key, -1, "SHA256" }},
		"tls-crypt": {plain(tlsctl.Wrapping{Crypt: crypt}), func(c *config.Config) { c.TLSCrypt = key }},
		"tls-crypt-v2": {func() *tlsctl.ClientWrap {
			text, err := serverV2.GenerateClientKey(nil, time.Now())
			must(t, err)
			kc, wkc, err := tlsctl.ParseClientKeyV2(text)
			must(t, err)
			wrap, err := tlsctl.NewClientWrapV2(kc, wkc, true, time.Now())
			must(t, err)
			return wrap
		}, func(c *config.Config) { c.TLSCryptV2 = keyV2 }},
	} {
		opcode := tlsctl.OpHardResetClientV2
		if mode == "tls-crypt-v2" {
			opcode = tlsctl.OpHardResetClientV3
		}
		t.Run(mode, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				m.change(w.cfg)
				w.start()
				alice := w.peer("alice", homeAddr, func(c *ctltest.Config) { c.Wrap, c.CryptV2 = m.client(), mode == "tls-crypt-v2" }).connect()
				const seed = 3
				rng := rand.New(rand.NewPCG(seed, seed))
				random := func(n int) []byte {
					b := make([]byte, n)
					for i := range b {
						b[i] = byte(rng.Uint32())
					}
					return b
				}
				reset := func(wrap *tlsctl.ClientWrap) []byte {
					return wrap.Seal(nil, &tlsctl.Packet{Opcode: opcode, Session: tlsctl.SessionID(random(8))})
				}
				captured, own := reset(m.client()), m.client()
				for kind, next := range map[string]func() []byte{
					"noise": func() []byte { return random(1 + rng.IntN(100)) },
					// Without the key the best that a stranger can do is a reset that somebody else has sent, with its bits changed.
					"forged resets": func() []byte {
						if mode == "none" {
							return reset(own)
						}
						b := append([]byte(nil), captured...)
						b[1+rng.IntN(len(b)-1)] ^= 1 << rng.IntN(8)
						return b
					},
					"one reset": func() []byte { return captured },
					"forged data": func() []byte {
						b := random(60)
						binary.BigEndian.PutUint32(b, 9<<27|uint32(rng.IntN(8))<<24|uint32(alice.peerID()))
						return b
					},
				} {
					stranger := &peer{w: w, sock: w.net.Client(thirdAddr), to: hubAddr, closed: make(chan struct{})}
					answers, longest := 0, 0
					stranger.deliver(func(pkt []byte) { answers, longest = answers+1, max(longest, len(pkt)) })
					go stranger.receive()
					synctest.Wait()
					before, lines, goroutines := w.srv.drops.total(), w.log.count(), runtime.NumGoroutine()
					const n = 5000
					for i := range n {
						stranger.sendRaw(next())
						if i%100 == 99 {
							synctest.Wait() // or the gatekeeper's queue were full, which would count, too
						}
					}
					synctest.Wait()
					if got := int(w.srv.drops.total()-before) + answers; got != n {
						t.Errorf("%s: %d packets were counted and %d answered, of %d", kind, w.srv.drops.total()-before, answers, n)
					}
					if longest > len(captured) {
						t.Errorf("%s: a packet of %d bytes brought an answer of %d", kind, len(captured), longest)
					}
					if got := w.srv.Snapshot(); got.HalfOpen != 0 || len(got.Clients) != 1 {
						t.Errorf("%s: %d sessions, %d of them half-open", kind, len(got.Clients), got.HalfOpen)
					}
					if got := runtime.NumGoroutine(); got > goroutines {
						t.Errorf("%s: %d goroutines, %d before", kind, got, goroutines)
					}
					if got := w.log.count() - lines; got > 10 {
						t.Errorf("%s: %d lines in the log", kind, got)
					}
					alice.mustReach()
					stranger.sock.Close()
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

func (d *drops) total() (n uint64) {
	for i := range d {
		n += d[i].Load()
	}
	return n
}
