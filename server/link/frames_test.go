package link

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// cutAll feeds a stream in pieces of the lengths that pick gives, and returns the packets before the first error.
func cutAll(t testing.TB, stream []byte, limit int, pick func(left int) int) (packets [][]byte, bad bool) {
	t.Helper()
	var f frames
	for {
		for {
			p, err := f.next(limit)
			if err != nil {
				return packets, true
			}
			if p == nil {
				break
			}
			if cap(p) < len(p)+Slack {
				t.Fatalf("packet of %d bytes has capacity %d", len(p), cap(p))
			}
			packets = append(packets, bytes.Clone(p))
		}
		if len(stream) == 0 {
			return packets, false
		}
		room := f.space()
		if len(room) == 0 {
			t.Fatalf("no room to read, with %d bytes at hand", f.w-f.r)
		}
		if len(f.buf) > hugeBuf {
			t.Fatalf("the buffer has grown to %d", len(f.buf))
		}
		n := copy(room[:min(len(room), pick(len(stream)))], stream)
		stream = stream[n:]
		f.filled(n)
	}
}

// expected is what a stream holds, said in the simplest way.
func expected(stream []byte, limit int) (packets [][]byte, bad bool) {
	for len(stream) >= 2 {
		n := int(binary.BigEndian.Uint16(stream))
		if n == 0 || n > limit {
			return packets, true
		}
		if len(stream) < 2+n {
			break
		}
		packets = append(packets, stream[2:2+n])
		stream = stream[2+n:]
	}
	return packets, false
}

func samePackets(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// A length of zero or above the limit ends the stream, and the packets before it still count (S014).
func TestFrames(t *testing.T) {
	one, long := []byte{0xaa}, bytes.Repeat([]byte{0xbb}, 300)
	tests := []struct {
		name   string
		stream []byte
		limit  int
		want   [][]byte
		bad    bool
	}{
		{"nothing", nil, 2048, nil, false},
		{"one byte of a length", []byte{0}, 2048, nil, false},
		{"smallest packet", []byte{0, 1, 0xaa}, 2048, [][]byte{one}, false},
		{"two packets", appendFrame(appendFrame(nil, one), long), 2048, [][]byte{one, long}, false},
		{"packet and a half", appendFrame(appendFrame(nil, one), long)[:200], 2048, [][]byte{one}, false},
		{"at the limit", appendFrame(nil, long), 300, [][]byte{long}, false},
		{"above the limit", appendFrame(nil, long), 299, nil, true},
		{"above the limit, only the length", []byte{1, 44}, 299, nil, true},
		{"zero length", []byte{0, 0}, 2048, nil, true},
		{"zero length behind a packet", []byte{0, 1, 0xaa, 0, 0}, 2048, [][]byte{one}, true},
		{"largest length", []byte{0xff, 0xff}, 65534, nil, true},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), 2048, nil, true},
	}
	for _, tt := range tests {
		// Split in two at every byte, and byte by byte.
		for at := range len(tt.stream) + 1 {
			got, bad := cutAll(t, tt.stream, tt.limit, func(left int) int {
				if left > at {
					return max(1, left-at)
				}
				return left
			})
			if !samePackets(got, tt.want) || bad != tt.bad {
				t.Errorf("%s, split %d before its end: %d packets, bad %v; want %d, %v",
					tt.name, at, len(got), bad, len(tt.want), tt.bad)
			}
		}
		if got, bad := cutAll(t, tt.stream, tt.limit, func(int) int { return 1 }); !samePackets(got, tt.want) || bad != tt.bad {
			t.Errorf("%s, byte by byte: %d packets, bad %v; want %d, %v", tt.name, len(got), bad, len(tt.want), tt.bad)
		}
	}
}

// Frames of every size come whole out of reads of every size, the largest through a buffer that stays fixed.
func TestFramesLarge(t *testing.T) {
	var stream []byte
	r := rand.New(rand.NewPCG(1, 2))
	source := rand.NewChaCha8([32]byte{})
	for _, n := range []int{65535, 1, 1400, 1400, 65535, 65534, 2048, 4094, 4095, 4096, 65533, 7} {
		packet := make([]byte, n)
		source.Read(packet)
		stream = appendFrame(stream, packet)
	}
	for len(stream) < 2<<20 {
		packet := make([]byte, 1+r.IntN(1500))
		source.Read(packet)
		stream = appendFrame(stream, packet)
	}
	want, _ := expected(stream, maxPacket)
	for name, pick := range map[string]func(int) int{
		"as much as fits": func(left int) int { return left },
		"at random":       func(int) int { return 1 + r.IntN(10000) },
		"segments":        func(int) int { return 1448 },
	} {
		if got, bad := cutAll(t, stream, maxPacket, pick); !samePackets(got, want) || bad {
			t.Errorf("%s: %d packets of %d, or other contents; bad %v", name, len(got), len(want), bad)
		}
	}
}

// The buffer grows while a stream is busy, and an idle stream gives it back.
func TestFramesBufferSize(t *testing.T) {
	var f frames
	bulk := bytes.Repeat(appendFrame(nil, make([]byte, 1400)), 200)
	read := func(b []byte) []byte {
		n := copy(f.space(), b)
		f.filled(n)
		for p, err := f.next(maxPacket); p != nil || err != nil; p, err = f.next(maxPacket) {
			if err != nil {
				t.Fatal(err)
			}
		}
		return b[n:]
	}
	ping := appendFrame(nil, make([]byte, 40))
	read(ping)
	if len(f.buf) != smallBuf {
		t.Errorf("a new stream has a buffer of %d, want %d", len(f.buf), smallBuf)
	}
	for rest := bulk; len(rest) > 0; {
		rest = read(rest)
	}
	if len(f.buf) != bulkBuf {
		t.Errorf("a busy stream has a buffer of %d, want %d", len(f.buf), bulkBuf)
	}
	for range 8 * calm {
		read(ping)
	}
	if len(f.buf) != smallBuf {
		t.Errorf("after a while of pings the buffer is %d, want %d", len(f.buf), smallBuf)
	}
}

// However a stream is cut into reads, its packets are those that the plainest reading finds.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{}, uint16(2048), uint16(0), uint64(0))
	f.Add([]byte{0, 1, 0xaa, 0, 2, 1, 2}, uint16(2048), uint16(0), uint64(1))
	f.Add([]byte{0, 0}, uint16(2048), uint16(0), uint64(2))
	f.Add([]byte{0xff, 0xff, 1}, uint16(65535), uint16(40000), uint64(3))
	f.Add([]byte{0x20, 0x00}, uint16(65535), uint16(0x1001), uint64(4))
	f.Add([]byte{0, 1, 0}, uint16(1), uint16(2000), uint64(5))
	// The stream is the input many times over: so a small input makes a large one.
	f.Fuzz(func(t *testing.T, input []byte, limit, times uint16, seed uint64) {
		stream := bytes.Repeat(input, min(1+int(times), 1+200_000/(1+len(input))))
		r := rand.New(rand.NewPCG(seed, 0))
		most := 1 + r.IntN(1<<r.IntN(18))
		got, bad := cutAll(t, stream, int(limit), func(int) int { return 1 + r.IntN(most) })
		want, wantBad := expected(stream, int(limit))
		if !samePackets(got, want) || bad != wantBad {
			t.Fatalf("%d packets, bad %v; want %d, %v", len(got), bad, len(want), wantBad)
		}
		var again []byte
		for _, p := range got {
			again = appendFrame(again, p)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Fatal("the packets put into frames again are not the stream they came from")
		}
	})
}
