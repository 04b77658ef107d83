package tlsctl

import (
	"bytes"
	"testing"
)

// A gateMode is a way of wrapping, with a gate's and a client's half of it.
type gateMode struct {
	name   string
	wrap   Wrapping
	reset  Opcode
	third  Opcode // of the message that brings the cookie
	tlv    []byte
	client func() *ClientWrap
}

func gateModes(t testing.TB) []gateMode {
	t.Helper()
	static := randomBytes(256)
	crypt, err := NewCryptKey(static)
	if err != nil {
		t.Fatal(err)
	}
	server := newTestServerKey(t)
	kc, wkc := newTestClientKey(t, server)
	plain := func(name string, w Wrapping) gateMode {
		return gateMode{name: name, wrap: w, reset: OpHardResetClientV2, third: OpControl,
			client: func() *ClientWrap { return NewClientWrap(w, gateNow) }}
	}
	auth := func(direction int, digest string) Wrapping {
		k, err := NewAuthKey(static, direction, digest)
		if err != nil {
			t.Fatal(err)
		}
		return Wrapping{Auth: k}
	}
	v2 := func(name string, w Wrapping) gateMode {
		return gateMode{name: name, wrap: w, reset: OpHardResetClientV3, third: OpControlWKC, tlv: resendWKC,
			client: func() *ClientWrap {
				c, err := NewClientWrapV2(kc, wkc, true, gateNow)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}}
	}
	beside := auth(0, "")
	beside.CryptV2 = server
	return []gateMode{
		plain("plain", Wrapping{}),
		plain("tls-auth", auth(1, "SHA1")),
		plain("tls-auth SHA512", auth(-1, "SHA512")),
		plain("tls-crypt", Wrapping{Crypt: crypt}),
		v2("tls-crypt-v2", Wrapping{CryptV2: server}),
		v2("tls-crypt-v2 beside tls-auth", beside),
		{name: "tls-auth beside tls-crypt-v2", wrap: beside, reset: OpHardResetClientV2, third: OpControl,
			client: func() *ClientWrap { return NewClientWrap(Wrapping{Auth: beside.Auth}, gateNow) }},
	}
}

func newTestClientKey(t testing.TB, server *ServerKey) (kc, wkc []byte) {
	t.Helper()
	text, err := server.GenerateClientKey(nil, gateNow)
	if err != nil {
		t.Fatal(err)
	}
	if kc, wkc, err = ParseClientKeyV2(text); err != nil {
		t.Fatal(err)
	}
	return kc, wkc
}

func newTestGate(t testing.TB, w Wrapping) *Gate {
	t.Helper()
	g, err := NewGate(w, GateOptions{Listener: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// greetReset sends a reset and returns the cookie.
func greetReset(t *testing.T, g *Gate, m gateMode, c *ClientWrap) SessionID {
	t.Helper()
	reset := c.Seal(nil, &Packet{Opcode: m.reset, Session: clientID})
	reply, o := g.Greet(gateNow, gateFrom, reset)
	if o != nil {
		t.Fatal("a reset opened a session")
	}
	if reply == nil {
		t.Fatal("a reset got no answer")
	}
	p, err := c.Open(bytes.Clone(reply))
	if err != nil {
		t.Fatalf("open the answer: %v", err)
	}
	return p.Session
}

func forEachMode(t *testing.T, f func(t *testing.T, m gateMode)) {
	t.Helper()
	for _, m := range gateModes(t) {
		t.Run(m.name, func(t *testing.T) { f(t, m) })
	}
}
