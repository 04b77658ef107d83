package datachan

// A Framing is what is around every payload of a client with a compression directive. All of these say "this is not
// compressed", and that is all we ever say (S079). Both ends must agree on it, by push or configuration; it cannot be
// told from the bytes.
//
//	NoFraming  payload
//	Stub       fa payload
//	StubSwap   fb payload[1:] payload[0]
//	StubV2     payload, but 50 00 payload when it starts with 50
type Framing uint8

const (
	NoFraming Framing = iota
	Stub
	StubSwap
	StubV2
)

const (
	stubByte = 0xfa
	swapByte = 0xfb
	v2Byte   = 0x50 // the next byte says how it is compressed
	v2Plain  = 0x00
)

// String returns the directive that makes a client use the framing, "none" for none.
func (f Framing) String() string {
	switch f {
	case Stub:
		return "comp-lzo no"
	case StubSwap:
		return "compress stub"
	case StubV2:
		return "compress stub-v2"
	}
	return "none"
}

// headLen is how far the payload lies behind the start of its frame.
func (f Framing) headLen() int {
	if f == Stub {
		return 1
	}
	return 0
}

// tailLen is how far a frame may go on behind its payload.
func (f Framing) tailLen() int {
	switch f {
	case StubSwap:
		return 1
	case StubV2:
		return 2 // a payload that needs the escape, which no IP packet does, is moved
	}
	return 0
}

// cost is how much longer than its payload a frame is.
func (f Framing) cost() int {
	if f == Stub || f == StubSwap {
		return 1
	}
	return 0
}

// add returns the frame of payload, which lies at room[headLen:] or does not overlap room. The frame is at the start
// of room, or payload itself. Nothing is put around an empty payload: it is ignored by everyone.
func (f Framing) add(room, payload []byte) (frame []byte) {
	n := len(payload)
	if n == 0 {
		return payload
	}
	switch f {
	case Stub:
		frame = room[:1+n]
		copy(frame[1:], payload)
		frame[0] = stubByte
	case StubSwap:
		frame = room[:n+1]
		copy(frame, payload)
		frame[n] = frame[0]
		frame[0] = swapByte
	case StubV2:
		if payload[0] != v2Byte {
			return payload
		}
		frame = room[:2+n]
		copy(frame[2:], payload)
		frame[0], frame[1] = v2Byte, v2Plain
	default:
		return payload
	}
	return frame
}

// strip returns the payload in frame, put in order in place.
func (f Framing) strip(frame []byte) (payload []byte, err error) {
	n := len(frame)
	switch f {
	case Stub:
		if n > 0 && frame[0] == stubByte {
			return frame[1:], nil
		}
	case StubSwap:
		if n > 0 && frame[0] == swapByte {
			frame[0] = frame[n-1]
			return frame[:n-1], nil
		}
	case StubV2:
		if n == 0 || frame[0] != v2Byte {
			return frame, nil
		}
		if n > 1 && frame[1] == v2Plain {
			return frame[2:], nil
		}
	default:
		return frame, nil
	}
	return nil, ErrCompressed
}
