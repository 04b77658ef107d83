package tlsctl

// plainWrap is no wrap at all.
type plainWrap struct {
	acks [MaxAcks]PacketID
}

func (w *plainWrap) seal(dst []byte, p *Packet) []byte { return p.AppendTo(dst) }

func (w *plainWrap) open(b []byte) (Packet, error) {
	if len(b) < headLen || carriesWKC(b) {
		return Packet{}, errPacket
	}
	p := parseHead(b)
	if err := p.parseBody(b[headLen:], &w.acks); err != nil {
		return Packet{}, err
	}
	return p, nil
}

func (w *plainWrap) overhead() int     { return 0 }
func (w *plainWrap) staticKey() []byte { return nil }
