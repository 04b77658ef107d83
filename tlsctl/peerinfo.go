package tlsctl

import (
	"cmp"
	"strconv"
	"strings"
)

// Features of a client, the bits of IV_PROTO.
const (
	FeatureDataV2       = 1 << 1  // takes P_DATA_V2
	FeatureRequestPush  = 1 << 2  // takes PUSH_REPLY before it asked
	FeatureExporter     = 1 << 3  // derives data keys with the TLS exporter
	FeaturePendingTime  = 1 << 4  // understands AUTH_PENDING,timeout
	FeatureDNSDraft     = 1 << 6  // takes "dns" options as 2.6 has them, and may do nothing about them
	FeatureExit         = 1 << 7  // says EXIT on the control channel and knows protocol-flags
	FeatureTempFailure  = 1 << 8  // understands AUTH_FAILED,TEMP
	FeatureDynamicCrypt = 1 << 9  // renegotiates under dynamic tls-crypt
	FeatureEpoch        = 1 << 10 // knows the epoch data format
	FeatureDNS          = 1 << 11 // takes "dns" options in place of dhcp-option DNS
	FeaturePushUpdate   = 1 << 12 // understands PUSH_UPDATE
)

// Bounds of a peer info (S028).
const (
	maxPeerInfo  = 4096
	maxPeerLines = 64
	maxPeerName  = 3 + 32
	maxPeerValue = 256
)

// PeerInfo is what a client says about itself: the IV_ and UV_ lines of its key exchange, cleaned. All of it is
// claimed, none of it proved: it may decide what is sent to the client, never what the client may do.
type PeerInfo struct {
	vars []peerVar
}

type peerVar struct{ name, value string }

// ParsePeerInfo reads NAME=VALUE lines. It keeps what has a good name and drops the rest: at most 4 KiB, 64 lines,
// values of at most 256 bytes. The first of several lines with one name wins. In values everything that is not
// printable ASCII becomes '_', and so do space, '$', '(' and the backtick, since they travel to logs and
// environments.
func ParsePeerInfo(text string) PeerInfo {
	var p PeerInfo
	if len(text) > maxPeerInfo {
		text = text[:maxPeerInfo]
		// The last line was cut: half a value is worse than none.
		text = text[:strings.LastIndexByte(text, '\n')+1]
	}
	for n := 0; n < maxPeerLines && text != ""; n++ {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), "=")
		if !ok || !goodPeerName(name) || len(value) > maxPeerValue {
			continue
		}
		if _, seen := p.Get(name); seen {
			continue
		}
		p.vars = append(p.vars, peerVar{strings.Clone(name), cleanPeerValue(value)})
	}
	return p
}

// goodPeerName accepts IV_ and UV_ names. Lower case is among them: IV_LZ4v2, IV_COMP_STUBv2 and IV_IPv6 have it.
func goodPeerName(s string) bool {
	if len(s) <= 3 || len(s) > maxPeerName || (s[:3] != "IV_" && s[:3] != "UV_") {
		return false
	}
	for _, c := range []byte(s[3:]) {
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}

func cleanPeerValue(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c <= ' ' || c >= 0x7f || c == '$' || c == '(' || c == '`' {
			b[i] = '_'
		}
	}
	return string(b)
}

// Get returns the value of a name, and whether the client sent it.
func (p PeerInfo) Get(name string) (value string, ok bool) {
	for _, v := range p.vars {
		if v.name == name {
			return v.value, true
		}
	}
	return "", false
}

// All calls yield for each name and value, in the order in which they came.
func (p PeerInfo) All(yield func(name, value string) bool) {
	for _, v := range p.vars {
		if !yield(v.name, v.value) {
			return
		}
	}
}

// Proto returns IV_PROTO, the client's feature bits; 0 if it sent none.
func (p PeerInfo) Proto() uint32 {
	return uint32(p.number("IV_PROTO"))
}

// Can reports whether the client announced a feature.
func (p PeerInfo) Can(feature uint32) bool { return p.Proto()&feature == feature }

// MTU returns IV_MTU, the largest tun-mtu the client lets itself be told, or 0 if it does not take one.
func (p PeerInfo) MTU() int { return int(p.number("IV_MTU")) }

// Ciphers returns the data ciphers the client names, in its order; without IV_CIPHERS what IV_NCP stands for.
func (p PeerInfo) Ciphers() []string {
	if v, ok := p.Get("IV_CIPHERS"); ok {
		return strings.FieldsFunc(v, func(r rune) bool { return r == ':' })
	}
	if p.number("IV_NCP") >= 2 {
		return []string{"AES-256-GCM", "AES-128-GCM"}
	}
	return nil
}

// takesCipher reports whether the client lets itself be told the data cipher.
func (p PeerInfo) takesCipher() bool {
	_, named := p.Get("IV_CIPHERS")
	return named || p.number("IV_NCP") >= 2
}

// Version returns IV_VER, as in "2.6.14".
func (p PeerInfo) Version() string { v, _ := p.Get("IV_VER"); return v }

// A Release is the numbers of a client's version. Those of OpenVPN 3 begin with 3, and say nothing about OpenVPN 2.
type Release struct{ Major, Minor, Patch int }

// Release reads Version: "2.7_beta1" is 2.7.0. What is no version is the zero Release.
func (p PeerInfo) Release() Release {
	var n [3]int
	rest := p.Version()
	for i := range n {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		var err error
		if n[i], err = strconv.Atoi(rest[:digits]); err != nil || digits > 4 {
			if i == 0 {
				return Release{}
			}
			n[i] = 0
			break
		}
		if rest = rest[digits:]; !strings.HasPrefix(rest, ".") {
			break
		}
		rest = rest[1:]
	}
	return Release{n[0], n[1], n[2]}
}

// Compare is negative if r is older than o, zero if they are the same, positive if r is newer.
func (r Release) Compare(o Release) int {
	return cmp.Or(cmp.Compare(r.Major, o.Major), cmp.Compare(r.Minor, o.Minor), cmp.Compare(r.Patch, o.Patch))
}

// SSO returns IV_SSO, the ways in which the client's user can be asked for more.
func (p PeerInfo) SSO() []string {
	v, _ := p.Get("IV_SSO")
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' })
}

// Has reports whether the client says that it has something: a value of 1.
func (p PeerInfo) Has(name string) bool { return p.number(name) == 1 }

// Platform returns IV_PLAT, as in "linux" or "win".
func (p PeerInfo) Platform() string { v, _ := p.Get("IV_PLAT"); return v }

// number returns a value as a number, 0 if it is absent or none.
func (p PeerInfo) number(name string) uint64 {
	v, _ := p.Get(name)
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0
	}
	return n
}
