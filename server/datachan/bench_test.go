package datachan_test

import (
	"testing"

	"postern/server/datachan"
)

const (
	perTurn     = 64 // packets that the benchmarks seal or open in a turn
	payloadSize = 1400
	room        = payloadSize + datachan.Room + 16
)

// perPacket reports what one of the packets of a turn cost, in place of the turn.
func perPacket(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perTurn), "ns/packet")
	b.ReportMetric(0, "ns/op")
}

// ciphers are one of each kind, what is old first.
var ciphers = []struct {
	by string
	c  datachan.Config
}{
	{"AES-256-CBC-SHA256", datachan.Config{Cipher: "AES-256-CBC", Digest: "SHA256", V2: true}},
	{"CHACHA20-POLY1305", datachan.Config{Cipher: "CHACHA20-POLY1305", V2: true}},
	{"AES-256-GCM", gcm},
	{"AES-128-GCM", datachan.Config{Cipher: "AES-128-GCM", V2: true}},
}

var gcm = datachan.Config{Cipher: "AES-256-GCM", V2: true}

// sealTurns seals packets into one arena, each behind the one before it, in turns of perTurn.
func sealTurns(b *testing.B, c datachan.Config, seal func(k *datachan.Key, arena, payload []byte, id uint64, s *datachan.Scratch) int) {
	client, _ := ends(b, c)
	var s datachan.Scratch
	payload, arena := make([]byte, payloadSize), make([]byte, perTurn*room)
	b.SetBytes(perTurn * payloadSize)
	b.ReportAllocs()
	for b.Loop() {
		first, ok := client.Reserve(perTurn)
		if !ok {
			b.Fatal("no packet ids")
		}
		at := 0
		for i := range uint64(perTurn) {
			at += seal(client, arena[at:], payload, first+i, &s)
		}
	}
	perPacket(b)
}

// openTurns opens packets that lie in one buffer, in turns of perTurn. That they are sealed is not in it.
func openTurns(b *testing.B, c datachan.Config, open func(k *datachan.Key, packet []byte, s *datachan.Scratch) error) {
	client, server := ends(b, c)
	var s datachan.Scratch
	payload, train := make([]byte, payloadSize), make([]byte, perTurn*room)
	b.SetBytes(perTurn * payloadSize)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		first, _ := client.Reserve(perTurn)
		size, at := 0, 0
		for i := range uint64(perTurn) {
			size = client.Seal(train[at:], payload, first+i, &s)
			at += size
		}
		b.StartTimer()
		server.Lock()
		for rest := train[:at]; len(rest) > 0; rest = rest[size:] {
			if err := open(server, rest[:size], &s); err != nil {
				b.Fatal(err)
			}
		}
		server.Unlock()
	}
	perPacket(b)
}

func BenchmarkSeal(b *testing.B) {
	for _, cipher := range ciphers {
		b.Run("by="+cipher.by, func(b *testing.B) {
			sealTurns(b, cipher.c, (*datachan.Key).Seal)
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, cipher := range ciphers {
		b.Run("by="+cipher.by, func(b *testing.B) {
			openTurns(b, cipher.c, func(k *datachan.Key, packet []byte, s *datachan.Scratch) error {
				_, _, err := k.Open(packet, s)
				return err
			})
		})
	}
}

// BenchmarkTag seals and opens where packets lie, the tag moved within borrowed room; by way of a buffer, which is what
// takes its place; and of a new one for each packet.
func BenchmarkTag(b *testing.B) {
	buffer := make([]byte, room)
	for _, way := range []struct {
		by     string
		buffer func() []byte
	}{
		{"allocated", func() []byte { return make([]byte, room) }},
		{"copied", func() []byte { return buffer }},
	} {
		b.Run("of=seal/by="+way.by, func(b *testing.B) {
			sealTurns(b, gcm, func(k *datachan.Key, arena, payload []byte, id uint64, s *datachan.Scratch) int {
				own := way.buffer()
				return copy(arena, own[:k.Seal(own, payload, id, s)])
			})
		})
		b.Run("of=open/by="+way.by, func(b *testing.B) {
			openTurns(b, gcm, func(k *datachan.Key, packet []byte, s *datachan.Scratch) error {
				own := way.buffer()
				_, _, err := k.Open(own[:copy(own, packet)], s)
				return err
			})
		})
	}
	b.Run("of=seal/by=in-place", func(b *testing.B) { sealTurns(b, gcm, (*datachan.Key).Seal) })
	b.Run("of=open/by=in-place", func(b *testing.B) {
		openTurns(b, gcm, func(k *datachan.Key, packet []byte, s *datachan.Scratch) error {
			_, _, err := k.Open(packet, s)
			return err
		})
	})
}
