package server

import (
	"bytes"
	"testing"
	"time"

	"postern/server/datachan"
)

// A client's mtu-test is answered: with packets of the sizes that it asks for, and with what came of them; not more than
// some in a second, and not over TCP, where there is nothing to measure.
func TestMTUTest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		magic := datachan.AppendExit(nil)[:16:16]
		ask := func(size int) []byte { return append(magic, 2, byte(size>>8), byte(size)) }
		const around = 24 // of AES-GCM with a peer id
		for want, size := range map[int]int{1500 - around: 1500, 600 - around: 600, 17: 3, maxLoad - around: 60000} {
			alice.send(ask(size))
			got := alice.got()
			if len(got) != 1 || datachan.Classify(got[0]) != datachan.MTULoad || len(got[0]) != want {
				t.Errorf("asked for a packet of %d bytes: %d answers, %d bytes inside the first, want %d", size, len(got), len(bytes.Join(got, nil)), want)
			}
		}
		alice.send(datachan.AppendMTULoad(nil, 1400-around))
		alice.send(datachan.AppendMTULoad(nil, 1000-around))
		expect(t, "to loads", alice.got())
		alice.send(append(magic, 4))
		expect(t, "to what came of it", alice.got(), datachan.AppendMTUReply(nil, 1400, maxLoad))
		expect(t, "to the device", w.written())

		time.Sleep(time.Second)
		for range 3 * errorsPerSecond {
			alice.send(ask(1000))
		}
		if n := len(alice.got()); n < errorsPerSecond || n > 2*errorsPerSecond {
			t.Errorf("%d answers in a moment", n)
		}
		bob := w.streamPeer("bob", otherAddr).connect()
		bob.send(ask(1000))
		time.Sleep(time.Second)
		expect(t, "over TCP", bob.got())
		bob.mustReach()
	})
}
