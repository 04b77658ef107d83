package tlsctl

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStaticKeyVectors(t *testing.T) {
	var v struct {
		PEM      string   `json:"pem"`
		Key      hexBytes `json:"key_hex"`
		Comments string   `json:"comment_lines_allowed"`
		Slices   struct {
			Auth  map[string]struct{ Hex hexBytes } `json:"tls_auth"`
			Crypt map[string]struct{ Hex hexBytes } `json:"tls_crypt"`
		}
		Invalid []struct{ Name, Text string }
	}
	readVectors(t, "static-key.json", &v)
	if len(v.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	for name, text := range map[string]string{
		"as it is":       v.PEM,
		"comments":       v.Comments,
		"CRLF":           strings.ReplaceAll(v.PEM, "\n", "\r\n"),
		"upper case":     upperDigits(v.PEM),
		"text around":    "<tls-auth>\n" + v.PEM + "</tls-auth>\nwhatever zz\n",
		"no last line":   strings.TrimRight(v.PEM, "\n"),
		"one long line":  joinLines(v.PEM),
		"spaces between": strings.ReplaceAll(v.PEM, "\n10", "\n 1 0\t"),
	} {
		got, err := ParseStaticKey([]byte(text))
		if err != nil || !bytes.Equal(got, v.Key) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	for _, c := range v.Invalid {
		if _, err := ParseStaticKey([]byte(c.Text)); err == nil {
			t.Errorf("%s: was taken", c.Name)
		}
	}
	for name, text := range map[string]string{
		"empty":            "",
		"257 bytes":        strings.Replace(v.PEM, "\n-----END", "\n00\n-----END", 1),
		"half a byte less": strings.Replace(v.PEM, "ff\n-----END", "f\n-----END", 1),
		"another end":      strings.Replace(v.PEM, "-----END OpenVPN", "-----END OpenSSH", 1),
		"comment inside":   strings.Replace(v.PEM, "\n10", "\n# 10", 1),
	} {
		if _, err := ParseStaticKey([]byte(text)); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	half := strings.Split(v.PEM, "\n")
	half = append(half[:9:9], half[17:]...)
	if got, err := ParseStaticKey([]byte(strings.Join(half, "\n"))); err != nil || !bytes.Equal(got, v.Key[:128]) {
		t.Errorf("128 bytes: %x, %v", got, err)
	}

	// Which part of the key is for what.
	auth := v.Slices.Auth
	for _, c := range []struct {
		direction     int
		digest        string
		send, receive hexBytes
	}{
		{0, "SHA1", auth["server_direction_0_send_sha1"].Hex, auth["server_direction_0_receive_sha1"].Hex},
		{1, "SHA1", auth["direction_1_send_sha1"].Hex, auth["direction_1_receive_sha1"].Hex},
		{-1, "SHA512", auth["bidirectional_both_sha512"].Hex, auth["bidirectional_both_sha512"].Hex},
	} {
		k, err := NewAuthKey(v.Key, c.direction, c.digest)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.send, c.send) || !bytes.Equal(k.receive, c.receive) {
			t.Errorf("direction %d: sends with %x, receives with %x", c.direction, k.send, k.receive)
		}
	}
	k, err := NewCryptKey(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.send.mac, v.Slices.Crypt["server_send_hmac"].Hex) || !bytes.Equal(k.receive.mac, v.Slices.Crypt["server_receive_hmac"].Hex) {
		t.Errorf("tls-crypt sends with %x, receives with %x", k.send.mac, k.receive.mac)
	}
}

func upperDigits(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "-") {
			lines[i] = strings.ToUpper(line)
		}
	}
	return strings.Join(lines, "\n")
}

func joinLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := len(lines) - 1
	return lines[0] + "\n" + strings.Join(lines[1:last], "") + "\n" + lines[last] + "\n"
}

func TestParseClientKeyV2Vectors(t *testing.T) {
	v, _ := readCryptV2Vectors(t)
	kc, wkc, err := ParseClientKeyV2([]byte(v.ClientPEM))
	if err != nil || !bytes.Equal(kc, v.Kc) || !bytes.Equal(wkc, v.WKC[0].WKC) {
		t.Errorf("%x, %x, %v", kc, wkc, err)
	}
	for _, s := range v.Captured.Sessions {
		kc, wkc, err := ParseClientKeyV2([]byte("some text\n" + s.ClientPEM))
		if err != nil || !bytes.Equal(kc, s.Kc) || !bytes.Equal(wkc, s.WKC) {
			t.Errorf("%x, %x, %v", kc, wkc, err)
		}
	}
	for name, text := range map[string]string{
		"empty":        "",
		"server key":   v.ServerPEM,
		"lines lost":   strings.Join(append(strings.Split(v.ClientPEM, "\n")[:5:5], strings.Split(v.ClientPEM, "\n")[6:]...), "\n"),
		"not base64":   strings.Replace(v.ClientPEM, "\n", "\n*", 1),
		"wrong length": strings.Replace(v.ClientPEM, "key-----\n", "key-----\nAAAA", 1),
	} {
		if _, _, err := ParseClientKeyV2([]byte(text)); err == nil {
			t.Errorf("client key, %s: was taken", name)
		}
	}
	other := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, serverKeyLen)}))
	if raw, err := ParseServerKeyV2([]byte(other + v.ServerPEM)); err != nil || !bytes.Equal(raw, v.ServerKey) {
		t.Errorf("behind another block: %x, %v", raw, err)
	}
	for name, text := range map[string]string{"empty": "", "client key": v.ClientPEM, "other block": other} {
		if _, err := ParseServerKeyV2([]byte(text)); err == nil {
			t.Errorf("server key, %s: was taken", name)
		}
	}
}

