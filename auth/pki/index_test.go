package pki

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const sampleIndex = "V\t290224202716Z\t\tD5B5A80B9B2DBA5B686D4BCD440DAEA1\tunknown\t/CN=srv\n" +
	"# a remark\n" +
	"V\t20510224202716Z\t\t01\tunknown\t/C=US/O=A/B Ltd/CN=alice/emailAddress=a@example.com\n" +
	"R\t290224202716Z\t261122202716Z,keyCompromise\tB153\tunknown\t/CN=bob\n" +
	"E\t190224202716Z\t\t0A\tunknown\t/CN=carol\n"

func TestIndexKeepsLines(t *testing.T) {
	x, err := parseIndex([]byte(sampleIndex))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(x.bytes()); got != sampleIndex {
		t.Errorf("read and written:\n%s\nwant\n%s", got, sampleIndex)
	}
	at := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	serial, _ := parseSerial("1")
	x.revoke(serial, at, "superseded")
	bob, _ := parseSerial("B153")
	x.revoke(bob, at, "")
	want := strings.Replace(sampleIndex, "V\t20510224202716Z\t\t", "R\t20510224202716Z\t261122200000Z,superseded\t", 1)
	if got := string(x.bytes()); got != want {
		t.Errorf("after revoking alice, and bob a second time:\n%s\nwant\n%s", got, want)
	}
	if e := x.find(serial); e.state != 'R' || !e.revoked.Equal(at) || e.reason != "superseded" {
		t.Errorf("alice's entry is %v", e)
	}
}

func TestIndexRefuses(t *testing.T) {
	for _, line := range []string{
		"V\t290224202716Z\t\t01\tunknown",                     // a field is missing
		"V\t290224202716Z\t\t01\tunknown\t/CN=a\tb",           // one too many
		"X\t290224202716Z\t\t01\tunknown\t/CN=a",              // unknown state
		"V\t290224202716Z\t261122202716Z\t01\tunknown\t/CN=a", // valid, yet revoked
		"R\t290224202716Z\t\t01\tunknown\t/CN=a",              // revoked, nobody knows when
		"V\t2902242027Z\t\t01\tunknown\t/CN=a",                // no date
		"V\t290224202716Z\t\t\tunknown\t/CN=a",                // no serial
		"V\t290224202716Z\t\t0x1\tunknown\t/CN=a",
		"V\t290224202716Z\t\t" + strings.Repeat("A", 200) + "\tunknown\t/CN=a",
		"",
	} {
		if _, err := parseIndex([]byte(sampleIndex + line + "\n")); err == nil {
			t.Errorf("%q was taken", line)
		} else if !strings.Contains(err.Error(), "line 6") {
			t.Errorf("%q: %v does not name line 6", line, err)
		}
	}
	if x, err := parseIndex(nil); err != nil || len(x.lines) != 0 {
		t.Errorf("empty file: %v, %v", x, err)
	}
}

func TestIndexDates(t *testing.T) {
	for _, tc := range []struct {
		text string
		year int
	}{{"490101000000Z", 2049}, {"500101000000Z", 1950}, {"680101000000Z", 1968}, {"990101000000Z", 1999}, {"20500101000000Z", 2050}} {
		got, err := parseTime(tc.text)
		if err != nil || got.Year() != tc.year {
			t.Errorf("%s is %v, %v; want %d", tc.text, got, err, tc.year)
		}
		if back := formatTime(got); back != tc.text {
			t.Errorf("%s written again is %s", tc.text, back)
		}
	}
}

func TestCommonName(t *testing.T) {
	for _, tc := range []struct {
		subject, cn string
		one         bool
	}{
		{"/CN=alice", "alice", true},
		{"/C=US/ST=California/O=A/B Ltd/CN=alice/emailAddress=a@example.com", "alice", true},
		{"/CN=a/b", "a/b", true},
		{"/CN=alice/CN=bob", "", false},
		{"/O=nobody", "", false},
	} {
		if cn, one := commonName(tc.subject); cn != tc.cn || one != tc.one {
			t.Errorf("%s: %q, %v; want %q, %v", tc.subject, cn, one, tc.cn, tc.one)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(sampleIndex))
	f.Add([]byte(""))
	f.Add([]byte("\n"))
	f.Add([]byte("V\t290224202716Z\t\t-01\tunknown\t/CN=\\x00\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseIndex(b)
		if err != nil {
			return
		}
		again, err := parseIndex(x.bytes())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if !bytes.Equal(again.bytes(), x.bytes()) {
			t.Fatal("reading and writing does not come to rest")
		}
		for e := range x.entries {
			back, err := parseEntry(e.String())
			if err != nil || back.serial.Cmp(e.serial) != 0 || back.state != e.state || !back.expiry.Equal(e.expiry) {
				t.Fatalf("%v came back as %v, %v", e, back, err)
			}
		}
	})
}
