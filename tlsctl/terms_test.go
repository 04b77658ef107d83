package tlsctl

import (
	"strings"
	"testing"
)

// ownOptions is what the session adds for a client with a peer info and an options string.
func ownOptions(t *testing.T, cfg *Config, info, options string, g Grant, exports bool) string {
	t.Helper()
	h := &Hello{Username: "bob", Peer: ParsePeerInfo(info), Options: options, Cipher: "AES-256-GCM"}
	if cfg.CipherFallback != "" {
		h.Cipher = cfg.CipherFallback
	}
	terms, err := newTerms(cfg, h, &g, exports)
	if err != nil {
		t.Fatal(err)
	}
	own, err := terms.options(h.Peer, g.Token)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(own, ",")
}

// A client gets only words it has announced: an unknown one ends an OpenVPN 3 client's session.
func TestOwnOptions(t *testing.T) {
	const (
		v24 = "IV_PROTO=2\nIV_NCP=2\n"
		v36 = "IV_PROTO=30\nIV_CIPHERS=AES-256-GCM\n"
		v26 = "IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\nIV_MTU=1600\n"
		v27 = "IV_PROTO=8094\nIV_CIPHERS=AES-256-GCM\nIV_MTU=1600\n"
	)
	plain := Config{TunMTU: 1400}
	for _, test := range []struct {
		name    string
		cfg     Config
		info    string
		options string
		grant   Grant
		bare    bool // TLS exports nothing
		want    string
	}{
		{name: "says nothing", cfg: plain},
		{name: "2.4", cfg: plain, info: v24, want: "peer-id 7,cipher AES-256-GCM"},
		{name: "2.5", cfg: plain, info: "IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\n", want: "peer-id 7,cipher AES-256-GCM"},
		{name: "3.6", cfg: plain, info: v36, want: "peer-id 7,cipher AES-256-GCM,key-derivation tls-ekm"},
		{name: "3.6 without extended master secret", cfg: plain, info: v36, bare: true, want: "peer-id 7,cipher AES-256-GCM"},
		{name: "2.6", cfg: plain, info: v26, want: "peer-id 7,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1400"},
		{name: "2.6 without extended master secret", cfg: plain, info: v26, bare: true,
			want: "peer-id 7,cipher AES-256-GCM,protocol-flags cc-exit,tun-mtu 1400"},
		{name: "2.7", cfg: plain, info: v27, want: "peer-id 7,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1400"},
		{name: "2.7, epoch", cfg: Config{Epoch: true}, info: v27,
			want: "peer-id 7,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch"},
		{name: "2.6, epoch", cfg: Config{Epoch: true}, info: v26,
			want: "peer-id 7,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt"},
		{name: "epoch without exporter", cfg: Config{Epoch: true}, info: v27, bare: true,
			want: "peer-id 7,cipher AES-256-GCM,protocol-flags cc-exit"},
		{name: "epoch without data V2", cfg: Config{Epoch: true}, info: "IV_PROTO=8092\n", want: "protocol-flags cc-exit tls-ekm dyn-tls-crypt"},
		{name: "epoch with CBC", cfg: Config{Epoch: true, CipherFallback: "AES-256-CBC"}, info: "IV_PROTO=8094\n",
			want: "peer-id 7,protocol-flags cc-exit tls-ekm dyn-tls-crypt"},
		{name: "token", cfg: plain, info: v24, grant: Grant{Token: "SESS_ID_AT_x"}, want: "peer-id 7,auth-token SESS_ID_AT_x,cipher AES-256-GCM"},
		{name: "token with a name", cfg: plain, info: v24, grant: Grant{Token: "SESS_ID_AT_x", TokenUser: "alice"},
			want: "peer-id 7,auth-token SESS_ID_AT_x,auth-token-user YWxpY2U=,cipher AES-256-GCM"},
		{name: "token with the client's name", cfg: plain, info: v24, grant: Grant{Token: "SESS_ID_AT_x", TokenUser: "bob"},
			want: "peer-id 7,auth-token SESS_ID_AT_x,cipher AES-256-GCM"},
		{name: "name without a token", cfg: plain, info: v24, grant: Grant{TokenUser: "alice"}, want: "peer-id 7,cipher AES-256-GCM"},
		{name: "compression, not migrated", cfg: plain, info: v24 + "IV_COMP_STUBv2=1\n", options: "V4,comp-lzo", want: "peer-id 7,cipher AES-256-GCM"},
		{name: "compression", cfg: Config{CompressMigrate: true}, info: v24 + "IV_COMP_STUBv2=1\n", options: "V4,comp-lzo,auth SHA1",
			want: "compress stub-v2,peer-id 7,cipher AES-256-GCM"},
		{name: "old compression", cfg: Config{CompressMigrate: true}, info: v24, options: "V4,comp-lzo",
			want: "comp-lzo no,peer-id 7,cipher AES-256-GCM"},
		{name: "no compression", cfg: Config{CompressMigrate: true}, info: v24 + "IV_COMP_STUBv2=1\n", options: "V4,auth SHA1",
			want: "peer-id 7,cipher AES-256-GCM"},
	} {
		test.grant.PeerID = 7
		if got := ownOptions(t, &test.cfg, test.info, test.options, test.grant, !test.bare); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// What a data key needs to know besides its secrets.
func TestTermsOfKeys(t *testing.T) {
	const v27 = "IV_PROTO=8094\n"
	for _, test := range []struct {
		name    string
		cfg     Config
		cipher  string
		info    string
		options string
		want    terms
	}{
		{"AEAD", Config{Digest: "SHA256"}, "AES-256-GCM", v27, "", terms{v2: true}},
		{"epoch", Config{Epoch: true}, "CHACHA20-POLY1305", v27, "", terms{v2: true, epoch: true}},
		{"CBC", Config{Epoch: true}, "AES-128-CBC", v27, "", terms{v2: true, digest: "SHA1"}},
		{"CBC with a digest", Config{Digest: "SHA512"}, "AES-256-CBC", "", "", terms{digest: "SHA512"}},
		{"V1", Config{}, "AES-256-GCM", "", "", terms{}},
		{"stub", Config{CompressMigrate: true}, "AES-256-GCM", "", "V4,comp-lzo", terms{framing: FramingStub}},
		{"stub-v2", Config{CompressMigrate: true}, "AES-256-GCM", "IV_COMP_STUBv2=1\n", "V4,comp-lzo", terms{framing: FramingV2}},
		{"stub-v2 off", Config{CompressMigrate: true}, "AES-256-GCM", "IV_COMP_STUBv2=0\n", "V4,comp-lzo", terms{framing: FramingStub}},
	} {
		h := &Hello{Peer: ParsePeerInfo(test.info), Options: test.options, Cipher: test.cipher}
		got, err := newTerms(&test.cfg, h, &Grant{}, true)
		if err != nil {
			t.Fatal(err)
		}
		if got.v2 != test.want.v2 || got.epoch != test.want.epoch || got.digest != test.want.digest || got.framing != test.want.framing || got.cipher != test.cipher {
			t.Errorf("%s: %+v, want %+v", test.name, *got, test.want)
		}
	}
}

func TestGoodToken(t *testing.T) {
	for token, want := range map[string]bool{
		"SESS_ID_AT_BUWyDtsFYJHSUDA6AAAAAGVT8QAAAAAAZVPxA+/==": true,
		strings.Repeat("x", 255):                               true,
		strings.Repeat("x", 256):                               false,
		"":                                                     false,
		"a b":                                                  false,
		"a,b":                                                  false,
		"a\"b":                                                 false,
		"a\\b":                                                 false,
		"a\nb":                                                 false,
		"a\xffb":                                               false,
	} {
		if got := goodToken(token); got != want {
			t.Errorf("%q: %v", token, got)
		}
	}
	if _, err := newTerms(&Config{}, &Hello{}, &Grant{TokenUser: strings.Repeat("x", 96)}, true); err == nil {
		t.Error("a name that OpenVPN 2 does not take was taken")
	}
}
