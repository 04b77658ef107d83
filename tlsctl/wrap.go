package tlsctl

// Wrapping is how a server's control packets are protected. At most one of Auth and Crypt is set; CryptV2 may
// stand beside either or alone. All nil: no wrap.
type Wrapping struct {
	Auth    *AuthKey
	Crypt   *CryptKey
	CryptV2 *ServerKey
}

// A wrapper is one session's wrap: keys and replay state of both directions. Its user serialises calls.
type wrapper interface {
	// seal appends p, wrapped with a fresh replay id, to dst.
	seal(dst []byte, p *Packet) []byte
	// open checks and unwraps b, which it may overwrite; the packet's slices point into b. It returns errReplay
	// for an authentic packet whose replay id was seen before.
	open(b []byte) (Packet, error)
	// overhead is how many bytes the wrap adds to a packet.
	overhead() int
}
