package datachan

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

const (
	epochIDLen  = 8
	counterBits = 48
	lastCounter = 1<<counterBits - 1
	// nearLastCounter is where an epoch ends for want of counters, a few trains before there are none.
	nearLastCounter = lastCounter - 1<<20

	futureEpochs = 16
	lastEpoch    = 1<<16 - 1
	// nearLastEpoch is when a new key should be negotiated.
	nearLastEpoch = 0xf000
	// lastFuture is the last epoch that a packet may take us to.
	lastFuture = lastEpoch - futureEpochs - 1
)

// epochs is the packet format of OpenVPN 2.7 and core 3:
//
//	V2: [op|key 1][peer id 3][epoch 2][counter 6][ciphertext][tag 16]
//	    `------------ authenticated -----------'
//	packet id: epoch, counter       nonce: the epoch's iv XOR packet id
//
// An epoch has its own keys and counts from 1. Either end begins a new one when a key has encrypted enough, and the
// other follows when it sees a packet of it; the key id and the control channel know nothing of this.
//
// Sealing. The key of an epoch and the counter of its ids are one object behind one atomic pointer, and mu sees to it
// that there is one such object for each epoch: an id cannot be given out twice, nor meet another epoch's key. A
// sender may hold ids of an epoch that has ended meanwhile; sealing then takes a new id in place of the old one,
// instead of keeping keys of the past for as long as some goroutine may sleep. The order of a train does not suffer,
// and ids at an epoch's end that never come are like packets that were lost.
//
// Opening. Packets of the current epoch, of the one before and of the sixteen after are accepted, nothing else is
// tried. A future key is derived when the first packet asks for it, and then kept: most keys never see a second
// epoch, and a forger can cause no more than sixteen derivations. The old epoch's key goes at the next switch, or when
// Expire has passed it.
type epochs struct {
	head   Header
	gcm    bool
	window int

	_       [64]byte
	sending atomic.Pointer[sendEpoch]
	mu      sync.Mutex // guards seals and storing to sending; taken with or without the key's lock
	seals   *chain

	_        [64]byte // kept by the key's lock
	current  *openEpoch
	retiring *openEpoch // the one before, nil at first
	future   [futureEpochs]*openEpoch
	opens    *chain // at the first epoch that is not in future
}

type sendEpoch struct {
	epochKey
	_ [64]byte
	outgoing
}

type openEpoch struct {
	epochKey
	incoming
}

func newEpochs(name string, head Header, toClient, fromClient []byte, window int) (*epochs, error) {
	e := &epochs{head: head, gcm: isGCM(name), window: window}
	var err error
	if e.seals, err = newChain(name, toClient[:secretLen]); err != nil {
		return nil, err
	}
	if e.opens, err = newChain(name, fromClient[:secretLen]); err != nil {
		return nil, err
	}
	e.sending.Store(newSendEpoch(e.seals.key(1)))
	e.current = &openEpoch{epochKey: e.opens.key(1)}
	e.current.begin(window)
	return e, nil
}

func newSendEpoch(k epochKey) *sendEpoch {
	return &sendEpoch{
		epochKey: k,
		outgoing: outgoing{base: uint64(k.epoch) << counterBits, last: lastCounter},
	}
}

// begin makes the epoch's replay window. Counter 0 is never valid.
func (r *openEpoch) begin(window int) {
	r.window = newWindow(window)
	r.window.expire(uint64(r.epoch) << counterBits)
}

func (e *epochs) headLen() int     { return headerLenV2 + epochIDLen }
func (e *epochs) tailLen() int     { return tagLen }
func (e *epochs) fit(size int) int { return size - e.headLen() - tagLen }

func (e *epochs) reserve(n int) (first uint64, ok bool) {
	out := e.sending.Load()
	if out.taken.Load() >= nearLastCounter || e.gcm && out.worn.Load() > wornOut {
		next := e.raise(out.epoch + 1)
		if next == out {
			return 0, false // nothing follows the last epoch
		}
		out = next
	}
	return out.reserve(n)
}

