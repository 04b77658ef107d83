package profile

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sample(t testing.TB) Profile {
	return Profile{
		Name:        "alice",
		Remotes:     []Remote{{"vpn.example.com", 1194, "udp"}},
		CA:          file(t, "ca.crt"),
		Cert:        file(t, "alice.crt"),
		Key:         file(t, "alice.key"),
		VerifyName:  "server",
		DataCiphers: []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"},
		Auth:        "SHA1",
	}
}

// profiles are the shapes that profiles come in, by the names of their golden files.
func profiles(t testing.TB) map[string]Profile {
	login := sample(t)
	login.Wrap, login.WrapKey, login.Login, login.BlockOutsideDNS = TLSCryptV2, file(t, "v2.key"), true, true
	login.Comments = []string{"Office network.", `up /bin/sh is only a remark here`}

	several := sample(t)
	several.Remotes = []Remote{{"vpn.example.com", 1194, "udp4"}, {"2001:db8::1", 1194, "udp6"}, {"192.0.2.1", 443, "tcp"}}
	several.Wrap, several.WrapKey = TLSCrypt, file(t, "static.key")
	several.VerifyName, several.TLSMin, several.MTU, several.Auth = "Main Office", "1.3", 1400, "SHA256"
	several.DataCiphers = []string{"CHACHA20-POLY1305", "AES-128-GCM"}

	tlsauth := sample(t)
	tlsauth.Wrap, tlsauth.WrapKey, tlsauth.Auth = TLSAuth, file(t, "static.key"), "SHA512"

	password := sample(t)
	password.Cert, password.Key, password.Login = nil, nil, true

	code := sample(t)
	code.Login, code.CodeText = true, "Code from the app: #1"

	return map[string]Profile{"code": code, "plain": sample(t), "login": login, "several": several, "tls-auth": tlsauth, "password": password}
}

func TestGolden(t *testing.T) {
	for name, p := range profiles(t) {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, p); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".ovpn")
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("got:\n%s\nwant %s (go test -update after a look at the difference)", b.Bytes(), golden)
			}
			checkLines(t, b.Bytes())
		})
	}
}

// OpenVPN itself takes every shape without a complaint.
func TestOpenVPNAccepts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs openvpn")
	}
	for name, p := range profiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A server that never answers, so that the client gets past its options and no further.
			udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			port := uint16(udp.LocalAddr().(*net.UDPAddr).Port)
			proto := strings.TrimRight(p.Remotes[0].Proto, "46")
			p.Remotes = []Remote{{"127.0.0.1", port, proto}}
			var b bytes.Buffer
			if err := Write(&b, p); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			conf, login := filepath.Join(dir, "c.ovpn"), filepath.Join(dir, "login")
			if err := os.WriteFile(conf, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(login, []byte("alice\nsecret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"--config", conf, "--dev", "null", "--connect-timeout", "1", "--connect-retry-max", "1"}
			if p.Login {
				args = append(args, "--auth-user-pass", login, "--auth-nocache")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, "openvpn", args...).CombinedOutput()
			far := "link remote"
			if p.CodeText != "" { // nobody is there to be asked, but what is asked is whole
				far = "can't ask for 'CHALLENGE: " + p.CodeText + "'"
			}
			if ctx.Err() != nil || !strings.Contains(string(out), far) {
				t.Fatalf("openvpn did not get as far as connecting: %v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				for _, bad := range []string{"Options error", "Unrecognized", "DEPRECATED", "WARNING", "deprecated"} {
					// The one option of Windows, on another system.
					if strings.Contains(line, bad) && !(p.BlockOutsideDNS && strings.Contains(line, "block-outside-dns")) {
						t.Errorf("openvpn: %s", line)
					}
				}
			}
		})
	}
}

