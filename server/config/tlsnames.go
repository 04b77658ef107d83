package config

import (
	"crypto/tls"
	"slices"
	"strings"
)

// suites are the TLS 1.2 cipher suites that may be used: ephemeral keys and AEAD (S063). Names are OpenSSL's; the
// IANA names, with _ or -, are those of crypto/tls.
var suites = []struct {
	openSSL string
	id      uint16
}{
	{"ECDHE-ECDSA-AES128-GCM-SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-RSA-AES128-GCM-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-RSA-AES256-GCM-SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	{"ECDHE-RSA-CHACHA20-POLY1305", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
}

// suiteIDs reads a tls-cipher list. dropped are its names that cannot be used here.
func suiteIDs(list string) (ids []uint16, dropped []string) {
	for name := range strings.SplitSeq(list, ":") {
		switch name {
		case "":
			continue
		case "DEFAULT", "ALL", "HIGH", "SECURE", "EECDH", "kEECDH", "ECDHE", "kECDHE":
			for _, s := range suites {
				ids = append(ids, s.id)
			}
			continue
		}
		if strings.ContainsRune("!-+@", rune(name[0])) {
			continue // takes away from OpenSSL's sets what is not among ours anyway
		}
		found := false
		for _, s := range suites {
			iana := tls.CipherSuiteName(s.id)
			dashed := strings.ReplaceAll(name, "_", "-")
			if name == s.openSSL || name+"-SHA256" == s.openSSL || dashed == strings.ReplaceAll(iana, "_", "-") ||
				dashed+"-SHA256" == strings.ReplaceAll(iana, "_", "-") {
				ids, found = append(ids, s.id), true
			}
		}
		if !found {
			dropped = append(dropped, name)
		}
	}
	var unique []uint16
	for _, id := range ids {
		if !slices.Contains(unique, id) {
			unique = append(unique, id)
		}
	}
	return unique, dropped
}

// suites13 are the TLS 1.3 suites. crypto/tls always offers all three.
var suites13 = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

var curves = map[string]tls.CurveID{
	"x25519": tls.X25519, "prime256v1": tls.CurveP256, "secp256r1": tls.CurveP256, "p-256": tls.CurveP256,
	"secp384r1": tls.CurveP384, "p-384": tls.CurveP384, "secp521r1": tls.CurveP521, "p-521": tls.CurveP521,
	"x25519mlkem768": tls.X25519MLKEM768,
}

// curveIDs reads a tls-groups list.
func curveIDs(list string) (ids []uint16, dropped []string) {
	for name := range strings.SplitSeq(list, ":") {
		switch id, ok := curves[strings.ToLower(name)]; {
		case name == "":
		case !ok:
			dropped = append(dropped, name)
		case !slices.Contains(ids, uint16(id)):
			ids = append(ids, uint16(id))
		}
	}
	return ids, dropped
}
