package tlsctl

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// terms are what the first negotiation settles for the whole session, out of what both ends can do.
type terms struct {
	peerID    uint32
	v2        bool
	cipher    string
	digest    string // of CBC ciphers
	exporter  bool   // data keys are exported from TLS
	dynamic   bool   // renegotiations are under dynamic tls-crypt
	epoch     bool
	framing   Framing
	tunMTU    int    // to be pushed, if not 0
	tokenUser string // to be pushed, if not empty
}

// newTerms settles the terms with the client of h. exports says whether its TLS session exports keys.
func newTerms(cfg *Config, h *Hello, g *Grant, exports bool) (*terms, error) {
	t := &terms{
		peerID:   g.PeerID,
		v2:       h.Peer.Can(FeatureDataV2),
		cipher:   h.Cipher,
		exporter: exports && h.Peer.Can(FeatureExporter),
		dynamic:  exports && h.Peer.Can(FeatureDynamicCrypt|FeatureExit),
	}
	if g.TokenUser != h.Username {
		t.tokenUser = g.TokenUser
	}
	cbc := strings.HasSuffix(t.cipher, "-CBC")
	if cbc {
		t.digest = cfg.digest()
	}
	t.epoch = cfg.Epoch && !cbc && t.v2 && t.exporter && h.Peer.Can(FeatureEpoch|FeatureExit)
	if cfg.CompressMigrate && hasOption(h.Options, "comp-lzo") {
		t.framing = FramingStub
		if h.Peer.Has("IV_COMP_STUBv2") {
			t.framing = FramingV2
		}
	}
	if h.Peer.MTU() > 0 {
		t.tunMTU = cfg.TunMTU
	}
	if base64.StdEncoding.EncodedLen(len(t.tokenUser)) > maxTokenUser {
		return nil, fmt.Errorf("user name of %d bytes is too long to be pushed", len(t.tokenUser))
	}
	return t, nil
}

// digest is what CBC ciphers are authenticated with.
func (c *Config) digest() string {
	if c.Digest == "" {
		return "SHA1"
	}
	return c.Digest
}

const (
	maxToken     = 255 // OpenVPN 3 takes no longer one
	maxTokenUser = 127 // base64, in OpenVPN 2
)

// goodToken reports whether a token can be pushed: one word, which no quoting changes.
func goodToken(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"'\\,#;", r)
	})
}

// replies are the PUSH_REPLY messages that carry a grant's options and, behind them, ours.
func (t *terms) replies(granted []string, peer PeerInfo, token string) ([]Message, error) {
	own, err := t.options(peer, token)
	if err != nil {
		return nil, err
	}
	return pushReplies(append(slices.Clone(granted), own...))
}

// options is what the session adds to a grant's options.
func (t *terms) options(peer PeerInfo, token string) (add []string, err error) {
	switch t.framing {
	case FramingStub:
		add = append(add, "comp-lzo no")
	case FramingV2:
		add = append(add, "compress stub-v2")
	}
	if t.v2 {
		add = append(add, fmt.Sprintf("peer-id %d", t.peerID))
	}
	if token != "" {
		if !goodToken(token) {
			return nil, errToken
		}
		add = append(add, "auth-token "+token)
		if t.tokenUser != "" {
			add = append(add, "auth-token-user "+base64.StdEncoding.EncodeToString([]byte(t.tokenUser)))
		}
	}
	if peer.takesCipher() {
		add = append(add, "cipher "+t.cipher)
	}
	switch {
	case peer.Can(FeatureExit):
		// Only words whose bit the client announced: an unknown one ends the session of an OpenVPN 3 client.
		flags := "protocol-flags cc-exit"
		if t.exporter {
			flags += " tls-ekm"
		}
		if t.dynamic {
			flags += " dyn-tls-crypt"
		}
		if t.epoch {
			flags += " aead-epoch"
		}
		add = append(add, flags)
	case t.exporter:
		add = append(add, "key-derivation tls-ekm")
	}
	if t.tunMTU > 0 {
		add = append(add, fmt.Sprintf("tun-mtu %d", t.tunMTU))
	}
	return add, nil
}

var errToken = errors.New("token is not one word of at most 255 printable characters")
