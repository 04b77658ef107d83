package auth

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// RFC 6238 appendix B, SHA-1, of which six digits are the last of eight; and RFC 4226 appendix D.
func TestTOTPVectors(t *testing.T) {
	secret := TOTPSecret("12345678901234567890")
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		if got := secret.Code(time.Unix(at, 0)); got != want[2:] {
			t.Errorf("at %d: %s, want %s", at, got, want[2:])
		}
	}
	for counter, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := secret.code(int64(counter)); string(got[:]) != want {
			t.Errorf("counter %d: %s, want %s", counter, got[:], want)
		}
	}
}

// A code is good in its own 30 seconds, and in those before and after.
func TestTOTPWindow(t *testing.T) {
	secret := NewTOTPSecret()
	const now = 1_000_000
	for step := int64(now - 5); step <= now+5; step++ {
		code := secret.code(step)
		got, ok := secret.match(code[:], now)
		if want := now-1 <= step && step <= now+1; ok != want || ok && got != step {
			t.Errorf("code of step %+d: %d, %v", step-now, got-now, ok)
		}
	}
	for _, code := range []string{"", "1", "12345", "1234567", "abcdef"} {
		if _, ok := secret.match([]byte(code), now); ok {
			t.Errorf("%q is good", code)
		}
	}
}

func TestTOTPURL(t *testing.T) {
	secret := TOTPSecret("12345678901234567890")
	for _, c := range []struct{ issuer, name, want string }{
		{"Postern", "alice", "otpauth://totp/Postern:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA1&digits=6&period=30&issuer=Postern"},
		{"", "alice", "otpauth://totp/alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA1&digits=6&period=30"},
		{"My Net/1", "a&b?c@x", "otpauth://totp/My%20Net%2F1:a%26b%3Fc%40x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA1&digits=6&period=30&issuer=My%20Net%2F1"},
		{"A&B", "müller", "otpauth://totp/A%26B:m%C3%BCller?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA1&digits=6&period=30&issuer=A%26B"},
	} {
		if got := secret.URL(c.issuer, c.name); got != c.want {
			t.Errorf("%s, %s:\n got %s\nwant %s", c.issuer, c.name, got, c.want)
		}
	}
	if a, b := NewTOTPSecret(), NewTOTPSecret(); bytes.Equal(a, b) || len(a) != 20 {
		t.Error("secrets are not random")
	}
	if s := fmt.Sprintf("%v %s %#v %+v", secret, secret, secret, struct{ S TOTPSecret }{secret}); strings.Contains(s, "123") || strings.Contains(s, "49") {
		t.Errorf("printed as %s", s)
	}
}

func TestParseTOTP(t *testing.T) {
	const good = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	lines, err := parseTOTP([]byte("# all\n\nAlice:" + good + "\r\n bob:gezd gnbv gy3t qojq gezd gnbv gy3t qojq \ncarol:GEZDGNBVGY3TQOJQGEZDGNBVGE======\n"))
	if err != nil || len(lines) != 5 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, want := range []string{"", "", "alice", "bob", "carol"} {
		if lines[i].name != want {
			t.Errorf("line %d is of %q", i+1, lines[i].name)
		}
	}
	if string(lines[2].secret) != "12345678901234567890" || !bytes.Equal(lines[2].secret, lines[3].secret) || string(lines[4].secret) != "1234567890123451" {
		t.Errorf("secrets %q %q %q", []byte(lines[2].secret), []byte(lines[3].secret), []byte(lines[4].secret))
	}
	for _, c := range []struct{ name, text, want string }{
		{"no colon", "alice\n", "1: line is not name:secret"},
		{"no name", "#\n:" + good, "2: no user name"},
		{"bad name", "al ice:" + good, "1: user name has no canonical form"},
		{"no secret", "alice:", "0 bytes"},
		{"short", "alice:GEZDGNBVGY3TQOJQ", "10 bytes"},
		{"long", "alice:" + strings.Repeat("A", 112), "70 bytes"},
		{"hex", "alice:0123456789abcdef0123456789abcdef", "not base32"},
		{"half a byte", "alice:" + good[:31], "not base32"},
		{"bits too many", "alice:GEZDGNBVGY3TQOJQGEZDGNBVGF", "not base32"},
		{"twice", "alice:" + good + "\nALICE:" + good, `2: user "alice" is already on line 1`},
		{"endless", strings.Repeat("a", 70_000), "1: "},
	} {
		_, err := parseTOTP([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "GEZD") {
			t.Errorf("%s: %v quotes the secret", c.name, err)
		}
	}
}

// What is read can be written and read again.
func FuzzTOTPFile(f *testing.F) {
	for _, text := range []string{
		"", "# x\n", "alice:GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n", "a:gezd gnbv gy3t qojq gezd gnbv gy3t qojq", "a:AAAA====\n:\n", "a:\r\n", "A:B:C", "\xff:A",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, err := parseTOTP(text)
		if err != nil {
			return
		}
		seen := make(map[string]bool)
		for _, l := range lines {
			if l.name == "" {
				continue
			}
			if canonical, err := CanonicalName(l.name); err != nil || canonical != l.name || seen[l.name] {
				t.Fatalf("name %q: %v", l.name, err)
			}
			seen[l.name] = true
			again, err := parseTOTP([]byte(l.name + ":" + totpEncoding.EncodeToString(l.secret)))
			if err != nil || len(again) != 1 || again[0].name != l.name || !bytes.Equal(again[0].secret, l.secret) {
				t.Fatalf("%q is %+v, %v", l.text, again, err)
			}
		}
	})
}
