package datachan

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	slotLen      = 64          // of a cipher or HMAC slot in the key block
	directionLen = 2 * slotLen // of what one direction is keyed with
)

// When a key has been used so much that a new one should be negotiated.
const (
	nearLastID = 0xff000000
	// gcmLimit bounds what one AES-GCM key may encrypt in one direction, counted in blocks plus packets, so that
	// an attacker's advantage stays below 2^-57; a new key is asked for at seven eighths.
	gcmLimit = 1<<36 - 1
	// failLimit bounds the forgeries that may be tried against one key.
	failLimit = 1 << 36
)

// A Key is a data key: what one client and the server encrypt with, in both directions, between two negotiations.
//
// Sealing may be done by any goroutine, each with its own Scratch. Opening, and all that looks at the replay
// window, is done between Lock and Unlock.
type Key struct {
	id     KeyID
	gcm    bool
	format format
	print  fingerprint

	_      [64]byte      // what sealing and opening write to stays on separate cache lines
	next   atomic.Uint64 // the last id reserved
	sealed struct{ packets, bytes atomic.Uint64 }

	_      [64]byte
	mu     sync.Mutex // guards what follows
	window window
	opened struct{ packets, bytes uint64 }
	failed uint64
}

// A fingerprint tells key material apart without giving it away.
type fingerprint [16]byte

func newFingerprint(toClient, fromClient []byte) fingerprint {
	h := sha256.New()
	h.Write(toClient)
	h.Write(fromClient)
	return fingerprint(h.Sum(nil))
}

// A format lays packets out and encrypts them. It neither counts packets nor remembers them.
type format interface {
	headLen() int
	tailLen() int
	lastID() uint64
	seal(dst, payload []byte, id uint64, s *Scratch) int
	// open authenticates and decrypts b, whose header is h.
	open(h Header, b []byte, s *Scratch) (payload []byte, id uint64, err error)
}

// NewKey makes the server's end of a data key. toClient and fromClient are one direction each of the negotiated
// key block, a cipher and an HMAC slot of 64 bytes; nothing of them is kept, the caller should clear them. With v2
// packets are sealed as P_DATA_V2 for peer, otherwise as P_DATA_V1; both are opened. window is how many ids the
// replay window looks back: 0 is DefaultWindow, Sequential none.
//
// The client's end is the same with toClient and fromClient exchanged.
func NewKey(id KeyID, cipher string, peer PeerID, v2 bool, toClient, fromClient []byte, window int) (*Key, error) {
	if len(toClient) != directionLen || len(fromClient) != directionLen {
		return nil, fmt.Errorf("data key: %d and %d bytes of key material, want %d each",
			len(toClient), len(fromClient), directionLen)
	}
	if id > 7 || peer > NoPeer {
		return nil, fmt.Errorf("data key: key id %d or peer id %d out of range", id, peer)
	}
	head := Header{Op: OpDataV1, Key: id, Peer: NoPeer, Len: headerLenV1}
	if v2 {
		head = Header{Op: OpDataV2, Key: id, Peer: peer, Len: headerLenV2}
	}
	f, err := newAEAD(cipher, head, toClient, fromClient)
	if err != nil {
		return nil, fmt.Errorf("data key: %w", err)
	}
	return &Key{
		id:     id,
		gcm:    strings.HasSuffix(strings.ToUpper(cipher), "-GCM"),
		format: f,
		print:  newFingerprint(toClient, fromClient),
		window: newWindow(window),
	}, nil
}

// ID returns the number that names the key on the wire.
func (k *Key) ID() KeyID { return k.id }

// HeadLen is how many bytes of a sealed packet come before the payload.
func (k *Key) HeadLen() int { return k.format.headLen() }

// TailLen is how many bytes behind a sealed packet Seal writes to and leaves dirty.
func (k *Key) TailLen() int { return k.format.tailLen() }

// Reserve takes n packet ids, first to first+n-1, which nobody else gets. It is not ok when the key has none left
// (or n is not positive): the packets must then be dropped, for an id used twice would break the cipher.
func (k *Key) Reserve(n int) (first uint64, ok bool) {
	if n <= 0 {
		return 0, false
	}
	// A refused reservation moves the counter too; 64 bits hold more refusals than a key can live to see.
	last := k.next.Add(uint64(n))
	if last > k.format.lastID() {
		return 0, false
	}
	return last - uint64(n) + 1, true
}

// Seal encrypts payload under a reserved id and writes the packet to dst[:n]. The payload either lies exactly at
// dst[HeadLen():] or does not overlap dst. dst must have room (by capacity) for HeadLen bytes, the payload and
// TailLen bytes; the last are left dirty, so that a train is sealed from its first packet to its last.
func (k *Key) Seal(dst, payload []byte, id uint64, s *Scratch) (n int) {
	return k.format.seal(dst, payload, id, s)
}

// AddUsage counts packets that were sealed, and the bytes of their payloads; once per train is enough.
func (k *Key) AddUsage(packets, bytes int) {
	k.sealed.packets.Add(uint64(packets))
	k.sealed.bytes.Add(uint64(bytes))
}

// Usage returns how many packets and payload bytes the key has carried, both directions together. It takes the
// lock.
func (k *Key) Usage() (packets, bytes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sealed.packets.Load() + k.opened.packets, k.sealed.bytes.Load() + k.opened.bytes
}

// NearEnd reports whether it is time to negotiate a new key: packet ids run out, AES-GCM has encrypted about as
// much as one key should in either direction, or too many forgeries were tried. It takes the lock.
func (k *Key) NearEnd() bool {
	if k.next.Load() >= nearLastID || k.overused(k.sealed.packets.Load(), k.sealed.bytes.Load()) {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed >= failLimit/2 || k.overused(k.opened.packets, k.opened.bytes)
}

// overused estimates the blocks from above: each packet's last one may be partly filled.
func (k *Key) overused(packets, bytes uint64) bool {
	return k.gcm && bytes/16+2*packets > gcmLimit/8*7
}

// Lock guards opening; it is taken once for the packets of a train. Call nothing but the key's own methods while
// holding it.
func (k *Key) Lock() { k.mu.Lock() }

// Unlock ends what Lock began.
func (k *Key) Unlock() { k.mu.Unlock() }

// Open authenticates and decrypts the data packet b in place and checks that it is no replay. It borrows the 16
// bytes behind b, which must exist (by capacity) and are unchanged afterwards. The payload is part of b. The
// error is ErrShort, ErrAuth or ErrReplay; b's encrypted part is then spoiled and the window has not moved. The
// caller holds the lock.
func (k *Key) Open(b []byte, s *Scratch) (payload []byte, id uint64, err error) {
	h, ok := ParseHeader(b)
	if !ok {
		return nil, 0, ErrShort
	}
	if k.failed >= failLimit {
		return nil, 0, ErrAuth
	}
	payload, id, err = k.format.open(h, b, s)
	if err != nil {
		if err == ErrAuth {
			k.failed++
		}
		return nil, 0, err
	}
	if !k.window.accept(id) {
		return nil, id, ErrReplay
	}
	k.opened.packets++
	k.opened.bytes += uint64(len(payload))
	return payload, id, nil
}

// Highest returns the highest packet id opened so far. A packet that moves a client to a new address must have
// carried it. The caller holds the lock.
func (k *Key) Highest() uint64 { return k.window.highest }

// Expire refuses from now on every id up to id. Given what Highest said some seconds ago, it makes packets that
// come later than that count as replays. The caller holds the lock.
func (k *Key) Expire(id uint64) { k.window.expire(id) }
