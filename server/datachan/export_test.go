package datachan

// The limits of a key are out of a test's reach, so a test starts close to them.

func (k *Key) SetReserved(id uint64) { k.next.Store(id) }
func (k *Key) SetFailed(n uint64)    { k.failed = n }
func (k *Key) SetOpened(packets, bytes uint64) {
	k.opened.packets, k.opened.bytes = packets, bytes
}
