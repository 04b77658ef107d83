package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// Wireshark's dissector, another reader of the protocol than the stock client, finds no malformed packet in our streams:
// over UDP and TCP, under the wraps it can look into, through a handshake, data, a renegotiation and a goodbye.
func TestE2EDissector(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"udp", "tcp"} {
		for _, wrap := range []string{"none", "tls-auth"} {
			t.Run(proto+"/"+wrap, func(t *testing.T) {
				t.Parallel()
				f := newField(t, "alice")
				serverWrap, clientWrap := f.wraps(wrap)
				f.serve(append([]string{"proto " + proto, "reneg-sec 3", "tls-version-max 1.2"}, serverWrap...)...)
				capture := filepath.Join(f.Dir, "wan.pcap")
				dump, err := f.Host("router").Start("tcpdump.log", "tcpdump", "-n", "--immediate-mode", "-U", "-Z", "root", "-i", "eth0", "-w", capture, "port", "1194")
				f.must(err)
				f.must(dump.Expect("listening on", 1, 10*time.Second))
				remote := fmt.Sprintf("remote %v 1194 %s", f.Host("router").Wan4, map[string]string{"udp": "udp", "tcp": "tcp-client"}[proto])
				v := f.connect("alice", append([]string{remote}, clientWrap...)...)
				v.ping(lab.Lan4, 100, 1400) // 5 s: through a renegotiation
				v.stop()
				f.must(dump.Signal(syscall.SIGINT))
				f.must(dump.Wait(10 * time.Second))

				opcodes := make(map[int]int)
				for _, s := range strings.FieldsFunc(f.tshark(capture, proto, wrap, "-T", "fields", "-e", "openvpn.opcode"), func(r rune) bool { return r == '\n' || r == ',' }) {
					n, err := strconv.ParseInt(s, 0, 0)
					f.must(err)
					opcodes[int(n)]++
				}
				// Both resets, control, acknowledgements, a soft reset and data.
				for _, op := range []int{3, 4, 5, 7, 8, 9} {
					if opcodes[op] == 0 {
						t.Errorf("no packet of opcode %d: %v", op, opcodes)
					}
				}
				if opcodes[9] < 200 {
					t.Errorf("%d data packets for 100 pings", opcodes[9])
				}
				// Control packets of a renegotiation are under a key of the session's own (dynamic tls-crypt): nobody else reads
				// them, and tshark does not know that it cannot.
				const legible = "!(openvpn.opcode in {3, 4, 5} && openvpn.keyid > 0)"
				if bad := f.tshark(capture, proto, wrap, "-Y", "(_ws.malformed || _ws.expert.severity == error) && "+legible); bad != "" {
					t.Errorf("tshark complains:\n%s", bad)
				}
				// It has put the handshake together, too: all of TLS's is in there.
				for _, kind := range []string{"1", "2", "11", "16"} { // hellos, a certificate, a key exchange
					if f.tshark(capture, proto, wrap, "-Y", "tls.handshake.type == "+kind) == "" {
						t.Errorf("no TLS handshake message %s found", kind)
					}
				}
			})
		}
	}
}

// tshark reads a capture as OpenVPN's.
func (f *field) tshark(capture, proto, wrap string, args ...string) string {
	f.t.Helper()
	all := append([]string{"-n", "-r", capture, "-d", proto + ".port==1194,openvpn"}, args...)
	if wrap == "tls-auth" {
		all = append(all, "-o", "openvpn.tls_auth:TRUE", "-o", "openvpn.tls_auth_detection_override:TRUE")
	}
	cmd := exec.Command("tshark", all...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("tshark: %v: %s", err, complaints.String())
	}
	return strings.TrimSpace(string(out))
}
