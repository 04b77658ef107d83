package tlsctl

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

type exchangeVector struct {
	Name    string
	Message hexBytes
	Parsed  struct {
		PreMaster hexBytes `json:"pre_master"`
		Random1   hexBytes
		Random2   hexBytes
		Options   string
		Username  *string
		Password  *string
		PeerInfo  *string `json:"peer_info"`
	}
}

type exchangeVectors struct {
	Clients  []exchangeVector `json:"client_messages"`
	Server   exchangeVector   `json:"server_message"`
	Invalid  []exchangeVector
	Captured exchangeVector `json:"captured_openvpn_2_6_14_client"`
}

func TestExchangeVectors(t *testing.T) {
	var v exchangeVectors
	readVectors(t, "key-method-2.json", &v)
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	for _, c := range append(v.Clients, v.Captured) {
		x, err := parseExchange(c.Message)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		p := c.Parsed
		if !bytes.Equal(x.preMaster[:], p.PreMaster) || !bytes.Equal(x.random1[:], p.Random1) || !bytes.Equal(x.random2[:], p.Random2) ||
			x.options != p.Options || x.username != text(p.Username) || string(x.password) != text(p.Password) ||
			x.peerInfo != text(p.PeerInfo) || x.hasLogin != (p.Username != nil || p.Password != nil) || x.badLogin {
			t.Errorf("%s: got %+v", c.Name, x)
		}
		x.wipe()
		if !allZero(x.preMaster[:]) || !allZero(x.random1[:]) || !allZero(x.random2[:]) || !allZero(x.password) {
			t.Errorf("%s: wiped, secrets are left", c.Name)
		}
	}
	for _, c := range v.Invalid {
		if x, err := parseExchange(c.Message); err == nil {
			t.Errorf("%s: got %+v", c.Name, x)
		}
	}
	x := &exchange{random1: [32]byte(v.Server.Parsed.Random1), random2: [32]byte(v.Server.Parsed.Random2), options: v.Server.Parsed.Options}
	if got := x.appendServer(nil); !bytes.Equal(got, v.Server.Message) {
		t.Errorf("server message\n%x, want\n%x", got, v.Server.Message)
	}
}

// clientMessage makes a client's message with any strings, length fields included.
func clientMessage(fields ...string) []byte {
	b := []byte{0, 0, 0, 0, keyMethod}
	b = append(b, bytes.Repeat([]byte{7}, preMasterSize+2*randomSize)...)
	for _, f := range fields {
		b = append(b, f...)
	}
	return b
}

// field is a string as it is on the wire.
func field(s string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s
}

