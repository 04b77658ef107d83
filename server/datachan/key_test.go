package datachan_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"postern/server/datachan"
)

// configs has each format, each of its ciphers or digests, and each framing.
var configs = []datachan.Config{
	{Cipher: "AES-128-GCM", V2: true},
	{Cipher: "AES-192-GCM", V2: true},
	{Cipher: "AES-256-GCM", V2: true},
	{Cipher: "AES-256-GCM"},
	{Cipher: "CHACHA20-POLY1305", V2: true},
	{Cipher: "AES-256-GCM", V2: true, Framing: datachan.Stub},
	{Cipher: "AES-256-GCM", V2: true, Framing: datachan.StubSwap},
	{Cipher: "AES-256-GCM", V2: true, Framing: datachan.StubV2},
	{Cipher: "AES-128-CBC", Digest: "SHA1", V2: true},
	{Cipher: "AES-192-CBC", Digest: "SHA224", V2: true},
	{Cipher: "AES-256-CBC", Digest: "SHA256", V2: true},
	{Cipher: "AES-256-CBC", Digest: "SHA384"},
	{Cipher: "AES-256-CBC", Digest: "SHA512", V2: true},
	{Cipher: "AES-256-CBC", Digest: "SHA1", Framing: datachan.Stub},
	{Cipher: "AES-128-CBC", Digest: "SHA512", V2: true, Framing: datachan.StubSwap},
	{Cipher: "AES-128-CBC", Digest: "SHA512", V2: true, Framing: datachan.StubV2},
	{Cipher: "AES-128-GCM", V2: true, Epoch: true},
	{Cipher: "CHACHA20-POLY1305", V2: true, Epoch: true},
	{Cipher: "AES-256-GCM", V2: true, Epoch: true, Framing: datachan.Stub},
	{Cipher: "AES-256-GCM", V2: true, Epoch: true, Framing: datachan.StubSwap},
	{Cipher: "AES-256-GCM", V2: true, Epoch: true, Framing: datachan.StubV2},
}

func describe(c datachan.Config) string {
	return fmt.Sprintf("%s %s v2=%t epoch=%t %v", c.Cipher, c.Digest, c.V2, c.Epoch, c.Framing)
}

// ends returns both ends of a key that peer 5 speaks.
func ends(tb testing.TB, c datachan.Config) (client, server *datachan.Key) {
	tb.Helper()
	c.ID, c.Peer = 1, 5
	client, err := c.NewKey(slots(1), slots(2))
	if err != nil {
		tb.Fatal(err)
	}
	server, err = c.NewKey(slots(2), slots(1))
	if err != nil {
		tb.Fatal(err)
	}
	return client, server
}

// slots returns key material that differs for every seed.
func slots(seed byte) []byte {
	m := make([]byte, 128)
	rand.NewChaCha8([32]byte{seed}).Read(m)
	return m
}

// pair returns both ends of a key that speaks P_DATA_V2 as peer 5.
func pair(tb testing.TB, cipher string, window int) (client, server *datachan.Key) {
	return newKey(tb, 1, cipher, 5, true, slots(1), slots(2), window),
		newKey(tb, 1, cipher, 5, true, slots(2), slots(1), window)
}

