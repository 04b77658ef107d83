package main

import (
	"fmt"
	"strings"
	"testing"

	"postern/cmd/lab"
)

// The data formats of older clients and profiles, as far as a stock client of today speaks them: both ends agree, and
// packets of all sizes pass, over both transports.
func TestE2EDataFormats(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"udp", "tcp"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			f := newField(t, "alice")
			f.serve("proto "+proto, "auth SHA256", "data-ciphers AES-256-GCM:AES-256-CBC", "data-ciphers-fallback AES-128-CBC", "reneg-sec 3")
			remote := fmt.Sprintf("remote %v 1194 %s", f.Host("router").Wan4, map[string]string{"udp": "udp", "tcp": "tcp-client"}[proto])
			for _, c := range []struct {
				name   string
				more   []string
				logged string
			}{
				{"CBC", []string{"auth SHA256", "data-ciphers AES-256-CBC"}, "Data Channel: cipher 'AES-256-CBC', auth 'SHA256'"},
				{"comp-lzo no", []string{"comp-lzo no"}, "compression: 'stubv2'"},
				{"compress stub-v2", []string{"compress stub-v2"}, "compression: 'stubv2'"},
				{"asymmetric", []string{"compress lz4-v2", "allow-compression asym"}, "compression: 'stubv2'"},
				{"CBC and comp-lzo no", []string{"auth SHA256", "data-ciphers AES-256-CBC", "comp-lzo no"}, "auth 'SHA256'"},
			} {
				t.Run(c.name, func(t *testing.T) {
					f.t = t
					v := f.connect("alice", append(c.more, remote)...)
					defer v.stop()
					v.ping(lab.Lan4, 5, 56)
					v.ping(lab.Lan4, 5, 1400)
					v.ping(lab.Lan6, 5, 1200)
					v.move(5_000_000)
					v.ping(lab.Lan4, 80, 56) // 4 s: through a renegotiation
					log := v.Output()
					if !strings.Contains(log, c.logged) {
						t.Errorf("the client's log lacks %q", c.logged)
					}
					for _, bad := range []string{"Authenticate/Decrypt packet error", "Bad LZO", "(may be a replay)", "compression option"} {
						if strings.Contains(log, bad) {
							t.Errorf("the client complains: %q", bad)
						}
					}
				})
			}
			f.t = t
		})
	}
}
