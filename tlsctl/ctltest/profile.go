package ctltest

import (
	"slices"
	"time"
)

// A Profile is how one version of OpenVPN behaves on the control channel.
type Profile struct {
	Name string
	// CryptV2: it knows tls-crypt-v2; Early: it sends its wrapped key again when it is asked to.
	CryptV2, Early bool
	// Loud says which profiles can say goodbye on the control channel.
	Loud bool

	behaviour Config
}

// Apply makes c behave that way. It leaves alone what c is configured with: certificates, login, wrap, transport.
func (p *Profile) Apply(c *Config) {
	b := p.behaviour
	b.TLS, b.Wrap, b.CryptV2, b.Stream = c.TLS, c.Wrap, c.CryptV2, c.Stream
	b.Login, b.Username, b.Password, b.Credentials, b.Exchange = c.Login, c.Username, c.Password, c.Credentials, c.Exchange
	*c = b
}

const occ = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,"

// second generation: 2 s doubling, old TLS sessions are not read, asks every 5 s, waits a minute.
func v2(peerInfo, options string, change func(*Config)) Config {
	c := Config{
		PeerInfo: peerInfo, Options: options, SendWindow: 6, ReceiveWindow: 12, AckMax: 8, Chunk: 1140, FastResend: true,
		StreamResend: true, LosesOld: true, PushWithin: time.Minute,
		Cadence: []time.Duration{time.Second, 5 * time.Second},
		Flags:   []string{"cc-exit", "tls-ekm", "dyn-tls-crypt"},
	}
	if change != nil {
		change(&c)
	}
	return c
}

// third generation: every second, never over a stream; goes on under the old key for a minute.
func v3(peerInfo string, change func(*Config)) Config {
	c := Config{
		PeerInfo: peerInfo, Options: occ + "cipher AES-256-GCM,auth [null-digest],keysize 256,key-method 2,tls-client",
		SendWindow: 6, ReceiveWindow: 8, AckMax: 8, Chunk: 1250, Steady: true, MoveZero: true, OldKey: time.Minute,
		Joins: true, PushWithin: time.Minute,
		Cadence:        []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second},
		PendingCadence: 8 * time.Second,
		Flags:          []string{"cc-exit", "tls-ekm", "dyn-tls-crypt"},
	}
	if change != nil {
		change(&c)
	}
	return c
}

// old takes from a client what came with 2.6.
func old(c *Config) {
	c.SendWindow, c.ReceiveWindow, c.AckOnce, c.FastResend = 4, 8, true, false
	c.Refuses = []string{"protocol-flags", "key-derivation", "tun-mtu"}
}

// old3 takes from a client what came with 3.8.
func old3(c *Config) {
	c.SendWindow, c.ReceiveWindow, c.AckMax, c.AckOnce, c.MoveZero = 4, 4, 4, true, false
	c.Refuses = []string{"protocol-flags"}
}

func epoch(c *Config) { c.Flags = append(slices.Clip(c.Flags), "aead-epoch") }

const (
	compressors = "IV_LZ4=1\nIV_LZ4v2=1\nIV_LZO=1\nIV_COMP_STUB=1\nIV_COMP_STUBv2=1\nIV_TCPNL=1\n"
	stubs       = "IV_LZO_STUB=1\nIV_COMP_STUB=1\nIV_COMP_STUBv2=1\n"
	suites      = "IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\n"
	suites3     = "IV_CIPHERS=AES-128-CBC:AES-192-CBC:AES-256-CBC:AES-128-GCM:AES-192-GCM:AES-256-GCM:CHACHA20-POLY1305\n"
	core        = "IV_TCPNL=1\nIV_NCP=2\n" + suites3 + "IV_LZO_STUB=1\nIV_COMP_STUB=1\nIV_COMP_STUBv2=1\nIV_AUTO_SESS=1\nIV_SSO=webauth,openurl,crtext\n"
)

// The versions whose control channels differ: control-channel.md, appendix A.
var (
	V24 = &Profile{Name: "2.4", behaviour: v2("IV_VER=2.4.12\nIV_PLAT=linux\nIV_PROTO=2\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM:BF-CBC\n"+compressors,
		occ+"cipher BF-CBC,auth SHA1,keysize 128,key-method 2,tls-client", func(c *Config) {
			old(c)
			c.Cadence = []time.Duration{0, 5 * time.Second}
		})}
	V25 = &Profile{Name: "2.5", CryptV2: true, behaviour: v2("IV_VER=2.5.11\nIV_PLAT=linux\nIV_PROTO=6\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\n"+compressors,
		occ+"cipher AES-256-GCM,auth [null-digest],keysize 256,key-method 2,tls-client", old)}
	V26 = &Profile{Name: "2.6", CryptV2: true, Early: true, Loud: true, behaviour: v2("IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n"+suites+"IV_PROTO=990\n"+stubs,
		occ+"auth SHA1,keysize 128,key-method 2,tls-client", nil)}
	V27 = &Profile{Name: "2.7", CryptV2: true, Early: true, Loud: true, behaviour: v2("IV_VER=2.7.6\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n"+suites+"IV_PROTO=8094\n"+stubs,
		occ+"auth SHA1,keysize 128,key-method 2,tls-client", epoch)}
	V36  = &Profile{Name: "3.6", CryptV2: true, behaviour: v3("IV_VER=3.6.7\nIV_PLAT=mac\nIV_PROTO=30\n"+core, old3)}
	V37  = &Profile{Name: "3.7", CryptV2: true, behaviour: v3("IV_VER=3.7.4\nIV_PLAT=ios\nIV_PROTO=22\n"+core, old3)} // its TLS library exports nothing
	V38  = &Profile{Name: "3.8", CryptV2: true, Early: true, Loud: true, behaviour: v3("IV_VER=3.8.5\nIV_PLAT=android\nIV_PROTO=990\nIV_MTU=1600\n"+core, nil)}
	V39  = &Profile{Name: "3.9", CryptV2: true, Early: true, Loud: true, behaviour: v3("IV_VER=3.9.1\nIV_PLAT=win\nIV_PROTO=2974\nIV_MTU=1600\nIV_ACC=2048,6:A,proto\n"+core, nil)}
	V311 = &Profile{Name: "3.11", CryptV2: true, Early: true, Loud: true, behaviour: v3("IV_VER=3.11.3\nIV_PLAT=mac\nIV_PROTO=8094\nIV_MTU=1600\nIV_ACC=2048,6:A,proto\n"+core, epoch)}

	// Profiles are all of them, oldest first.
	Profiles = []*Profile{V24, V25, V26, V27, V36, V37, V38, V39, V311}
)
