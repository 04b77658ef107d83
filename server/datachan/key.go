package datachan

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
)

const (
	slotLen      = 64          // of a cipher or HMAC slot in the key block
	directionLen = 2 * slotLen // of what one direction is keyed with
)

// A Key is a data key: what one client and the server encrypt with, in both directions, between two negotiations.
//
// Sealing may be done by any goroutine, each with its own Scratch. Opening, and all that looks at the replay
// window, is done between Lock and Unlock.
type Key struct {
	id      KeyID
	framing Framing
	format  format
	print   fingerprint

	_      [64]byte // what sealing and opening write to stays on separate cache lines
	sealed struct{ packets, bytes atomic.Uint64 }

	_      [64]byte
	mu     sync.Mutex // guards what follows, and what the format keeps for opening
	opened struct{ packets, bytes uint64 }
}

// A fingerprint tells key material apart without giving it away.
type fingerprint [16]byte

func newFingerprint(toClient, fromClient []byte) fingerprint {
	h := sha256.New()
	h.Write(toClient)
	h.Write(fromClient)
	return fingerprint(h.Sum(nil))
}

// A format lays packets out and encrypts them, numbers them, and knows the numbers again. What it calls the payload
// is framed already. reserve, wear and seal are for any goroutine; the others are called with the key locked.
type format interface {
	headLen() int
	tailLen() int
	fit(size int) int
	reserve(n int) (first uint64, ok bool)
	wear(packets, bytes int)
	seal(dst, payload []byte, id uint64, s *Scratch) int
	// open authenticates and decrypts b, whose header is h, and checks that it is no replay.
	open(h Header, b []byte, s *Scratch) (payload []byte, id uint64, err error)
	nearEnd() bool
	highest() uint64
	expire(id uint64)
}

// A Scratch is the working memory of one goroutine that seals or opens. It holds nothing between calls.
type Scratch struct {
	nonce [nonceLen]byte
	lent  [tagLen]byte // what lay behind the packet being opened
	mac   [slotLen]byte
}

// ID returns the number that names the key on the wire.
func (k *Key) ID() KeyID { return k.id }

// HeadLen is how many bytes of a sealed packet come before the payload.
func (k *Key) HeadLen() int { return k.format.headLen() + k.framing.headLen() }

// TailLen is how many bytes behind the payload Seal may write to, whether they become part of the packet or are
// left dirty behind it.
func (k *Key) TailLen() int { return k.format.tailLen() + k.framing.tailLen() }

// Fit returns the length of the longest payload that is sealed into a packet of at most size bytes, 0 when there is
// none. It holds for IP packets and pings; framed as StubV2, an Ethernet frame may be two bytes more.
func (k *Key) Fit(size int) int {
	return max(k.format.fit(size)-k.framing.cost(), 0)
}

// Reserve takes n packet ids, first to first+n-1, which nobody else gets. It is not ok when the key has none left
// (or n is not positive): the packets must then be dropped, for an id used twice would break the cipher.
func (k *Key) Reserve(n int) (first uint64, ok bool) {
	if n <= 0 {
		return 0, false
	}
	return k.format.reserve(n)
}

// Seal encrypts payload under a reserved id and writes the packet to dst[:n]. The payload either lies exactly at
// dst[HeadLen():] or does not overlap dst. dst must have room (by capacity) for HeadLen bytes, the payload and
// TailLen bytes; what the packet leaves of them is dirty, so that a train is sealed from its first packet to its last.
//
// n is 0, and there is no packet, when a key in the epoch format has come to its end since the id was reserved.
func (k *Key) Seal(dst, payload []byte, id uint64, s *Scratch) (n int) {
	if k.framing != NoFraming {
		payload = k.framing.add(dst[:cap(dst)][k.format.headLen():], payload)
	}
	return k.format.seal(dst, payload, id, s)
}

// AddUsage counts packets that were sealed, and the bytes of their payloads; once per train is enough.
func (k *Key) AddUsage(packets, bytes int) {
	k.sealed.packets.Add(uint64(packets))
	k.sealed.bytes.Add(uint64(bytes))
	k.format.wear(packets, bytes)
}

// Usage returns how many packets and payload bytes the key has carried, both directions together. It takes the
// lock.
func (k *Key) Usage() (packets, bytes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sealed.packets.Load() + k.opened.packets, k.sealed.bytes.Load() + k.opened.bytes
}

// NearEnd reports whether it is time to negotiate a new key: packet ids or epochs run out, AES-GCM has encrypted
// about as much as one key should in either direction, or too many forgeries were tried. It takes the lock.
func (k *Key) NearEnd() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.format.nearEnd()
}

// Lock guards opening; it is taken once for the packets of a train. Call nothing but the key's own methods while
// holding it.
func (k *Key) Lock() { k.mu.Lock() }

// Unlock ends what Lock began.
func (k *Key) Unlock() { k.mu.Unlock() }

// Open authenticates and decrypts the data packet b in place and checks that it is no replay. It borrows the 16
// bytes behind b, which must exist (by capacity) and are unchanged afterwards. The payload is part of b. The
// error is ErrShort, ErrAuth, ErrReplay or ErrMalformed; b's encrypted part is then spoiled and the window has not
// moved. After ErrCompressed the window has moved: that packet was good and its payload was not. The caller holds
// the lock.
func (k *Key) Open(b []byte, s *Scratch) (payload []byte, id uint64, err error) {
	h, ok := ParseHeader(b)
	if !ok {
		return nil, 0, ErrShort
	}
	payload, id, err = k.format.open(h, b, s)
	if err != nil {
		return nil, id, err
	}
	k.opened.packets++
	k.opened.bytes += uint64(len(payload))
	if k.framing != NoFraming {
		payload, err = k.framing.strip(payload)
	}
	return payload, id, err
}

// Highest returns the highest packet id opened so far. A packet that moves a client to a new address must have
// carried it. The caller holds the lock.
func (k *Key) Highest() uint64 { return k.format.highest() }

// Expire refuses from now on every id up to id. Given what Highest said some seconds ago, it makes packets that
// come later than that count as replays. The caller holds the lock.
func (k *Key) Expire(id uint64) { k.format.expire(id) }
