package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

type tokenVectors struct {
	KeyPEM  string `json:"key_pem"`
	HMACKey string `json:"hmac_key"`
	Tokens  []struct {
		Name, Username, Token string
		Session               string `json:"session_id_hex"`
		Initial               uint64 `json:"initial_timestamp"`
		Renewed               uint64 `json:"renewal_timestamp"`
	}
	Verify []struct {
		Name, Username, Token  string
		Now, Lifetime, Renewal int64
		First                  *string `json:"initial_token_of_session"`
		Expect                 json.RawMessage
	} `json:"verify_cases"`
	Captured struct {
		KeyPEM          string `json:"key_pem"`
		Username, Token string
		Session         string `json:"session_id_base64"`
		Initial         uint64 `json:"initial_timestamp"`
		Renewed         uint64 `json:"renewal_timestamp"`
	} `json:"captured_openvpn_2_6_14"`
}

func readTokenVectors(t testing.TB) *tokenVectors {
	t.Helper()
	text, err := os.ReadFile("../testdata/vectors/auth-token.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(tokenVectors)
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokenVectors(t *testing.T) {
	v := readTokenVectors(t)
	secret, err := ParseTokenSecret([]byte(v.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(secret.key[:]); got != v.HMACKey {
		t.Errorf("HMAC key %s, want %s", got, v.HMACKey)
	}
	if len(v.Tokens) != 4 || len(v.Verify) != 14 {
		t.Fatalf("%d tokens, %d cases", len(v.Tokens), len(v.Verify))
	}
	for _, c := range v.Tokens {
		session, err := hex.DecodeString(c.Session)
		if err != nil {
			t.Fatal(err)
		}
		want := token{[sessionIDLen]byte(session), c.Initial, c.Renewed}
		if got := want.sign(secret.key[:], c.Username); got != c.Token || len(got) != 91 {
			t.Errorf("%s: made %s, want %s", c.Name, got, c.Token)
		}
		if got, emptyUser, ok := openToken([]byte(c.Token), secret.key[:], c.Username); got != want || emptyUser || !ok {
			t.Errorf("%s: %+v, %v, %v", c.Name, got, emptyUser, ok)
		}
	}
	verdicts := map[TokenState][]string{
		TokenInvalid:                {},
		TokenAuthenticated:          {"HMAC_OK"},
		TokenExpired:                {"HMAC_OK", "EXPIRED"},
		TokenAuthenticatedEmptyUser: {"HMAC_OK", "VALID_EMPTYUSER"},
	}
	for _, c := range v.Verify {
		var want []string
		if err := json.Unmarshal(c.Expect, &want); err != nil {
			if IsToken([]byte(c.Token)) {
				t.Errorf("%s: taken for a token", c.Name)
			}
			if _, state := judgeToken([]byte(c.Token), secret.key[:], c.Username, nil, time.Unix(c.Now, 0), 0, time.Hour); state != TokenInvalid {
				t.Errorf("%s: %v", c.Name, state)
			}
			continue
		}
		if !IsToken([]byte(c.Token)) {
			t.Errorf("%s: not taken for a token", c.Name)
		}
		var session *[sessionIDLen]byte
		if c.First != nil {
			first, _, ok := openToken([]byte(*c.First), secret.key[:], c.Username)
			if !ok {
				t.Fatalf("%s: first token is not good", c.Name)
			}
			session = &first.session
		}
		_, state := judgeToken([]byte(c.Token), secret.key[:], c.Username, session, time.Unix(c.Now, 0),
			time.Duration(c.Lifetime)*time.Second, time.Duration(c.Renewal)*time.Second)
		if got := verdicts[state]; !slices.Equal(got, want) || state == TokenInitial {
			t.Errorf("%s: %v, want %v", c.Name, state, want)
		}
	}
	c := v.Captured
	if secret, err = ParseTokenSecret([]byte(c.KeyPEM)); err != nil {
		t.Fatal(err)
	}
	tok, emptyUser, ok := openToken([]byte(c.Token), secret.key[:], c.Username)
	if !ok || emptyUser || tok.initial != c.Initial || tok.renewed != c.Renewed || base64.StdEncoding.EncodeToString(tok.session[:]) != c.Session {
		t.Errorf("captured: %+v, %v, %v", tok, emptyUser, ok)
	}
}

// The times that no clock yields are refused like others, and overflow nothing.
func TestTokenTimes(t *testing.T) {
	const now = 1_700_000_000
	for _, c := range []struct {
		initial, renewed uint64
		expired          bool
	}{
		{now, now, false}, {0, now, false}, {now - 7199, now - 7199, false}, {now - 7200, now - 7200, true},
		{now + 1, now + 1, true}, {now, now + 1, true}, {now + 1, now, true}, {1 << 63, 1 << 63, true}, {^uint64(0), ^uint64(0), true},
		{0, ^uint64(0), true}, {^uint64(0), now, true}, {0, 0, true},
	} {
		tok := token{initial: c.initial, renewed: c.renewed}
		if got := tok.expired(time.Unix(now, 0), 0, time.Hour); got != c.expired {
			t.Errorf("from %d, renewed at %d: %v", c.initial, c.renewed, got)
		}
	}
	tok := token{}
	if tok.expired(time.Unix(-5, 0), 0, time.Hour) {
		t.Error("a clock before 1970 is taken for one far in the future")
	}
}

// S048: of 20,000 tokens that are not quite one, and of every length there is, none is good.
func TestMutatedTokens(t *testing.T) {
	secret := NewTokenSecret()
	now := time.Now()
	good := token{initial: unixTime(now), renewed: unixTime(now)}
	rand.Read(good.session[:])
	text := []byte(good.sign(secret.key[:], "alice"))
	judge := func(b []byte) TokenState {
		_, state := judgeToken(b, secret.key[:], "alice", nil, now, 0, time.Hour)
		return state
	}
	if judge(text) != TokenAuthenticated {
		t.Fatal("the token itself is not good")
	}
	r := mathrand.New(mathrand.NewPCG(1, 2))
	alphabet := []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\x00\n\r -_\xff")
	for range 20_000 {
		b := bytes.Clone(text)
		for range 1 + r.IntN(3) {
			switch i := r.IntN(len(b)); r.IntN(5) {
			case 0:
				b[i] = alphabet[r.IntN(len(alphabet))]
			case 1:
				b[i] ^= 1 << r.IntN(8)
			case 2:
				b = append(b[:i], b[i+1:]...)
			case 3:
				b = slices.Insert(b, i, alphabet[r.IntN(len(alphabet))])
			case 4:
				j := r.IntN(len(b))
				b[i], b[j] = b[j], b[i]
			}
		}
		if !bytes.Equal(b, text) && judge(b) != TokenInvalid {
			t.Fatalf("%q is good", b)
		}
	}
	for n := range len(text) {
		if judge(text[:n]) != TokenInvalid || judge(text[n+1:]) != TokenInvalid || IsToken(text[:n]) {
			t.Errorf("%d bytes of it are good", n)
		}
	}
	for n := range 300 {
		judge(bytes.Repeat([]byte("A"), n))
		if b := append([]byte(tokenPrefix), bytes.Repeat([]byte("A"), n)...); judge(b) != TokenInvalid {
			t.Errorf("%q is good", b)
		}
	}
	// Every bit of what is signed counts.
	raw, err := base64.StdEncoding.DecodeString(string(text[len(tokenPrefix):]))
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			b := bytes.Clone(raw)
			b[i] ^= 1 << bit
			if judge([]byte(tokenPrefix+base64.StdEncoding.EncodeToString(b))) != TokenInvalid {
				t.Errorf("bit %d of byte %d does not count", bit, i)
			}
		}
	}
}

func TestParseTokenSecret(t *testing.T) {
	block := func(kind string, n int) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes.Repeat([]byte{7}, n)}))
	}
	const kind = "OpenVPN auth-token server key"
	for _, c := range []struct{ name, text, want string }{
		{"good", block(kind, 128), ""},
		{"with a comment", "# ours\n" + block(kind, 128) + "\n \n", ""},
		{"empty", "", "no PEM"},
		{"another key", block("OpenVPN tls-crypt-v2 server key", 128), "not a"},
		{"short", block(kind, 127), "127 bytes"},
		{"long", block(kind, 256), "256 bytes"},
		{"nothing inside", block(kind, 0), "0 bytes"},
		{"two", block(kind, 128) + block(kind, 128), "follows"},
		{"cut", block(kind, 128)[:100], "no PEM"},
	} {
		secret, err := ParseTokenSecret([]byte(c.text))
		if c.want == "" && (err != nil || secret.key != [32]byte(bytes.Repeat([]byte{7}, 32))) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if a, b := NewTokenSecret(), NewTokenSecret(); a.key == b.key || a.key == [32]byte{} {
		t.Error("random secrets are not")
	}
}