// S092: no value adds a directive or ends a block.
func TestInjection(t *testing.T) {
	const up = "\nup /bin/sh\n"
	for name, change := range map[string]func(*Profile){
		"name":              func(p *Profile) { p.Name = "x" + up },
		"name, return":      func(p *Profile) { p.Name = "x\rup /bin/sh" },
		"name, U+2028":      func(p *Profile) { p.Name = "x\u2028up" },
		"name, empty":       func(p *Profile) { p.Name = "" },
		"comment":           func(p *Profile) { p.Comments = []string{"x" + up} },
		"host":              func(p *Profile) { p.Remotes[0].Host = "a\n</ca>" },
		"host with words":   func(p *Profile) { p.Remotes[0].Host = "a 1194 tcp" },
		"host, an option":   func(p *Profile) { p.Remotes[0].Host = "-x" },
		"host, zone":        func(p *Profile) { p.Remotes[0].Host = "fe80::1%eth0\nup" },
		"host, no ASCII":    func(p *Profile) { p.Remotes[0].Host = "bücher.example" },
		"host, empty":       func(p *Profile) { p.Remotes[0].Host = "" },
		"host, quoted":      func(p *Profile) { p.Remotes[0].Host = `"a"` },
		"no host":           func(p *Profile) { p.Remotes = nil },
		"port":              func(p *Profile) { p.Remotes[0].Port = 0 },
		"proto":             func(p *Profile) { p.Remotes[0].Proto = "udp\nup" },
		"server name":       func(p *Profile) { p.VerifyName = "server name" + up },
		"server name quote": func(p *Profile) { p.VerifyName = `a" name" b` },
		"server name slash": func(p *Profile) { p.VerifyName = `a\` },
		"cipher":            func(p *Profile) { p.DataCiphers = []string{"AES-256-GCM\nup"} },
		"cipher, word":      func(p *Profile) { p.DataCiphers = []string{"AES-256-GCM up"} },
		"cipher, list":      func(p *Profile) { p.DataCiphers = slices.Repeat([]string{"AES-256-GCM"}, 20) },
		"digest":            func(p *Profile) { p.Auth = "SHA1" + up },
		"TLS":               func(p *Profile) { p.TLSMin = "1.2 or-highest\nup" },
		"MTU":               func(p *Profile) { p.MTU = -1 },
		"no CA":             func(p *Profile) { p.CA = nil },
		"CA that is a key":  func(p *Profile) { p.CA = p.Key },
		"no key":            func(p *Profile) { p.Key = nil },
		"no certificate":    func(p *Profile) { p.Cert = nil },
		"another's key":     func(p *Profile) { p.Cert = p.CA },
		"wrap without key":  func(p *Profile) { p.Wrap = TLSCrypt },
		"key without wrap":  func(p *Profile) { p.WrapKey = file(t, "static.key") },
		"wrong key file":    func(p *Profile) { p.Wrap, p.WrapKey = TLSCryptV2, file(t, "static.key") },
		"static key end": func(p *Profile) {
			p.Wrap = TLSAuth
			p.WrapKey = bytes.Replace(file(t, "static.key"), []byte("-----END"), []byte("</tls-auth>\nup /bin/sh\n-----END"), 1)
		},
		"key header": func(p *Profile) {
			p.Key = []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\nX: </key>\n\nAAAA\n-----END EC PRIVATE KEY-----\n")
		},
	} {
		p := sample(t)
		change(&p)
		var b bytes.Buffer
		if err := Write(&b, p); err == nil || b.Len() > 0 {
			t.Errorf("%s: error %v, and wrote %q", name, err, b.String())
		}
	}

	// What stands around the keys in their files stays behind.
	p := sample(t)
	p.Wrap, p.WrapKey = TLSAuth, append(append([]byte(up+"</tls-auth>\n"), file(t, "static.key")...), up...)
	p.CA = append(append([]byte("</ca>"+up), p.CA...), "</ca>"+up...)
	p.Cert = append(append([]byte(nil), p.Cert...), "</cert>"+up...)
	p.Key = append(append([]byte("# "+up), p.Key...), "</key>"+up...)
	var b bytes.Buffer
	if err := Write(&b, p); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "up /bin/sh") {
		t.Errorf("taken over:\n%s", b.String())
	}
	checkLines(t, b.Bytes())
}

// checkLines reads a profile as a client would: known directives only, blocks of base64 and hexadecimal digits.
func checkLines(t testing.TB, b []byte) {
	t.Helper()
	known := strings.Fields("client dev tun-mtu remote resolv-retry nobind persist-key persist-tun explicit-exit-notify remote-cert-tls " +
		"verify-x509-name tls-version-min ignore-unknown-option data-ciphers cipher auth auth-user-pass static-challenge setenv verb key-direction")
	block := ""
	for n, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		at := fmt.Sprintf("line %d, %q", n+1, line)
		word, _, _ := strings.Cut(line, " ")
		switch {
		case len(line) > maxLine:
			t.Errorf("%s is %d bytes long", at, len(line))
		case block != "" && line == "</"+block+">":
			block = ""
		case block != "":
			if strings.ContainsAny(line, "<>") {
				t.Errorf("%s in block %s", at, block)
			}
		case line == "" || line[0] == '#':
		case line[0] == '<':
			block = strings.Trim(line, "<>")
		case !slices.Contains(known, word):
			t.Errorf("%s: unknown directive", at)
		}
	}
	if block != "" {
		t.Errorf("block %s does not end", block)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("alice", "vpn.example.com", "udp", "server", "AES-256-GCM", "SHA256", "a comment", []byte(nil))
	f.Add("x\nup /bin/sh", "a\n</ca>", "tcp", `"`, ":", "-", "\r", []byte("</tls-crypt>"))
	f.Add("ä", "2001:db8::1", "udp6", "a b", "none", "SHA1", "#", []byte(staticHead+strings.Repeat("0", 512)+staticFoot))
	base := sample(f)
	f.Fuzz(func(t *testing.T, name, host, proto, server, cipher, auth, comment string, key []byte) {
		p := base
		p.Name, p.VerifyName, p.DataCiphers, p.Auth, p.Comments = name, server, strings.Split(cipher, ":"), auth, []string{comment}
		p.Remotes = []Remote{{host, 1194, proto}}
		if len(key) > 0 {
			p.Wrap, p.WrapKey = TLSCrypt, key
		}
		var b bytes.Buffer
		if err := Write(&b, p); err != nil {
			if b.Len() > 0 {
				t.Fatal("an error and half a profile")
			}
			return
		}
		checkLines(t, b.Bytes())
	})
}
