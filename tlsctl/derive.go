package tlsctl

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/tls"
	"fmt"

	"github.com/pion/dtls/v2/pkg/crypto/prf"
)

// Labels of key derivation.
const (
	labelMaster     = "OpenVPN master secret"
	labelExpansion  = "OpenVPN key expansion"
	exportDataKeys  = "EXPORTER-OpenVPN-datakeys"
	exportDynamic   = "EXPORTER-OpenVPN-dynamic-tls-crypt"
	masterSize      = 48
	keyBlockSize    = 256
	directionalSize = keyBlockSize / 2
)

// A keyBlock is what both derivations yield:
//
//	0        64        128        192        256
//	| cipher | hmac    | cipher   | hmac     |
//	client to server    server to client
type keyBlock []byte

func (k keyBlock) fromClient() Secret { return Secret(k[:directionalSize]) }
func (k keyBlock) toClient() Secret   { return Secret(k[directionalSize:keyBlockSize]) }

// prf10 is the pseudo-random function of TLS 1.0 over label and seed.
func prf10(secret, seed []byte, n int) ([]byte, error) {
	half := (len(secret) + 1) / 2 // of an odd length both halves have the middle byte
	out, err := prf.PHash(secret[:half], seed, n, md5.New)
	if err != nil {
		return nil, fmt.Errorf("derive with MD5: %w", err)
	}
	other, err := prf.PHash(secret[len(secret)-half:], seed, n, sha1.New)
	if err != nil {
		return nil, fmt.Errorf("derive with SHA-1: %w", err)
	}
	subtle.XORBytes(out, out, other)
	clear(other)
	return out, nil
}

// deriveKeys makes the data keys out of both key exchanges and the session ids, as all clients can.
func deriveKeys(client, server *exchange, clientID, serverID SessionID) (keyBlock, error) {
	seed := append([]byte(labelMaster), client.random1[:]...)
	seed = append(seed, server.random1[:]...)
	master, err := prf10(client.preMaster[:], seed, masterSize)
	if err != nil {
		return nil, err
	}
	defer clear(master)
	seed = append([]byte(labelExpansion), client.random2[:]...)
	seed = append(seed, server.random2[:]...)
	seed = append(seed, clientID[:]...)
	seed = append(seed, serverID[:]...)
	return prf10(master, seed, keyBlockSize)
}

// exportKeys takes 256 bytes out of a TLS session. It fails for TLS 1.2 without extended master secret. The context
// must be nil: an empty one is another key under TLS 1.2.
func exportKeys(cs *tls.ConnectionState, label string) (keyBlock, error) {
	return cs.ExportKeyingMaterial(label, nil, keyBlockSize)
}
