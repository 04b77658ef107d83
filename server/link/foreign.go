package link

import (
	"encoding/binary"
	"net"
	"time"
)

// Foreign waits until it can be told whether what the connection brings is OpenVPN's, and reports whether it is not. It
// counts towards the time for the first packet. One goroutine, before Receive.
func (s *Stream) Foreign() (bool, error) {
	for {
		if foreign, known := foreignStart(s.in.peek()); known {
			return foreign, nil
		}
		if err := s.more(); err != nil {
			return false, err
		}
	}
}

// foreignStart judges the first bytes of a connection. OpenVPN begins with a frame that holds a hard reset under key id
// 0: of version 2, 14 to 255 bytes long, or of version 3, with a wrapped key, 336 to 1278.
func foreignStart(b []byte) (foreign, known bool) {
	const resetV2, resetV3 = 7 << 3, 10 << 3
	if len(b) < frameHead {
		// The first byte tells of all but short and middling frames, which both begin below 5.
		return len(b) == 1 && b[0] > 1278>>8, len(b) == 1 && b[0] > 1278>>8
	}
	n := int(binary.BigEndian.Uint16(b))
	v2, v3 := 14 <= n && n <= 255, 336 <= n && n <= 1278
	switch {
	case !v2 && !v3:
		return true, true
	case len(b) == frameHead:
		return false, false
	}
	return !(v2 && b[frameHead] == resetV2 || v3 && b[frameHead] == resetV3), true
}

// Detach gives the connection away, with what has been read of it. The stream still closes it, and does nothing else any
// more. One goroutine, instead of Receive.
func (s *Stream) Detach() (conn net.Conn, read []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.out.closing {
		s.conn.SetReadDeadline(time.Time{})
	}
	read = s.in.peek()
	s.in = frames{}
	return s.conn, read
}