// What is wrong with a login is told to the client, all else ends the session (S027).
func TestExchangeLimits(t *testing.T) {
	z := "\x00"
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, test := range []struct {
		name     string
		fields   []string
		bad      bool // badLogin
		fails    bool
		peerInfo string
	}{
		{name: "nothing"},
		{name: "half a length", fields: []string{"\x00"}, fails: true},
		{name: "options 512", fields: []string{field(long(511) + z)}},
		{name: "options 513", fields: []string{field(long(512) + z)}, fails: true},
		{name: "options without zero", fields: []string{field("V4")}, fails: true},
		{name: "zero inside options", fields: []string{field("V\x004\x00")}, fails: true},
		{name: "user 255", fields: []string{field("V4\x00"), field(long(255) + z), field("p\x00"), field("IV_VER=1\n\x00")}, peerInfo: "IV_VER=1\n"},
		{name: "user 256", fields: []string{field("V4\x00"), field(long(256) + z), field("p\x00"), field("IV_VER=1\n\x00")}, bad: true, peerInfo: "IV_VER=1\n"},
		{name: "password 4096", fields: []string{field("V4\x00"), field("u\x00"), field(long(4096) + z), field("IV_VER=1\n\x00")}, peerInfo: "IV_VER=1\n"},
		{name: "password 4097", fields: []string{field("V4\x00"), field("u\x00"), field(long(4097) + z), field("IV_VER=1\n\x00")}, bad: true, peerInfo: "IV_VER=1\n"},
		{name: "user past the end", fields: []string{field("V4\x00"), "\xff\xffu\x00"}, bad: true},
		{name: "password past the end", fields: []string{field("V4\x00"), field("u\x00"), "\x00\x09p\x00"}, bad: true},
		{name: "user without zero", fields: []string{field("V4\x00"), field("user")}, fails: true},
		{name: "zero inside password", fields: []string{field("V4\x00"), field("u\x00"), field("p\x00q\x00")}, fails: true},
		{name: "peer info past the end", fields: []string{field("V4\x00"), field("u\x00"), field("p\x00"), "\x00\x09I\x00"}, fails: true},
		{name: "bytes behind", fields: []string{field("V4\x00"), field("u\x00"), field("p\x00"), field("IV_VER=1\n\x00"), "more"}, peerInfo: "IV_VER=1\n"},
	} {
		x, err := parseExchange(clientMessage(test.fields...))
		switch {
		case err != nil || test.fails:
			if (err != nil) != test.fails {
				t.Errorf("%s: %v", test.name, err)
			}
		case x.badLogin != test.bad, x.peerInfo != test.peerInfo:
			t.Errorf("%s: bad login %v, peer info %q", test.name, x.badLogin, x.peerInfo)
		}
	}
	for i, zero := range [][2]int{{5, 53}, {53, 85}, {85, 117}} {
		b := clientMessage()
		clear(b[zero[0]:zero[1]])
		if _, err := parseExchange(b); err == nil {
			t.Errorf("random field %d may be all zero", i)
		}
	}
	whole := clientMessage(field("V4\x00"), field("u\x00"), field("p\x00"), field("IV_VER=1\n\x00"))
	for n := range exchangeHead + preMasterSize {
		if _, err := parseExchange(whole[:n]); err == nil {
			t.Errorf("%d bytes are enough", n)
		}
	}
}

func FuzzKeyExchange(f *testing.F) {
	var v exchangeVectors
	readVectors(f, "key-method-2.json", &v)
	for _, c := range append(append(v.Clients, v.Invalid...), v.Captured) {
		f.Add([]byte(c.Message))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseExchange(b)
		if err != nil {
			return
		}
		if len(x.options) >= maxOptions || len(x.username) >= maxUsername || len(x.password) >= maxPassword {
			t.Errorf("too long: %+v", x)
		}
		for _, s := range []string{x.options, x.username, string(x.password), x.peerInfo} {
			if strings.IndexByte(s, 0) >= 0 {
				t.Errorf("zero byte in %q", s)
			}
		}
		if m := mirrorOptions(x.options); len(m) >= maxOptions || !printable(m) {
			t.Errorf("answered with options %q", m)
		}
		optionValue(x.options, "cipher")
		if c := cleanName(x.username); len(c) != len(x.username) || !cleanText([]byte(c)) {
			t.Errorf("cleaned to %q", c)
		}
	})
}

// A Client reads a server's message whole or not at all.
func FuzzServerExchange(f *testing.F) {
	f.Add(make([]byte, exchangeHead))
	f.Add(append(append([]byte{0, 0, 0, 0, keyMethod}, make([]byte, 64)...), 0, 3, 'V', '4', 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseServerExchange(b)
		if err != nil {
			return
		}
		if len(x.options) >= maxOptions || strings.IndexByte(x.options, 0) >= 0 || !bytes.Equal(x.random1[:], b[5:37]) || !bytes.Equal(x.random2[:], b[37:69]) {
			t.Errorf("%x is taken as %+v", b, x)
		}
	})
}

func TestMirrorOptions(t *testing.T) {
	for in, want := range map[string]string{
		"V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client": "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-server",
		"V4,proto TCPv4_CLIENT,keydir 1,tls-auth,tls-client":                                                   "V4,proto TCPv4_SERVER,keydir 0,tls-auth,tls-server",
		"":                               standardOptions,
		"V3,tls-client":                  standardOptions,
		"V4,\x1b[2J":                     standardOptions,
		"V4," + strings.Repeat("x", 508): standardOptions,
	} {
		if got := mirrorOptions(in); got != want {
			t.Errorf("mirrorOptions(%q) = %q, want %q", in, got, want)
		}
	}
}