func TestNewKeyRefuses(t *testing.T) {
	for _, c := range []struct {
		name                 string
		id                   datachan.KeyID
		cipher               string
		peer                 datachan.PeerID
		toClient, fromClient int
	}{
		{"key id 8", 8, "AES-256-GCM", 0, 128, 128},
		{"peer id of 25 bits", 0, "AES-256-GCM", 1 << 24, 128, 128},
		{"no cipher", 0, "none", 0, 128, 128}, // S072
		{"64-bit block cipher", 0, "BF-CBC", 0, 128, 128},
		{"no material", 0, "AES-256-GCM", 0, 0, 0},
		{"half the material", 0, "AES-256-GCM", 0, 64, 64},
		{"one direction short", 0, "AES-256-GCM", 0, 128, 127},
	} {
		_, err := datachan.NewKey(c.id, c.cipher, c.peer, true, make([]byte, c.toClient), make([]byte, c.fromClient), 0)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
	for _, c := range []datachan.Config{
		{Cipher: "AES-256-CBC", V2: true},
		{Cipher: "AES-256-CBC", V2: true, Digest: "none"}, // S072
		{Cipher: "AES-256-CBC", V2: true, Digest: "MD5"},
		{Cipher: "AES-256-CBC", V2: true, Digest: "SHA256", Epoch: true},
		{Cipher: "AES-256-GCM", Epoch: true},
		{Cipher: "BF-CBC", V2: true, Digest: "SHA1"},
		{Cipher: "DES-EDE3-CBC", V2: true, Digest: "SHA1"},
		{Cipher: "none", V2: true, Epoch: true},
		{Cipher: "AES-256-GCM", V2: true, Framing: datachan.StubV2 + 1},
		{V2: true},
	} {
		if _, err := c.NewKey(slots(1), slots(2)); err == nil {
			t.Errorf("%s: accepted", describe(c))
		}
	}
	for _, c := range []datachan.Config{
		{Cipher: "chacha20-Poly1305"},
		{Cipher: "aes-128-cbc", Digest: "sha256"},
		{Cipher: "AES-128-gcm", Digest: "whatever"}, // of no effect
		{Cipher: "chacha20-Poly1305", V2: true, Epoch: true},
	} {
		if _, err := c.NewKey(slots(1), slots(2)); err != nil {
			t.Errorf("%s: %v", describe(c), err)
		}
	}
}

// A train is sealed back to back, each packet over what the one before left behind it, and opened the same way,
// each packet borrowing from the one behind it. No packet gets more room than it asks for.
func TestTrain(t *testing.T) {
	for _, c := range configs {
		t.Run(describe(c), func(t *testing.T) {
			client, server := ends(t, c)
			head, tail := server.HeadLen(), server.TailLen()
			if head+tail > datachan.Room {
				t.Errorf("head %d and tail %d, together more than %d", head, tail, datachan.Room)
			}
			var want [][]byte
			for _, letter := range []string{"a", "b", "c", "P", "\xfa", "\xfb"} { // P is what StubV2 escapes
				want = append(want, bytes.Repeat([]byte(letter), 1400), []byte(letter+"z"))
			}
			for n := range 33 { // every length of padding, twice
				want = append(want, bytes.Repeat([]byte{byte(n)}, n+1))
			}
			arena := make([]byte, 1<<16)
			var s datachan.Scratch
			end := 0
			var sizes []int
			for i := range want {
				id, ok := server.Reserve(1)
				if !ok {
					t.Fatal("no packet id")
				}
				payload := bytes.Clone(want[i])
				room := head + len(payload) + tail
				dst := arena[end : end : end+room]
				if i%2 == 0 { // in place
					at := dst[:room][head:]
					payload = at[:copy(at, payload)]
				}
				n := server.Seal(dst, payload, id, &s)
				if n > room {
					t.Fatalf("%d bytes in room for %d", n, room)
				}
				if i%2 == 1 && !bytes.Equal(payload, want[i]) {
					t.Errorf("payload %d was written to", i)
				}
				sizes = append(sizes, n)
				end += n
			}
			client.Lock()
			defer client.Unlock()
			train := arena[:end]
			for i, n := range sizes {
				payload, id, err := client.Open(train[:n], &s)
				if err != nil || id&(1<<48-1) != uint64(i+1) || !bytes.Equal(payload, want[i]) {
					t.Fatalf("packet %d: %.10q under id %d, error %v", i, payload, id, err)
				}
				train = train[n:]
			}
		})
	}
}

// What a payload costs, by format (data channel, section 12).
func TestHeadAndTail(t *testing.T) {
	for _, c := range []struct {
		config     datachan.Config
		head, tail int
	}{
		{datachan.Config{Cipher: "AES-256-GCM", V2: true}, 24, 16},
		{datachan.Config{Cipher: "AES-256-GCM"}, 21, 16},
		{datachan.Config{Cipher: "AES-256-GCM", V2: true, Framing: datachan.Stub}, 25, 16},
		{datachan.Config{Cipher: "AES-256-GCM", V2: true, Framing: datachan.StubSwap}, 24, 17},
		{datachan.Config{Cipher: "AES-256-GCM", V2: true, Framing: datachan.StubV2}, 24, 18},
		{datachan.Config{Cipher: "AES-256-GCM", V2: true, Epoch: true}, 12, 16},
		{datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA1", V2: true}, 4 + 20 + 16 + 4, 16},
		{datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA512"}, 1 + 64 + 16 + 4, 16},
	} {
		k, _ := ends(t, c.config)
		if k.HeadLen() != c.head || k.TailLen() != c.tail {
			t.Errorf("%s: head %d, tail %d, want %d, %d", describe(c.config), k.HeadLen(), k.TailLen(), c.head, c.tail)
		}
	}
}

// What fits, fits, and a byte more does not.
func TestFit(t *testing.T) {
	for _, c := range configs {
		t.Run(describe(c), func(t *testing.T) {
			k, _ := ends(t, c)
			longest := 0 // payload that has made a packet of size bytes at most
			for size := range 300 {
				for len(seal(k, make([]byte, longest+1), 1)) <= size {
					longest++
				}
				if got := k.Fit(size); got != longest {
					t.Fatalf("%d bytes hold %d, want %d", size, got, longest)
				}
			}
		})
	}
}

// A packet must not be moved to a buffer of its own behind the caller's back.
func TestSealWithoutRoom(t *testing.T) {
	for _, c := range configs {
		t.Run(describe(c), func(t *testing.T) {
			client, _ := ends(t, c)
			defer func() {
				if recover() == nil {
					t.Error("sealed into a buffer without room for the tail")
				}
			}()
			client.Seal(make([]byte, client.HeadLen()+10), make([]byte, 10), 1<<48|1, new(datachan.Scratch))
		})
	}
}

// Whatever is cut off or flipped, in the header, the tag or the body, the packet is refused and the key behaves as
// if it had never come (S076).
func TestForgeriesLeaveNoTrace(t *testing.T) {
	for _, c := range configs {
		t.Run(describe(c), func(t *testing.T) {
			client, server := ends(t, c)
			first, _ := client.Reserve(5)
			good := seal(client, []byte("payload"), first+4)
			for n := range good {
				if _, _, err := open(t, server, good[:n]); err == nil {
					t.Errorf("opened when cut to %d bytes", n)
				}
			}
			for bit := range 8 * len(good) {
				if head, _ := datachan.ParseHeader(good); bit/8 < head.Len && (c.Digest != "" || !c.V2) {
					continue // these formats leave the header alone
				}
				bad := bytes.Clone(good)
				bad[bit/8] ^= 1 << (bit % 8)
				if _, _, err := open(t, server, bad); err == nil {
					t.Errorf("opened with bit %d flipped", bit)
				}
			}
			if packets, bytes := server.Usage(); packets != 0 || bytes != 0 {
				t.Errorf("counted %d packets, %d bytes", packets, bytes)
			}
			server.Lock()
			if got := server.Highest(); got != 0 {
				t.Errorf("the window has moved to %d", got)
			}
			server.Unlock()
			if _, _, err := open(t, server, good); err != nil {
				t.Errorf("the good packet afterwards: %v", err)
			}
			if _, _, err := open(t, server, good); !errors.Is(err, datachan.ErrReplay) {
				t.Errorf("the good packet again: %v, want %v", err, datachan.ErrReplay)
			}
			framed := len("payload")
			if c.Framing == datachan.Stub || c.Framing == datachan.StubSwap {
				framed++
			}
			if packets, bytes := server.Usage(); packets != 1 || bytes != uint64(framed) {
				t.Errorf("counted %d packets, %d bytes, want 1, %d", packets, bytes, framed)
			}
		})
	}
}

// Sixteen senders never get the same id, and the ids are 1 to as many as were asked for (S073).
func TestReserveConcurrently(t *testing.T) {
	const senders, rounds = 16, 500
	client, _ := pair(t, "AES-256-GCM", 0)
	got := make([][]uint64, senders)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for round := range rounds {
				n := round%7 + 1
				first, ok := client.Reserve(n)
				if !ok {
					t.Error("refused")
					return
				}
				for id := first; id < first+uint64(n); id++ {
					got[i] = append(got[i], id)
				}
			}
		})
	}
	wg.Wait()
	taken := map[uint64]bool{}
	var highest uint64
	for _, ids := range got {
		for _, id := range ids {
			if taken[id] {
				t.Fatalf("id %d was given out twice", id)
			}
			taken[id] = true
			highest = max(highest, id)
		}
	}
	if taken[0] || highest != uint64(len(taken)) {
		t.Errorf("%d ids, highest %d, 0 given out: %t", len(taken), highest, taken[0])
	}
}

