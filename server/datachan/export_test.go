package datachan

import "crypto/aes"

// The limits of a key are out of a test's reach, so a test starts close to them.

func (k *Key) series() *series {
	if c, ok := k.format.(*cbc); ok {
		return &c.series
	}
	return &k.format.(*aead).series
}

func (k *Key) SetReserved(id uint64) { k.series().out.taken.Store(id) }

func (k *Key) SetFailed(n uint64) {
	if e, ok := k.format.(*epochs); ok {
		e.current.failed = n
		return
	}
	k.series().in.failed = n
}
func (k *Key) SetOpened(packets, bytes uint64) {
	k.series().in.worn = wear(int(packets), int(bytes))
}

// SetIV makes a CBC key seal with this IV for ever.
func (k *Key) SetIV(iv []byte) { k.format.(*cbc).ivs = fixedIV(iv) }

type fixedIV [aes.BlockSize]byte

func (v fixedIV) BlockSize() int          { return aes.BlockSize }
func (v fixedIV) Encrypt(dst, src []byte) { copy(dst, v[:]) }
func (v fixedIV) Decrypt(dst, src []byte) { panic("not for IVs") }

// Of keys in the epoch format.

const (
	WornOut   = wornOut
	FailLimit = failLimit
)

func (k *Key) epochs() *epochs { return k.format.(*epochs) }

func (k *Key) SendEpoch() uint32      { return k.epochs().sending.Load().epoch }
func (k *Key) ReceiveEpoch() uint32   { return k.epochs().current.epoch }
func (k *Key) RaiseTo(epoch uint32)   { k.epochs().raise(epoch) }
func (k *Key) SetSealedWear(n uint64) { k.epochs().sending.Load().worn.Store(n) }
func (k *Key) SetOpenedWear(n uint64) { k.epochs().current.worn = n }
func (k *Key) SetCounter(n uint64)    { k.epochs().sending.Load().taken.Store(n) }
func (k *Key) SetReceiveEpoch(epoch uint32) {
	e := k.epochs()
	e.current = &openEpoch{epochKey: e.opens.key(epoch)}
	e.current.begin(e.window)
	clear(e.future[:])
}

// FutureKeys is how many keys of future epochs are held.
func (k *Key) FutureKeys() (n int) {
	for _, f := range k.epochs().future {
		if f != nil {
			n++
		}
	}
	return n
}

func ExpandLabel(secret []byte, label string, n int) []byte { return expandLabel(secret, label, n) }
