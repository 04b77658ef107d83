package datachan_test

import (
	"bytes"
	"testing"

	"postern/server/datachan"
)

func TestOCCVectors(t *testing.T) {
	var file struct {
		Messages []struct {
			Name      string
			Plaintext hexBytes
		}
	}
	readVectors(t, "data-messages.json", &file)
	vectors := map[string][]byte{}
	for _, m := range file.Messages {
		vectors[m.Name] = m.Plaintext
	}
	for name, got := range map[string][]byte{
		"OCC_MTU_LOAD (8 filler bytes)": datachan.AppendMTULoad(nil, 17+8),
		"OCC_MTU_REPLY 1541/1541":       datachan.AppendMTUReply(nil, 1541, 1541),
		"OCC_EXIT":                      datachan.AppendExit(nil),
	} {
		if want := vectors[name]; !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
	if size, ok := datachan.LoadSize(vectors["OCC_MTU_LOAD_REQUEST 1500"]); !ok || size != 1500 {
		t.Errorf("asks for %d bytes, %t", size, ok)
	}
}

func TestLoadSize(t *testing.T) {
	magic := string(datachan.AppendExit(nil)[:16])
	for _, c := range []struct {
		name, payload string
		want          int
		ok            bool
	}{
		{"nothing", "", 0, false},
		{"no size", magic + "\x02", 0, false},
		{"half a size", magic + "\x02\x05", 0, false},
		{"1528", magic + "\x02\x05\xf8", 1528, true},
		{"with a tail", magic + "\x02\x05\xf8more", 1528, true},
		{"0", magic + "\x02\x00\x00", 0, true},
		{"another message", magic + "\x03\x05\xf8", 0, false},
		{"a ping", string(datachan.AppendPing(nil)), 0, false},
	} {
		if got, ok := datachan.LoadSize([]byte(c.payload)); got != c.want || ok != c.ok {
			t.Errorf("%s: %d, %t, want %d, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

// What answers an MTU_LOAD_REQUEST makes a packet of just that size, as far as a cipher of blocks can.
func TestMTULoadFillsThePacket(t *testing.T) {
	for _, c := range configs {
		for _, size := range []int{0, 40, 1000, 1400, 1500, 1528} {
			k, _ := ends(t, c)
			got := len(seal(k, datachan.AppendMTULoad(nil, k.Fit(size)), 1<<48|1))
			least := len(seal(k, datachan.AppendMTULoad(nil, 0), 1<<48|2))
			short := size - got
			if size < least && got != least || size >= least && (short < 0 || short > 15 || short > 0 && c.Digest == "") {
				t.Errorf("%s: asked for %d bytes, got %d", describe(c), size, got)
			}
		}
	}
}

// Fit is what an MSS is made of (data channel, section 12).
func TestMSSVectors(t *testing.T) {
	var file struct {
		Rows []struct {
			Cipher, Auth, Proto, Mode string
			Outer                     int  `json:"outer_ip"`
			V2                        bool `json:"data_v2"`
			Comp                      bool `json:"comp_v1_byte"`
			Fragment, Epoch           bool
			MSSFix, MSS               int
		}
	}
	readVectors(t, "data-mss.json", &file)
	tried := 0
	for _, r := range file.Rows {
		if r.Fragment || r.Cipher == "none" || r.Cipher == "AES-256-CFB" {
			continue
		}
		tried++
		c := datachan.Config{Cipher: r.Cipher, Digest: r.Auth, V2: r.V2, Epoch: r.Epoch}
		if r.Comp {
			c.Framing = datachan.Stub
		}
		k, _ := ends(t, c)
		size := r.MSSFix
		if r.Mode == "mtu" {
			size -= map[int]int{4: 20, 6: 40}[r.Outer] + map[string]int{"udp": 8, "tcp": 20}[r.Proto]
		}
		if r.Proto == "tcp" {
			size -= 2
		}
		if got := k.Fit(size) - 40; got != r.MSS {
			t.Errorf("%+v: %d", r, got)
		}
	}
	if tried < 15 {
		t.Errorf("only %d rows", tried)
	}
}