// The last id is never passed, however often one asks (S073).
func TestReserveAtTheEnd(t *testing.T) {
	const last = 0xffffffef
	client, _ := pair(t, "AES-256-GCM", 0)
	for _, n := range []int{0, -1} {
		if _, ok := client.Reserve(n); ok {
			t.Errorf("reserved %d", n)
		}
	}
	client.SetReserved(last - 3)
	if first, ok := client.Reserve(2); !ok || first != last-2 {
		t.Errorf("reserved %x, %t, want %x", first, ok, last-2)
	}
	if first, ok := client.Reserve(1); !ok || first != last {
		t.Errorf("reserved %x, %t, want %x", first, ok, uint64(last))
	}
	for range 100 {
		if first, ok := client.Reserve(64); ok {
			t.Fatalf("reserved %x beyond the end", first)
		}
	}
	client.SetReserved(last - 3)
	if first, ok := client.Reserve(4); ok {
		t.Errorf("reserved four from %x where three are left", first)
	}
}

func TestNearEnd(t *testing.T) {
	const seven8ths = (1<<36 - 1) / 8 * 7
	for _, c := range []struct {
		name   string
		cipher string
		wear   func(k *datachan.Key)
		want   bool
	}{
		{"new", "AES-256-GCM", func(*datachan.Key) {}, false},
		{"ids below the mark", "AES-256-GCM", func(k *datachan.Key) { k.SetReserved(0xff000000 - 1) }, false},
		{"ids at the mark", "AES-256-GCM", func(k *datachan.Key) { k.SetReserved(0xff000000 - 1); k.Reserve(1) }, true},
		{"ids refused", "AES-256-GCM", func(k *datachan.Key) { k.SetReserved(0xfffffff0); k.Reserve(1) }, true},
		{"GCM blocks below", "AES-128-GCM", func(k *datachan.Key) { k.AddUsage(1, 16*(seven8ths-2)) }, false},
		{"GCM blocks above", "AES-128-GCM", func(k *datachan.Key) { k.AddUsage(1, 16*(seven8ths-1)) }, true},
		{"GCM blocks opened below", "AES-128-GCM", func(k *datachan.Key) { k.SetOpened(1, 16*(seven8ths-2)) }, false},
		{"GCM blocks opened above", "AES-128-GCM", func(k *datachan.Key) { k.SetOpened(1, 16*(seven8ths-1)) }, true},
		{"GCM small packets", "AES-128-GCM", func(k *datachan.Key) { k.SetOpened(seven8ths/2+1, 0) }, true},
		{"ChaCha has no limit", "CHACHA20-POLY1305", func(k *datachan.Key) { k.AddUsage(1, 16*(seven8ths+1)) }, false},
		{"few forgeries", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetFailed(1<<35 - 1) }, false},
		{"many forgeries", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetFailed(1 << 35) }, true},
	} {
		k, _ := pair(t, c.cipher, 0)
		if c.wear(k); k.NearEnd() != c.want {
			t.Errorf("%s: near its end: %t, want %t", c.name, !c.want, c.want)
		}
	}
}