// raise makes epoch, or a later one, the one that seals, and returns the one that does.
func (e *epochs) raise(epoch uint32) *sendEpoch {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.sending.Load()
	if epoch <= out.epoch || epoch > lastEpoch {
		return out
	}
	out = newSendEpoch(e.seals.key(epoch))
	e.sending.Store(out)
	return out
}

func (e *epochs) wear(packets, bytes int) { e.sending.Load().worn.Add(wear(packets, bytes)) }

func (e *epochs) seal(dst, payload []byte, id uint64, s *Scratch) int {
	out := e.sending.Load()
	if id>>counterBits != uint64(out.epoch) {
		var ok bool
		if id, ok = out.reserve(1); !ok {
			return 0
		}
	}
	body := headerLenV2 + epochIDLen
	n := body + len(payload) + tagLen
	room := dst[:n]
	binary.BigEndian.AppendUint64(e.head.AppendTo(room[:0]), id)
	out.aead.Seal(room[body:body], out.nonce(&s.nonce, id), payload, room[:body])
	return n
}

func (e *epochs) open(h Header, b []byte, s *Scratch) (payload []byte, id uint64, err error) {
	if h.Op != OpDataV2 {
		return nil, 0, ErrAuth // there is no such packet
	}
	body := h.Len + epochIDLen
	if len(b) <= body+tagLen {
		return nil, 0, ErrShort
	}
	id = binary.BigEndian.Uint64(b[h.Len:])
	r := e.receiving(uint32(id >> counterBits))
	if r == nil || r.beset() {
		return nil, 0, ErrAuth
	}
	payload, err = r.aead.Open(b[body:body], r.nonce(&s.nonce, id), b[body:], b[:body])
	if err != nil {
		err = r.fail()
		e.relieve(r)
		return nil, 0, err
	}
	ahead := r.epoch > e.current.epoch
	if ahead {
		r.begin(e.window)
	}
	if err := r.take(id, len(payload)); err != nil {
		return nil, id, err
	}
	if ahead {
		e.follow(r)
	}
	e.relieve(r)
	return payload, id, nil
}

// receiving returns what opens packets of an epoch, nil when they are too old or too far ahead.
func (e *epochs) receiving(epoch uint32) *openEpoch {
	if epoch == e.current.epoch {
		return e.current
	}
	if e.retiring != nil && epoch == e.retiring.epoch {
		return e.retiring
	}
	ahead := int(epoch) - int(e.current.epoch)
	if ahead <= 0 || ahead > futureEpochs || epoch > lastFuture {
		return nil
	}
	for e.opens.epoch <= epoch {
		k := e.opens.key(e.opens.epoch)
		e.future[k.epoch-e.current.epoch-1] = &openEpoch{epochKey: k}
	}
	return e.future[ahead-1]
}

// follow makes r, one of the future epochs, the current one, and seals in it as well: the peer has left those before.
func (e *epochs) follow(r *openEpoch) {
	rest := copy(e.future[:], e.future[r.epoch-e.current.epoch:])
	clear(e.future[rest:])
	e.retiring, e.current = e.current, r
	e.raise(r.epoch)
}

// relieve begins a new epoch when r's has had enough, so that the peer will follow. It waits for that: while we are
// ahead already, there is nothing more to do.
func (e *epochs) relieve(r *openEpoch) {
	if r.failed < failLimit/2 && (!e.gcm || r.worn <= wornOut) {
		return
	}
	if e.sending.Load().epoch == r.epoch {
		e.raise(r.epoch + 1)
	}
}

func (e *epochs) nearEnd() bool   { return e.sending.Load().epoch >= nearLastEpoch }
func (e *epochs) highest() uint64 { return e.current.window.highest }

func (e *epochs) expire(id uint64) {
	e.current.window.expire(id)
	switch {
	case e.retiring == nil:
	case id>>counterBits > uint64(e.retiring.epoch):
		e.retiring = nil
	default:
		e.retiring.window.expire(id)
	}
}
