package link

import (
	"encoding/binary"
	"fmt"
)

// A frame is how a packet travels in a stream:
//
//	| length, 2 bytes, big endian | packet, length bytes |
//
// A length of 0 or above the limit means that the stream can no longer be trusted.
const (
	frameHead = 2
	maxPacket = 1<<16 - 1

	smallBuf = 256       // what an idle stream holds: a few pings
	bulkBuf  = 64 << 10  // what a busy one reads at a time
	hugeBuf  = 128 << 10 // only for frames that bulkBuf cannot hold
	calm     = 4         // reads in a row that an eighth of the buffer would have done for, until it shrinks to what they took
)

// frames cuts what is read from a stream into packets. Its buffer grows while reads fill it and shrinks again.
type frames struct {
	buf   []byte // Slack more in its capacity
	r, w  int    // buf[r:w] is read but not yet cut
	quiet int    // reads in a row that were small
	most  int    // the most that was at hand after one of those
	full  bool   // the last read left no room
}

// space is where the next bytes of the stream go. All packets that next returned are invalid after it.
func (f *frames) space() []byte {
	size := max(len(f.buf), smallBuf)
	switch {
	case f.full:
		size = max(size, min(2*size, bulkBuf))
	case f.quiet >= calm && size > smallBuf:
		for size = smallBuf; size <= f.most; {
			size *= 2
		}
		f.quiet, f.most = 0, 0
	}
	if need := f.need(); need > bulkBuf {
		size = hugeBuf
	} else {
		for size < need || size < f.w-f.r {
			size *= 2
		}
	}
	rest := f.buf[f.r:f.w]
	if size != len(f.buf) {
		f.buf = make([]byte, size, size+Slack)
		f.w = copy(f.buf, rest)
	} else if f.r > 0 {
		f.w = copy(f.buf, rest)
	}
	f.r = 0
	return f.buf[f.w:]
}

// need is how many bytes the frame at hand takes, as far as is known.
func (f *frames) need() int {
	if f.w-f.r < frameHead {
		return frameHead
	}
	return frameHead + int(binary.BigEndian.Uint16(f.buf[f.r:]))
}

// filled says that n bytes have been put into space.
func (f *frames) filled(n int) {
	f.w += n
	f.full = f.w == len(f.buf)
	if f.w > len(f.buf)/8 {
		f.quiet, f.most = 0, 0
	} else {
		f.quiet++
		f.most = max(f.most, f.w)
	}
}

// next cuts off the next packet, nil when it is not complete yet. The packet stays valid until space is called.
func (f *frames) next(limit int) ([]byte, error) {
	if f.w-f.r < frameHead {
		return nil, nil
	}
	n := f.need() - frameHead
	if n == 0 || n > limit {
		return nil, fmt.Errorf("frame of %d bytes, limit %d", n, limit)
	}
	if f.w-f.r < frameHead+n {
		return nil, nil
	}
	at := f.r + frameHead
	f.r = at + n
	return f.buf[at : at+n : at+n+Slack], nil
}

// peek is what is read but not yet cut; skip leaves n bytes of it out.
func (f *frames) peek() []byte { return f.buf[f.r:f.w] }
func (f *frames) skip(n int)   { f.r += n }

// appendFrame appends the packet with its length before it.
func appendFrame(b, packet []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(packet)))
	return append(b, packet...)
}
