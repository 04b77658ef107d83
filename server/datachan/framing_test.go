package datachan_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"postern/server/datachan"
)

// framingOf is the framing of the clients of a vector. Real compressors frame what they do not compress as the stubs.
func framingOf(t *testing.T, mode string) datachan.Framing {
	switch mode {
	case "comp-lzo", "comp-lzo yes", "comp-lzo no", "comp-lzo / comp-lzo no / comp-lzo adaptive":
		return datachan.Stub
	case "compress stub", "compress lz4", "compress lz4 / compress / stub (byte swap)":
		return datachan.StubSwap
	case "compress stub-v2", "compress lz4-v2", "stub-v2 / lz4-v2":
		return datachan.StubV2
	}
	t.Fatalf("what framing is %q?", mode)
	return 0
}

// framed returns two ends that differ in nothing but the framing: bare seals and opens frames as they are. CBC carries
// empty ones too.
func framed(tb testing.TB, f datachan.Framing) (bare, whole *datachan.Key) {
	c := datachan.Config{Cipher: "AES-128-CBC", Digest: "SHA256", V2: true}
	bare, _ = ends(tb, c)
	c.Framing = f
	_, whole = ends(tb, c)
	return bare, whole
}

// frame returns what f makes of a payload.
func frame(tb testing.TB, f datachan.Framing, payload []byte) []byte {
	tb.Helper()
	bare, whole := framed(tb, f)
	frame, _, err := open(tb, bare, seal(whole, payload, 1))
	if err != nil {
		tb.Fatal(err)
	}
	return frame
}

// unframe returns what f makes of a frame.
func unframe(tb testing.TB, f datachan.Framing, frame []byte) ([]byte, error) {
	tb.Helper()
	bare, whole := framed(tb, f)
	payload, _, err := open(tb, whole, seal(bare, frame, 1))
	return payload, err
}

func TestFramingVectors(t *testing.T) {
	var file struct {
		Compression []struct {
			Mode, How      string
			Frame, Payload hexBytes
		}
		MustReject []struct {
			Mode, Why string
			Frame     hexBytes
		} `json:"compression_must_reject"`
	}
	readVectors(t, "data-framing.json", &file)
	plain, compressed := 0, 0
	for _, v := range file.Compression {
		f := framingOf(t, v.Mode)
		payload, err := unframe(t, f, v.Frame)
		if strings.Contains(v.How, "LZ") || v.How == "0x50 0x01" { // S079
			if !errors.Is(err, datachan.ErrCompressed) || payload != nil {
				t.Errorf("%s, %s: opened %x, error %v, want %v", v.Mode, v.How, payload, err, datachan.ErrCompressed)
			}
			compressed++
			continue
		}
		if err != nil || !bytes.Equal(payload, v.Payload) {
			t.Errorf("%s, %s: opened %x, error %v, want %x", v.Mode, v.How, payload, err, v.Payload)
		}
		if got := frame(t, f, v.Payload); !bytes.Equal(got, v.Frame) {
			t.Errorf("%s, %s: framed %x, want %x", v.Mode, v.How, got, v.Frame)
		}
		plain++
	}
	if plain != 8 || compressed != 3 {
		t.Errorf("%d plain and %d compressed frames, want 8 and 3", plain, compressed)
	}
	if len(file.MustReject) == 0 {
		t.Error("nothing to reject")
	}
	for _, v := range file.MustReject {
		if payload, err := unframe(t, framingOf(t, v.Mode), v.Frame); !errors.Is(err, datachan.ErrCompressed) {
			t.Errorf("%s, %s: opened %x, error %v, want %v", v.Mode, v.Why, payload, err, datachan.ErrCompressed)
		}
	}
}

// The pings of a framed session, as captured.
func TestFramedPings(t *testing.T) {
	var file struct {
		Framed map[string]hexBytes `json:"ping_with_framing"`
	}
	readVectors(t, "data-messages.json", &file)
	if len(file.Framed) == 0 {
		t.Fatal("no vectors")
	}
	for mode, want := range file.Framed {
		if strings.HasPrefix(mode, "fragment") {
			for _, f := range []datachan.Framing{datachan.Stub, datachan.StubSwap} {
				if _, err := unframe(t, f, want); !errors.Is(err, datachan.ErrCompressed) {
					t.Errorf("%s with %v: %v, want %v", mode, f, err, datachan.ErrCompressed)
				}
			}
			continue
		}
		f := framingOf(t, mode)
		if got := frame(t, f, datachan.AppendPing(nil)); !bytes.Equal(got, want) {
			t.Errorf("%s: framed %x, want %x", mode, got, want)
		}
		if got, err := unframe(t, f, want); err != nil || datachan.Classify(got) != datachan.Ping {
			t.Errorf("%s: opened %x, error %v", mode, got, err)
		}
	}
}