// A secret is read whole or not at all, whatever the file is.
func FuzzTokenSecret(f *testing.F) {
	good := pem.EncodeToMemory(&pem.Block{Type: tokenSecretType, Bytes: bytes.Repeat([]byte{7}, tokenSecretLen)})
	f.Add(good)
	f.Add(good[:100])
	f.Add(append(bytes.Clone(good), good...))
	f.Fuzz(func(t *testing.T, text []byte) {
		secret, err := ParseTokenSecret(text)
		if err != nil {
			return
		}
		if block, _ := pem.Decode(text); block == nil || len(block.Bytes) != tokenSecretLen || !bytes.Equal(secret.key[:], block.Bytes[64:96]) {
			t.Errorf("%q is taken", text)
		}
	})
}

// Keys differ by certificate and by epoch, and from the one that all servers know.
func TestBoundKeys(t *testing.T) {
	secret := NewTokenSecret()
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	keys := [][]byte{
		secret.key[:], secret.bound(nil, ""), secret.bound(a, ""), secret.bound(b, ""), secret.bound(nil, "x"), secret.bound(a, "x"),
		secret.bound(a, "y"), secret.bound(a[:31], "\x01"), secret.bound(nil, string(a)),
	}
	for i := range keys {
		for j := range i {
			if bytes.Equal(keys[i], keys[j]) {
				t.Errorf("keys %d and %d are the same", i, j)
			}
		}
	}
	if !bytes.Equal(secret.bound(a, "x"), secret.bound(a, "x")) {
		t.Error("the same key is another the second time")
	}
}

// What is taken for good was made here; nothing panics.
func FuzzToken(f *testing.F) {
	v := readTokenVectors(f)
	secret, err := ParseTokenSecret([]byte(v.KeyPEM))
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range v.Verify {
		f.Add([]byte(c.Token), c.Username)
	}
	f.Add([]byte("SESS_ID_AT_"+strings.Repeat("\n", 80)), "")
	f.Add([]byte("SESS_ID_AT_"+strings.Repeat("=", 80)), "alice")
	f.Fuzz(func(t *testing.T, text []byte, user string) {
		tok, emptyUser, ok := openToken(text, secret.key[:], user)
		if !ok {
			return
		}
		if emptyUser {
			user = ""
		}
		if got := tok.sign(secret.key[:], user); got != string(text) {
			t.Fatalf("%q is written %q", text, got)
		}
	})
}
