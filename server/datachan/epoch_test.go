package datachan_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"postern/server/datachan"
)

type epochVector struct {
	Name      string
	Direction string
	E1        hexBytes
	Cipher    string
	KeyID     datachan.KeyID  `json:"key_id"`
	PeerID    datachan.PeerID `json:"peer_id"`
	Epoch     uint32
	Counter   uint64
	Secret    hexBytes `json:"epoch_secret"`
	DataKey   hexBytes `json:"data_key"`
	DataIV    hexBytes `json:"data_iv"`
	Plaintext hexBytes
	Packet    hexBytes
}

func (v *epochVector) id() uint64 { return epochID(v.Epoch, v.Counter) }

type epochLink struct {
	Epoch  uint32
	Secret hexBytes
	Key16  hexBytes `json:"data_key_16"`
	Key24  hexBytes `json:"data_key_24"`
	Key32  hexBytes `json:"data_key_32"`
	IV     hexBytes `json:"data_iv"`
}

type epochFile struct {
	ExpandLabel map[string]string `json:"expand_label"`
	Chain       map[string][]epochLink
	Vectors     []epochVector
}

func epochVectors(tb testing.TB) (file epochFile) {
	readVectors(tb, "data-epoch.json", &file)
	if len(file.Vectors) == 0 || len(file.Chain["c2s"]) == 0 || len(file.Chain["s2c"]) == 0 {
		tb.Fatal("no vectors")
	}
	// Computed vectors begin with the chain's first secret.
	for i, v := range file.Vectors {
		if v.E1 == nil {
			file.Vectors[i].E1 = file.Chain[v.Direction][0].Secret
		}
	}
	return file
}

func epochID(epoch uint32, counter uint64) uint64 { return uint64(epoch)<<48 | counter }

// material is a direction of the key block with e1 where the cipher slot starts.
func material(e1 []byte) []byte { return append(bytes.Clone(e1), make([]byte, 128-len(e1))...) }

