package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"postern/cmd/lab"
)

// Every transport, wrap, TLS version and data cipher: connect, large pings, 50 MB each way with equal checksums.
func TestE2EMatrix(t *testing.T) {
	for _, proto := range []string{"udp", "tcp"} {
		for _, wrap := range []string{"none", "tls-auth", "tls-crypt", "tls-crypt-v2"} {
			t.Run(proto+"/"+wrap, func(t *testing.T) {
				t.Parallel()
				testMatrix(t, proto, wrap)
			})
		}
	}
}

var aeadCiphers = []string{"AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305"}

func testMatrix(t *testing.T, proto, wrap string) {
	f := newField(t, "alice")
	serverWrap, clientWrap := f.wraps(wrap)
	conf := append([]string{"proto " + proto, "data-ciphers " + strings.Join(aeadCiphers, ":")}, serverWrap...)
	f.serve(conf...)
	for _, version := range []string{"1.2", "1.3"} {
		for _, cipher := range aeadCiphers {
			t.Run("tls"+version+"/"+cipher, func(t *testing.T) {
				f.t = t
				remote := fmt.Sprintf("remote %v 1194 %s", f.Host("router").Wan4, map[string]string{"udp": "udp", "tcp": "tcp-client"}[proto])
				more := append([]string{remote, "tls-version-min 1.2", "tls-version-max " + version, "data-ciphers " + cipher}, clientWrap...)
				v := f.connect("alice", more...)
				defer v.stop()
				log := v.Output()
				if want := "Data Channel: cipher '" + cipher; !strings.Contains(log, want) {
					t.Errorf("the client's log lacks %q", want)
				}
				if want := "Control Channel: TLSv" + version; !strings.Contains(log, want) {
					t.Errorf("the client's log lacks %q", want)
				}
				v.ping(lab.Lan4, 5, 1400)
				v.move(50_000_000)
				for _, bad := range []string{"WARNING: 'link-mtu'", "Authenticate/Decrypt packet error", "Bad LZO", "(may be a replay)"} {
					if strings.Contains(v.Output(), bad) {
						t.Errorf("the client complains: %q", bad)
					}
				}
			})
		}
	}
	f.t = t
}

// wraps makes the keys of a wrap and returns the lines both ends need.
func (f *field) wraps(wrap string) (server, client []string) {
	f.t.Helper()
	key := filepath.Join(f.Dir, wrap+".key")
	switch wrap {
	case "none":
	case "tls-auth":
		f.postern("key", "tls-auth", "--out", key)
		return []string{"tls-auth " + key + " 0"}, []string{"tls-auth " + key + " 1"}
	case "tls-crypt":
		f.postern("key", "tls-crypt", "--out", key)
		return []string{"tls-crypt " + key}, []string{"tls-crypt " + key}
	case "tls-crypt-v2":
		f.postern("key", "tls-crypt-v2-server", "--out", key)
		own := filepath.Join(f.Dir, "own-v2.key")
		f.postern("key", "tls-crypt-v2-client", "--server-key", key, "--out", own)
		return []string{"tls-crypt-v2 " + key}, []string{"tls-crypt-v2 " + own}
	default:
		f.t.Fatalf("wrap %q", wrap)
	}
	return nil, nil
}