// Fragments are never put together (S079): with a framing in front they are no frames, and without one they come out
// as they are, which is neither an IP packet nor a message.
func TestFragmentsRefused(t *testing.T) {
	var file struct {
		Fragments []struct{ Frame hexBytes }
	}
	readVectors(t, "data-framing.json", &file)
	if len(file.Fragments) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range file.Fragments {
		for _, f := range []datachan.Framing{datachan.Stub, datachan.StubSwap} {
			if _, err := unframe(t, f, v.Frame); !errors.Is(err, datachan.ErrCompressed) {
				t.Errorf("%x with %v: %v, want %v", v.Frame[:4], f, err, datachan.ErrCompressed)
			}
		}
		for _, f := range []datachan.Framing{datachan.NoFraming, datachan.StubV2} {
			got, err := unframe(t, f, v.Frame)
			if err != nil || !bytes.Equal(got, v.Frame) || datachan.Classify(got) != datachan.NoMessage || got[0]>>4 == 4 || got[0]>>4 == 6 {
				t.Errorf("%x with %v: opened %x, error %v", v.Frame[:4], f, got, err)
			}
		}
	}
}

func TestFramingEdges(t *testing.T) {
	for _, c := range []struct {
		framing        datachan.Framing
		frame, payload string
		err            error
	}{
		{datachan.NoFraming, "", "", nil},
		{datachan.NoFraming, "\xfaE", "\xfaE", nil},
		{datachan.Stub, "", "", datachan.ErrCompressed},
		{datachan.Stub, "\xfa", "", nil},
		{datachan.Stub, "\xfbE", "", datachan.ErrCompressed},
		{datachan.Stub, "\x66E", "", datachan.ErrCompressed},
		{datachan.Stub, "E", "", datachan.ErrCompressed},
		{datachan.StubSwap, "", "", datachan.ErrCompressed},
		{datachan.StubSwap, "\xfb", "", nil},
		{datachan.StubSwap, "\xfbE", "E", nil},
		{datachan.StubSwap, "\xfb23451", "12345", nil},
		{datachan.StubSwap, "\xfa1", "", datachan.ErrCompressed},
		{datachan.StubSwap, "\x69z", "", datachan.ErrCompressed},
		{datachan.StubV2, "", "", nil},
		{datachan.StubV2, "E", "E", nil},
		{datachan.StubV2, "P", "", datachan.ErrCompressed},
		{datachan.StubV2, "P\x00", "", nil},
		{datachan.StubV2, "P\x00PQ", "PQ", nil},
		{datachan.StubV2, "P\x01E", "", datachan.ErrCompressed},
		{datachan.StubV2, "\xfaE", "\xfaE", nil},
	} {
		payload, err := unframe(t, c.framing, []byte(c.frame))
		if !errors.Is(err, c.err) || string(payload) != c.payload {
			t.Errorf("%v: %x: %q, error %v, want %q, %v", c.framing, c.frame, payload, err, c.payload, c.err)
		}
	}
	for f, want := range map[datachan.Framing]string{
		datachan.NoFraming: "none", datachan.Stub: "comp-lzo no", datachan.StubSwap: "compress stub", datachan.StubV2: "compress stub-v2",
	} {
		if f.String() != want {
			t.Errorf("%d is %q, want %q", f, f, want)
		}
	}
}

// A compressed packet is a good packet: it cannot come again, it counts, and the next one is welcome.
func TestCompressedIsCounted(t *testing.T) {
	bare, whole := framed(t, datachan.Stub)
	bad, good := seal(bare, []byte("\x66compressed"), 1), seal(bare, []byte("\xfaplain"), 2)
	if _, id, err := open(t, whole, bad); !errors.Is(err, datachan.ErrCompressed) || id != 1 {
		t.Errorf("id %d, error %v, want %v", id, err, datachan.ErrCompressed)
	}
	if _, _, err := open(t, whole, bad); !errors.Is(err, datachan.ErrReplay) {
		t.Errorf("again: %v, want %v", err, datachan.ErrReplay)
	}
	if payload, _, err := open(t, whole, good); err != nil || string(payload) != "plain" {
		t.Errorf("the next: %q, error %v", payload, err)
	}
	if packets, bytes := whole.Usage(); packets != 2 || bytes != 11+6 {
		t.Errorf("counted %d packets, %d bytes", packets, bytes)
	}
}

// We never compress: what a packet says cannot be told from its length (S079).
func TestNeverCompresses(t *testing.T) {
	random := make([]byte, 1400)
	rand.NewChaCha8([32]byte{}).Read(random)
	random[0] = 0x45
	equal := bytes.Repeat([]byte{0x45}, 1400)
	for _, c := range configs {
		a, _ := ends(t, c)
		b, _ := ends(t, c)
		if got, want := len(seal(a, equal, 1<<48|1)), len(seal(b, random, 1<<48|1)); got != want {
			t.Errorf("%s: equal bytes take %d, random ones %d", describe(c), got, want)
		}
	}
}

func FuzzFraming(f *testing.F) {
	for _, seed := range []string{"", "E", "P", "P\x00", "P\x01", "\xfa", "\xfbab", "\x66x", "some longer payload"} {
		for f4 := range uint8(4) {
			f.Add(f4, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		framing := datachan.Framing(which % 4)
		payload, err := unframe(t, framing, b) // b as a frame
		if err != nil && !errors.Is(err, datachan.ErrCompressed) {
			t.Errorf("%v: unframe %x: %v", framing, b, err)
		}
		if len(payload) > len(b) {
			t.Errorf("%v: unframe %x: %x", framing, b, payload)
		}
		if len(b) == 0 {
			return
		}
		if got, err := unframe(t, framing, frame(t, framing, b)); err != nil || !bytes.Equal(got, b) { // b as a payload
			t.Errorf("%v: %x came back as %x, error %v", framing, b, got, err)
		}
	})
}