func (v *epochVector) key(tb testing.TB, toClient, fromClient []byte) *datachan.Key {
	tb.Helper()
	k, err := datachan.Config{ID: v.KeyID, Peer: v.PeerID, V2: true, Cipher: v.Cipher, Epoch: true}.NewKey(toClient, fromClient)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestExpandLabel(t *testing.T) {
	secret, _ := hex.DecodeString("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
	if got := hex.EncodeToString(datachan.ExpandLabel(secret, "unit test", 16)); got != "185eaa1c7f228ab8eb29773214d92046" {
		t.Errorf("known answer: %s", got)
	}
	file := epochVectors(t)
	for name, length := range map[string]int{"data_key_16": 16, "data_key_24": 24, "data_key_32": 32, "data_iv": 12, "datakey_upd": 32} {
		info, err := hex.DecodeString(file.ExpandLabel[name+"_info"])
		if err != nil || len(info) == 0 {
			t.Fatalf("info for %s: %q, error %v", name, info, err)
		}
		want, err := hkdf.Expand(sha256.New, secret, string(info), length)
		if err != nil {
			t.Fatal(err)
		}
		label := string(info[8 : len(info)-1])
		if got := datachan.ExpandLabel(secret, label, length); !bytes.Equal(got, want) {
			t.Errorf("%q: %x, want %x", label, got, want)
		}
	}
	for direction, links := range file.Chain {
		secret, epoch := []byte(links[0].Secret), uint32(1)
		for _, l := range links {
			for ; epoch < l.Epoch; epoch++ {
				secret = datachan.ExpandLabel(secret, "datakey upd", 32)
			}
			for _, c := range []struct {
				what      string
				got, want []byte
			}{
				{"secret", secret, l.Secret},
				{"key of 16", datachan.ExpandLabel(secret, "data_key", 16), l.Key16},
				{"key of 24", datachan.ExpandLabel(secret, "data_key", 24), l.Key24},
				{"key of 32", datachan.ExpandLabel(secret, "data_key", 32), l.Key32},
				{"iv", datachan.ExpandLabel(secret, "data_iv", 12), l.IV},
			} {
				if !bytes.Equal(c.got, c.want) {
					t.Errorf("%s epoch %d: %s %x, want %x", direction, l.Epoch, c.what, c.got, c.want)
				}
			}
		}
	}
}

func TestEpochVectors(t *testing.T) {
	for _, v := range epochVectors(t).Vectors {
		t.Run(v.Name, func(t *testing.T) {
			sealer := v.key(t, material(v.E1), make([]byte, 128))
			sealer.RaiseTo(v.Epoch)
			if got := seal(sealer, v.Plaintext, v.id()); !bytes.Equal(got, v.Packet) {
				t.Errorf("sealed %x, want %x", got, v.Packet)
			}
			opener := v.key(t, make([]byte, 128), material(v.E1))
			payload, id, err := open(t, opener, v.Packet)
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			if !bytes.Equal(payload, v.Plaintext) || id != v.id() {
				t.Errorf("opened %x under id %x, want %x under id %x", payload, id, v.Plaintext, v.id())
			}
			if opener.ReceiveEpoch() != v.Epoch || opener.SendEpoch() != v.Epoch {
				t.Errorf("then receives in epoch %d and sends in %d, want %d", opener.ReceiveEpoch(), opener.SendEpoch(), v.Epoch)
			}
		})
	}
}

// Between two 2.7 peers with a tiny limit, each in turn began an epoch and the other followed. Put in the server's
// place, a key does the same byte for byte.
func TestEpochCapture(t *testing.T) {
	sequence := map[string]epochVector{}
	for _, v := range epochVectors(t).Vectors {
		if name, ok := strings.CutPrefix(v.Name, "epoch_iter "); ok {
			sequence[name] = v
		}
	}
	first := sequence["client epoch 1"]
	server := first.key(t, material(sequence["server epoch 1"].E1), material(first.E1))
	opens := func(name string) {
		t.Helper()
		v, ok := sequence[name]
		if payload, _, err := open(t, server, v.Packet); !ok || err != nil || !bytes.Equal(payload, v.Plaintext) {
			t.Errorf("%s: opened %x, error %v", name, payload, err)
		}
	}
	seals := func(name string) {
		t.Helper()
		v, ok := sequence[name]
		id, _ := server.Reserve(1)
		if got := seal(server, v.Plaintext, id); !ok || !bytes.Equal(got, v.Packet) {
			t.Errorf("%s: sealed %x, want %x", name, got, v.Packet)
		}
	}
	opens("client epoch 1")
	seals("server epoch 1")
	opens("client epoch 2")
	seals("server epoch 2")
	server.SetSealedWear(datachan.WornOut + 1)
	seals("server epoch 3")
	opens("client epoch 3")
	opens("client epoch 4")
	seals("server epoch 4")
}

var epochConfig = datachan.Config{Cipher: "AES-128-GCM", V2: true, Epoch: true}

// sealIn seals a packet of this epoch and counter.
func sealIn(k *datachan.Key, epoch uint32, counter uint64) []byte {
	k.RaiseTo(epoch)
	return seal(k, []byte("payload"), epochID(epoch, counter))
}

// Which epochs are accepted: the current one, the one before, and sixteen ahead. Nothing else costs a derivation.
func TestEpochWindow(t *testing.T) {
	sealed := func(epoch uint32) []byte { // each by a key of its own: a chain does not go back
		client, _ := ends(t, epochConfig)
		return sealIn(client, epoch, uint64(epoch))
	}
	_, server := ends(t, epochConfig)
	opens := func(epoch uint32, want error) {
		t.Helper()
		if _, _, err := open(t, server, sealed(epoch)); !errors.Is(err, want) {
			t.Errorf("in epoch %d, a packet of epoch %d: %v, want %v", server.ReceiveEpoch(), epoch, err, want)
		}
	}
	is := func(receive, send uint32) {
		t.Helper()
		if server.ReceiveEpoch() != receive || server.SendEpoch() != send {
			t.Errorf("receives in epoch %d and sends in %d, want %d and %d", server.ReceiveEpoch(), server.SendEpoch(), receive, send)
		}
	}
	opens(1, nil)
	opens(18, datachan.ErrAuth)
	if n := server.FutureKeys(); n != 0 {
		t.Errorf("%d future keys for a packet too far ahead", n)
	}
	is(1, 1)
	opens(3, nil) // ahead by two
	is(3, 3)
	opens(1, datachan.ErrReplay) // retiring, seen
	opens(2, datachan.ErrAuth)   // skipped
	opens(19, nil)               // ahead by sixteen
	opens(3, datachan.ErrReplay) // retiring, seen
	opens(1, datachan.ErrAuth)   // gone
	opens(36, datachan.ErrAuth)  // ahead by seventeen
	opens(35, nil)
	is(35, 35)
	opens(0, datachan.ErrAuth)
	server.RaiseTo(40)
	opens(36, nil) // behind what we send: nothing to follow
	is(36, 40)

	// In the last epochs nothing is ahead.
	_, server = ends(t, epochConfig)
	server.SetReceiveEpoch(65510)
	opens(65519, datachan.ErrAuth)
	opens(65518, nil)
	opens(65519, datachan.ErrAuth)
}

// Each epoch has its own replay window, and packets of the one before are still welcome.
func TestEpochReplay(t *testing.T) {
	client, server := ends(t, epochConfig)
	packets := map[uint64][]byte{}
	for _, id := range []uint64{epochID(1, 7), epochID(1, 8), epochID(1, 9), epochID(2, 3), epochID(2, 4), epochID(3, 1)} {
		packets[id] = sealIn(client, uint32(id>>48), id&(1<<48-1))
	}
	opens := func(epoch uint32, counter uint64, want error) {
		t.Helper()
		id := epochID(epoch, counter)
		if _, got, err := open(t, server, packets[id]); !errors.Is(err, want) || want == nil && got != id {
			t.Errorf("counter %d of epoch %d: id %x, error %v, want %v", counter, epoch, got, err, want)
		}
	}
	highest := func(want uint64) {
		t.Helper()
		server.Lock()
		defer server.Unlock()
		if got := server.Highest(); got != want {
			t.Errorf("highest is %x, want %x", got, want)
		}
	}
	highest(0)
	opens(1, 8, nil)
	highest(epochID(1, 8))
	opens(2, 4, nil)
	highest(epochID(2, 4))
	opens(2, 4, datachan.ErrReplay)
	opens(1, 8, datachan.ErrReplay)
	opens(1, 7, nil) // the late ones of epoch 1, below and above
	opens(1, 9, nil)
	opens(1, 9, datachan.ErrReplay)
	highest(epochID(2, 4))
	opens(2, 3, nil)
	opens(3, 1, nil)
	opens(2, 3, datachan.ErrReplay)
	opens(1, 7, datachan.ErrAuth) // no key any more
}

// Counter 0 is never valid, in no epoch, and a packet with it does not begin one.
func TestEpochCounterZero(t *testing.T) {
	for _, window := range []int{0, datachan.Sequential} {
		c := epochConfig
		c.Window = window
		for _, epoch := range []uint32{1, 2} {
			client, server := ends(t, c)
			if _, _, err := open(t, server, sealIn(client, epoch, 0)); !errors.Is(err, datachan.ErrReplay) {
				t.Errorf("window %d, epoch %d: %v, want %v", window, epoch, err, datachan.ErrReplay)
			}
			if got := server.ReceiveEpoch(); got != 1 {
				t.Errorf("window %d: receives in epoch %d", window, got)
			}
			if _, _, err := open(t, server, sealIn(client, epoch, 1)); err != nil {
				t.Errorf("window %d, epoch %d, counter 1: %v", window, epoch, err)
			}
		}
	}
}

// A forged packet changes no epoch, though the keys it asks for are kept (S076).
func TestEpochForgery(t *testing.T) {
	client, server := ends(t, epochConfig)
	good := sealIn(client, 5, 1)
	for n := range 100 {
		bad := bytes.Clone(good)
		bad[len(bad)-1-n%16]++
		if _, _, err := open(t, server, bad); !errors.Is(err, datachan.ErrAuth) {
			t.Fatal(err)
		}
	}
	if server.ReceiveEpoch() != 1 || server.SendEpoch() != 1 || server.FutureKeys() != 4 {
		t.Errorf("receives in %d, sends in %d, with %d future keys", server.ReceiveEpoch(), server.SendEpoch(), server.FutureKeys())
	}
	if _, _, err := open(t, server, good); err != nil {
		t.Errorf("the good one afterwards: %v", err)
	}
	if server.FutureKeys() != 0 {
		t.Errorf("%d future keys after the switch", server.FutureKeys())
	}
	far := sealIn(client, 5+16, 1)
	far[20]++
	open(t, server, far)
	client, _ = ends(t, epochConfig)
	if _, _, err := open(t, server, sealIn(client, 6, 1)); err != nil {
		t.Error(err)
	}
	if server.FutureKeys() != 15 {
		t.Errorf("%d future keys one epoch on, want 15", server.FutureKeys())
	}
	v1 := append([]byte{0x31}, good[4:]...)
	if _, _, err := open(t, server, v1); !errors.Is(err, datachan.ErrAuth) {
		t.Errorf("as a P_DATA_V1: %v, want %v", err, datachan.ErrAuth)
	}
}

// Expire makes late packets replays, and forgets the old epoch once it has passed it.
func TestEpochExpire(t *testing.T) {
	client, server := ends(t, epochConfig)
	old1, old2, old3 := sealIn(client, 1, 1), sealIn(client, 1, 2), sealIn(client, 1, 3)
	low, high := sealIn(client, 2, 1), sealIn(client, 2, 2)
	expire := func(id uint64) {
		server.Lock()
		defer server.Unlock()
		server.Expire(id)
	}
	opens := func(what string, packet []byte, want error) {
		t.Helper()
		if _, _, err := open(t, server, packet); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	expire(0)
	opens("the current epoch's second", high, nil)
	expire(epochID(1, 1))
	opens("what has expired", old1, datachan.ErrReplay)
	opens("what has not", old2, nil)
	expire(epochID(2, 1))
	opens("the old epoch's last", old3, datachan.ErrAuth)
	opens("the current epoch's first", low, datachan.ErrReplay)
}

// When an own epoch ends: only for good reasons, and by one.
func TestEpochAdvance(t *testing.T) {
	const nearLast = 1<<48 - 1 - 1<<20
	for _, c := range []struct {
		name     string
		cipher   string
		wear     func(k *datachan.Key)
		opened   bool // then opens a packet
		forged   bool // then refuses one
		wantSend uint32
	}{
		{"new", "AES-128-GCM", func(*datachan.Key) {}, true, true, 1},
		{"worn a little", "AES-128-GCM", func(k *datachan.Key) { k.SetSealedWear(datachan.WornOut) }, false, false, 1},
		{"worn out", "AES-128-GCM", func(k *datachan.Key) { k.SetSealedWear(datachan.WornOut + 1) }, false, false, 2},
		{"worn out by usage", "AES-128-GCM", func(k *datachan.Key) { k.AddUsage(1, 16*datachan.WornOut) }, false, false, 2},
		{"ChaCha does not wear", "CHACHA20-POLY1305", func(k *datachan.Key) { k.AddUsage(1, 16*datachan.WornOut) }, false, false, 1},
		{"many counters", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetCounter(nearLast - 6) }, false, false, 1},
		{"no counters", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetCounter(nearLast) }, false, false, 2},
		{"peer worn a little", "AES-128-GCM", func(k *datachan.Key) { k.SetOpenedWear(datachan.WornOut - 3) }, true, false, 1},
		{"peer worn out", "AES-128-GCM", func(k *datachan.Key) { k.SetOpenedWear(datachan.WornOut) }, true, false, 2},
		{"peer's ChaCha does not wear", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetOpenedWear(datachan.WornOut) }, true, false, 1},
		{"peer worn out, we are ahead", "AES-128-GCM", func(k *datachan.Key) { k.RaiseTo(2); k.SetOpenedWear(datachan.WornOut) }, true, false, 2},
		{"few forgeries", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetFailed(datachan.FailLimit/2 - 2) }, false, true, 1},
		{"many forgeries", "CHACHA20-POLY1305", func(k *datachan.Key) { k.SetFailed(datachan.FailLimit/2 - 1) }, false, true, 2},
	} {
		client, server := ends(t, datachan.Config{Cipher: c.cipher, V2: true, Epoch: true})
		c.wear(server)
		if c.opened {
			if _, _, err := open(t, server, sealIn(client, 1, 1)); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if c.forged {
			bad := sealIn(client, 1, 2)
			bad[20]++
			if _, _, err := open(t, server, bad); !errors.Is(err, datachan.ErrAuth) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		for range 3 { // and not again
			id, ok := server.Reserve(2)
			if !ok || uint32(id>>48) != c.wantSend || server.SendEpoch() != c.wantSend {
				t.Errorf("%s: id %x, %t, epoch %d, want epoch %d", c.name, id, ok, server.SendEpoch(), c.wantSend)
			}
		}
	}
}

// An epoch's counters are never passed, and the last epoch's neither (S073).
func TestEpochEnds(t *testing.T) {
	_, server := ends(t, epochConfig)
	server.SetCounter(1<<48 - 1)
	if first, ok := server.Reserve(1); !ok || first != epochID(2, 1) {
		t.Errorf("after the last counter: %x, %t, want epoch 2 to begin", first, ok)
	}
	if near := server.NearEnd(); near {
		t.Error("near its end in epoch 2")
	}
	server.RaiseTo(0xefff)
	if server.NearEnd() {
		t.Error("near its end in epoch efff")
	}
	server.RaiseTo(0xf000)
	if !server.NearEnd() {
		t.Error("not near its end in epoch f000")
	}
	server.RaiseTo(0xffff)
	first, ok := server.Reserve(1)
	if !ok || first != epochID(0xffff, 1) {
		t.Errorf("in the last epoch: %x, %t", first, ok)
	}
	server.RaiseTo(0x10000)
	if got := server.SendEpoch(); got != 0xffff {
		t.Errorf("sends in epoch %x", got)
	}
	server.SetSealedWear(datachan.WornOut + 1)
	for range 10 {
		if first, ok := server.Reserve(1); ok {
			t.Errorf("reserved %x when the last epoch was over", first)
		}
	}
	// An id of an epoch that is over, and no other to be had.
	server.SetCounter(1<<48 - 1)
	if n := server.Seal(make([]byte, 100), []byte("payload"), epochID(7, 1), new(datachan.Scratch)); n != 0 {
		t.Errorf("sealed %d bytes without an id", n)
	}
}

// Ids that were reserved before a switch are sealed after it, in the new epoch and in order.
func TestEpochSwitchInTrain(t *testing.T) {
	client, server := ends(t, epochConfig)
	first, _ := client.Reserve(6)
	var got []uint64
	for i := range uint64(6) {
		if i == 3 {
			client.RaiseTo(4)
		}
		_, id, err := open(t, server, seal(client, []byte("payload"), first+i))
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		got = append(got, id)
	}
	want := []uint64{epochID(1, 1), epochID(1, 2), epochID(1, 3), epochID(4, 1), epochID(4, 2), epochID(4, 3)}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("packet %d has id %x, want %x", i, got[i], want[i])
		}
	}
}

