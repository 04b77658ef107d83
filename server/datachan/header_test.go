package datachan_test

import (
	"bytes"
	"testing"

	"postern/server/datachan"
)

func TestParseHeader(t *testing.T) {
	const none = datachan.NoPeer
	for _, c := range []struct {
		name, packet string
		want         datachan.Header
		ok           bool
	}{
		{"empty", "", datachan.Header{}, false},
		{"V1 key 0", "\x30", datachan.Header{Op: 6, Key: 0, Peer: none, Len: 1}, true},
		{"V1 key 7", "\x37\x01\x02\x03", datachan.Header{Op: 6, Key: 7, Peer: none, Len: 1}, true},
		{"V2 key 0", "\x48\x00\x00\x00", datachan.Header{Op: 9, Key: 0, Peer: 0, Len: 4}, true},
		{"V2 key 5", "\x4d\x0a\x0b\x0c\xff", datachan.Header{Op: 9, Key: 5, Peer: 0x0a0b0c, Len: 4}, true},
		{"V2 without peer", "\x4f\xff\xff\xff", datachan.Header{Op: 9, Key: 7, Peer: none, Len: 4}, true},
		{"V2 cut short", "\x48\x00\x00", datachan.Header{}, false},
		{"control", "\x20\x00\x00\x00\x00", datachan.Header{}, false},
		{"hard reset", "\x38\x00\x00\x00\x00", datachan.Header{}, false},
		{"opcode 31", "\xff\xff\xff\xff\xff", datachan.Header{}, false},
	} {
		if got, ok := datachan.ParseHeader([]byte(c.packet)); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %t, want %+v, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{"", "\x30", "\x48\x01\x02\x03", "\x48\x01\x02", "\x4f\xff\xff\xff\x00", "\x38"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := datachan.ParseHeader(b)
		if !ok {
			return
		}
		if got := h.AppendTo(nil); len(got) != h.Len || !bytes.Equal(got, b[:h.Len]) {
			t.Errorf("%x parsed to %+v, which is written %x", b, h, got)
		}
	})
}