func TestGeneratedClientKey(t *testing.T) {
	now := time.Unix(1700000000, 0)
	k := newTestServerKey(t)
	for _, c := range []struct {
		metadata []byte
		want     []byte
	}{
		{nil, []byte{1, 0, 0, 0, 0, 0x65, 0x53, 0xf1, 0}},
		{[]byte{}, []byte{0}},
		{[]byte("laptop"), []byte("\x00laptop")},
		{bytes.Repeat([]byte{'x'}, 733), append([]byte{0}, bytes.Repeat([]byte{'x'}, 733)...)},
	} {
		text, err := k.GenerateClientKey(c.metadata, now)
		if err != nil {
			t.Fatal(err)
		}
		kc, wkc, err := ParseClientKeyV2(text)
		if err != nil {
			t.Fatal(err)
		}
		got, ck, err := newKeyUnwrapper(k).unwrap(wkc)
		if err != nil || !bytes.Equal(got, kc) || !bytes.Equal(ck.Metadata, c.want) {
			t.Errorf("%q: %x, %v", c.metadata, ck.Metadata, err)
		}
		if _, _, err := newKeyUnwrapper(newTestServerKey(t)).unwrap(wkc); err != errWrap {
			t.Errorf("another server unwraps it: %v", err)
		}
	}
	if _, err := k.GenerateClientKey(make([]byte, 734), now); err == nil {
		t.Error("734 bytes of metadata were taken")
	}
}

// What we generate is, but for the digits, what openvpn --genkey writes, and each reads the other's.
func TestGeneratedLikeStock(t *testing.T) {
	if testing.Short() {
		t.Skip("needs openvpn")
	}
	dir := t.TempDir()
	openvpn := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("openvpn", append([]string{"--cd", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("openvpn %v: %v\n%s", args, err, out)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	openvpn("--genkey", "secret", "static")
	openvpn("--genkey", "auth-token", "token")
	openvpn("--genkey", "tls-crypt-v2-server", "server")
	openvpn("--tls-crypt-v2", "server", "--genkey", "tls-crypt-v2-client", "client")

	server := parseTestServerKey(t, string(read("server")))
	client, err := server.GenerateClientKey(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, ours := range map[string][]byte{
		"static": GenerateStaticKey(),
		"token":  GenerateAuthTokenKey(),
		"server": GenerateServerKeyV2(),
		"client": client,
	} {
		if got, want := shape(ours), shape(read(name)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}

	if _, err := ParseStaticKey(read("static")); err != nil {
		t.Error(err)
	}
	kc, wkc, err := ParseClientKeyV2(read("client"))
	if err != nil {
		t.Fatal(err)
	}
	got, ck, err := newKeyUnwrapper(server).unwrap(wkc)
	if err != nil || !bytes.Equal(got, kc) {
		t.Errorf("stock client key: %v", err)
	}
	if created, ok := ck.Created(); !ok || time.Since(created).Abs() > time.Hour {
		t.Errorf("stock client key was created %v, %v", created, ok)
	}

	// Ours in its hands: it makes a client key under our server key.
	ourServer := GenerateServerKeyV2()
	if err := os.WriteFile(filepath.Join(dir, "ours"), ourServer, 0o600); err != nil {
		t.Fatal(err)
	}
	openvpn("--tls-crypt-v2", "ours", "--genkey", "tls-crypt-v2-client", "client2")
	if _, wkc, err = ParseClientKeyV2(read("client2")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := newKeyUnwrapper(parseTestServerKey(t, string(ourServer))).unwrap(wkc); err != nil {
		t.Errorf("client key made by openvpn under our server key: %v", err)
	}
}

// shape is text with every character of a key the same.
func shape(text []byte) string {
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if line != "" && !strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "#") {
			lines[i] = strings.Repeat("x", len(line))
		}
	}
	return strings.Join(lines, "\n")
}

func FuzzKeyFile(f *testing.F) {
	f.Add(GenerateStaticKey())
	f.Add(GenerateServerKeyV2())
	client, err := newTestServerKey(f).GenerateClientKey([]byte("x"), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(client)
	var v struct {
		Invalid []struct{ Text string }
	}
	readVectors(f, "static-key.json", &v)
	for _, c := range v.Invalid {
		f.Add([]byte(c.Text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := ParseStaticKey(text); err == nil {
			if _, err := NewAuthKey(key, -1, "SHA512"); err != nil {
				t.Errorf("static key: %v", err)
			}
		}
		if raw, err := ParseServerKeyV2(text); err == nil {
			if _, err := NewServerKey(raw); err != nil {
				t.Errorf("server key: %v", err)
			}
		}
		if kc, wkc, err := ParseClientKeyV2(text); err == nil {
			if _, err := NewClientWrapV2(kc, wkc, true, time.Now()); err != nil || len(wkc) < wkcMin || len(wkc) > wkcMax {
				t.Errorf("client key: wrapped %d bytes, %v", len(wkc), err)
			}
		}
	})
}
