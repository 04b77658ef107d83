package datachan

// The limits of a key are out of a test's reach, so a test starts close to them.

func (k *Key) series() *series {
	if c, ok := k.format.(*cbc); ok {
		return &c.series
	}
	return &k.format.(*aead).series
}

func (k *Key) SetReserved(id uint64)           { k.series().out.taken.Store(id) }
func (k *Key) SetFailed(n uint64)              { k.series().in.failed = n }
func (k *Key) SetOpened(packets, bytes uint64) { k.series().in.worn = wear(int(packets), int(bytes)) }