// After too many forgeries not even a good packet is believed.
func TestForgeryLimit(t *testing.T) {
	for _, c := range []datachan.Config{
		{Cipher: "AES-256-GCM", V2: true},
		{Cipher: "AES-256-CBC", Digest: "SHA1", V2: true},
		{Cipher: "AES-256-GCM", V2: true, Epoch: true},
	} {
		client, server := ends(t, c)
		server.SetFailed(datachan.FailLimit - 2)
		packet := func() []byte {
			id, _ := client.Reserve(1)
			return seal(client, []byte("x"), id)
		}
		bad := packet()
		bad[len(bad)-1]++
		opens := func(what string, packet []byte, want error) {
			t.Helper()
			if _, _, err := open(t, server, packet); !errors.Is(err, want) {
				t.Errorf("%s: %s: %v, want %v", describe(c), what, err, want)
			}
		}
		opens("a forgery", bad, datachan.ErrAuth)
		opens("one below the limit", packet(), nil)
		opens("another forgery", bad, datachan.ErrAuth)
		opens("at the limit", packet(), datachan.ErrAuth)
	}
}

// Readers that share a key open each packet of a reordered, duplicated stream exactly once (S075).
func TestOpenConcurrently(t *testing.T) {
	const packets, readers = 1500, 4 // within the window, whatever the order
	client, server := pair(t, "AES-128-GCM", 0)
	opened := make([][]uint64, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			var s datachan.Scratch
			order := rand.New(rand.NewPCG(uint64(i), 0)).Perm(packets)
			dst := make([]byte, 128)
			for _, n := range order {
				packet := dst[:client.Seal(dst, []byte("x"), uint64(n+1), &s)]
				server.Lock()
				_, id, err := server.Open(packet, &s)
				server.Unlock()
				if err == nil {
					opened[i] = append(opened[i], id)
				}
			}
		})
	}
	wg.Wait()
	times := map[uint64]int{}
	for _, ids := range opened {
		for _, id := range ids {
			times[id]++
		}
	}
	for id := uint64(1); id <= packets; id++ {
		if times[id] != 1 {
			t.Errorf("packet %d was opened %d times", id, times[id])
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, c := range configs {
		client, server := ends(t, c)
		var s datachan.Scratch
		payload := bytes.Repeat([]byte{0x50}, 1400)
		buf := make([]byte, 1600)
		if n := testing.AllocsPerRun(100, func() {
			id, _ := client.Reserve(1)
			packet := buf[:client.Seal(buf, payload, id, &s)]
			server.Lock()
			if _, _, err := server.Open(packet, &s); err != nil {
				t.Error(err)
			}
			if _, _, err := server.Open(packet, &s); !errors.Is(err, datachan.ErrAuth) { // spoiled by now
				t.Error(err)
			}
			server.Unlock()
			client.AddUsage(1, len(payload))
		}); n != 0 {
			t.Errorf("%s: %v allocations a packet", describe(c), n)
		}
	}
}

// Whatever the format, only what was sealed opens, and nothing makes it stumble.
func FuzzOpen(f *testing.F) {
	var file aeadVectors
	readVectors(f, "data-aead.json", &file)
	for _, v := range append(file.Vectors, file.MustReject...) {
		f.Add(uint8(2), []byte(v.Packet))
	}
	for i, c := range configs {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0x30})
		client, _ := ends(f, c)
		for range 3 {
			id, _ := client.Reserve(1)
			f.Add(uint8(i), seal(client, []byte("genuine"), id))
		}
		if c.Epoch {
			client.RaiseTo(9)
			f.Add(uint8(i), seal(client, []byte("genuine"), 9<<48|1))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, packet []byte) {
		c := configs[int(which)%len(configs)]
		_, server := ends(t, c)
		payload, _, err := open(t, server, packet)
		if err == nil && string(payload) != "genuine" {
			t.Errorf("%s: %x was opened: %q", describe(c), packet, payload)
		}
	})
}
