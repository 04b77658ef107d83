package tlsctl

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
)

const (
	cookieKeyLen = 32
	cookieSlots  = 3 // accepted: the current slot and those before it, never a later one
)

// cookieJar makes the server's session ids for clients that have proved nothing, and knows its own again. A session
// id is the start of
//
//	HMAC-SHA256(key, slot (8) | 4 or 6 (1) | address (4, 16) | port (2) | client's session id (8) | [local address] | listener)
//
// so only who receives the answer sent to an address can come back from it. One goroutine's.
type cookieJar struct {
	mac      hash.Hash
	listener []byte
	local    netip.Addr // of ours that the packet at hand came to, where the listener has several
	slotSecs int64
	input    []byte
	sum      [sha256.Size]byte
}

func newCookieJar(key []byte, listener string, handWindowSecs int64) *cookieJar {
	return &cookieJar{
		mac:      hmac.New(sha256.New, key),
		listener: []byte(listener),
		slotSecs: max(1, (handWindowSecs+1)/2),
		input:    make([]byte, 0, 8+1+16+2+sessionIDLen+16+len(listener)),
	}
}

// bake returns the session id for a client at a time in seconds.
func (j *cookieJar) bake(now int64, from netip.AddrPort, client SessionID) SessionID {
	return j.bakeSlot(now/j.slotSecs, from, client)
}

// knows reports whether server was baked for this client lately.
func (j *cookieJar) knows(now int64, from netip.AddrPort, client, server SessionID) bool {
	known := false
	for i := range int64(cookieSlots) {
		want := j.bakeSlot(now/j.slotSecs-i, from, client)
		if sameSecret(want[:], server[:]) {
			known = true
		}
	}
	return known
}

func (j *cookieJar) bakeSlot(slot int64, from netip.AddrPort, client SessionID) SessionID {
	b := binary.BigEndian.AppendUint64(j.input[:0], uint64(slot))
	if addr := from.Addr().Unmap(); addr.Is4() {
		a := addr.As4()
		b = append(append(b, 4), a[:]...)
	} else {
		a := addr.As16()
		b = append(append(b, 6), a[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = append(b, client[:]...)
	if j.local.IsValid() {
		a := j.local.As16()
		b = append(b, a[:]...)
	}
	b = append(b, j.listener...)

	j.mac.Reset()
	j.mac.Write(b)
	id := SessionID(j.mac.Sum(j.sum[:0]))
	if id.IsZero() {
		id[7] = 1
	}
	return id
}