// Four senders, a receiver that is taken ahead by the peer, and a key that wears out all the time: no id goes on the
// wire twice, and each packet is sealed with the key of the epoch it names (S073).
func TestEpochSwitchConcurrently(t *testing.T) {
	const senders, trains = 4, 400
	client, server := ends(t, epochConfig)
	sealed := make([][][]byte, senders)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range trains {
				n := 1 + r.IntN(5)
				first, ok := server.Reserve(n)
				if !ok {
					t.Error("no packet ids")
					return
				}
				for j := range n {
					sealed[i] = append(sealed[i], seal(server, []byte("payload"), first+uint64(j)))
				}
				if r.IntN(20) == 0 {
					server.AddUsage(n, 16*datachan.WornOut)
				}
			}
		})
	}
	wg.Go(func() {
		for epoch := uint32(2); epoch < 200; epoch += 2 {
			if _, _, err := open(t, server, sealIn(client, epoch, 1)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()

	seen := map[uint64]bool{}
	byEpoch := map[uint32][][]byte{}
	last := uint32(0)
	for i := range sealed {
		for _, packet := range sealed[i] {
			id := binary.BigEndian.Uint64(packet[4:])
			if seen[id] {
				t.Fatalf("id %x was used twice", id)
			}
			seen[id] = true
			epoch := uint32(id >> 48)
			byEpoch[epoch] = append(byEpoch[epoch], packet)
			last = max(last, epoch)
		}
	}
	if len(byEpoch) < 3 {
		t.Errorf("only %d epochs", len(byEpoch))
	}
	client, _ = ends(t, epochConfig)
	for epoch := uint32(1); epoch <= last; epoch++ {
		for _, packet := range byEpoch[epoch] {
			if client.ReceiveEpoch()+16 < epoch {
				client.SetReceiveEpoch(epoch)
			}
			if _, _, err := open(t, client, packet); err != nil {
				t.Fatalf("a packet of epoch %d: %v", epoch, err)
			}
		}
	}
}

// Two ends with tiny limits, and a wire that loses and reorders, follow each other through many epochs.
func TestEpochBothEnds(t *testing.T) {
	client, server := ends(t, epochConfig)
	r := rand.New(rand.NewPCG(1, 2))
	type flight struct {
		to     *datachan.Key
		packet []byte
	}
	var wire []flight
	opened, sent := 0, 0
	for range 4000 {
		from, to := client, server
		if r.IntN(3) == 0 {
			from, to = server, client
		}
		if r.IntN(15) == 0 {
			from.SetSealedWear(datachan.WornOut + 1)
		}
		id, ok := from.Reserve(1)
		if !ok {
			t.Fatal("no packet id")
		}
		if r.IntN(10) > 0 {
			sent++
			wire = append(wire, flight{to, seal(from, []byte("payload"), id)})
		}
		for len(wire) > 3 {
			i := r.IntN(3)
			f := wire[i]
			wire = append(wire[:i], wire[i+1:]...)
			if _, _, err := open(t, f.to, f.packet); err == nil {
				opened++
			}
		}
	}
	if server.ReceiveEpoch() < 100 || server.SendEpoch()-client.ReceiveEpoch() > 2 {
		t.Errorf("server receives in %d and sends in %d, client in %d and %d",
			server.ReceiveEpoch(), server.SendEpoch(), client.ReceiveEpoch(), client.SendEpoch())
	}
	if opened < sent*98/100 { // some were two epochs late
		t.Errorf("%d of %d packets opened", opened, sent)
	}
}
