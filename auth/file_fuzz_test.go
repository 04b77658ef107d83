package auth

import (
	"encoding/hex"
	"strings"
	"testing"
)

// What the user file takes it also understands: each name is canonical and there once, each argon2id hash is written
// as it was read.
func FuzzUsersFile(f *testing.F) {
	for _, text := range []string{
		"", "# nothing\n", "alice:$2y$04$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzabcdefg\n",
		"alice:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg\r\n", "a:b:c", ":", "\n\n\n",
		"alice:$argon2id$v=19$m=99999999999,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
		"alice:$argon2id$v=19$m=064,t=+1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "a\x00:$2a$", "\xff:x", "alice:$2b$99$",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, err := parseUsers(text)
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
			if h, ok := l.hash.(*argon2idHash); ok {
				again, err := parseHash(h.String())
				if err != nil || again.(*argon2idHash).String() != h.String() {
					t.Fatalf("%q: %v", h, err)
				}
			}
			if strings.ContainsAny(l.text, "\n") {
				t.Fatalf("line %q", l.text)
			}
		}
	})
}

// Hashes that other programs made.
func TestForeignHashes(t *testing.T) {
	for _, c := range []struct{ name, password, hash string }{
		// the argon2 program: echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32
		{"argon2id", "password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" +
			rawBase64(t, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7")},
		{"argon2id, 256 KiB", "password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$" +
			rawBase64(t, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe")},
		{"bcrypt", "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
		{"bcrypt of htpasswd", "U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
	} {
		h, err := parseHash(c.hash)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !h.matches([]byte(c.password)) {
			t.Errorf("%s: the password does not match", c.name)
		}
		if h.matches([]byte(c.password + "x")) {
			t.Errorf("%s: another password matches", c.name)
		}
	}
}

func rawBase64(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return (&argon2idHash{sum: b}).String()[len("$argon2id$v=19$m=0,t=0,p=0$$"):]
}
