package hooks

import (
	"strings"
	"testing"
)

func TestRepeatedFields(t *testing.T) {
	c := &ClientInfo{Chain: []CertInfo{{Fields: []Var{{"OU", "A"}, {"CN", "x"}, {"OU", "B"}, {"OU", "C"}}}}}
	env := Environment(&Daemon{}, c)
	for name, want := range map[string]string{"X509_0_OU": "A", "X509_0_OU_1": "B", "X509_0_OU_2": "C", "X509_0_CN": "x"} {
		if got, _ := env.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// S090: whatever a client calls its variables and writes into them, the environment keeps its shape.
func FuzzPeerVariables(f *testing.F) {
	f.Add("IV_VER", "2.6.14")
	f.Add("IV_A=LD_PRELOAD", "x\x00\nBASH_ENV=/x")
	f.Add("LD_PRELOAD", "")
	f.Fuzz(func(t *testing.T, name, value string) {
		c := &ClientInfo{CommonName: value, Username: value, Peer: []Var{{name, value}}, Chain: []CertInfo{{Subject: value, Fields: []Var{{name, value}, {name, value}}}}}
		env := Environment(&Daemon{}, c)
		seen := map[string]bool{}
		for _, s := range env.strings() {
			name, _, ok := strings.Cut(s, "=")
			if !ok || !goodName(name) || seen[name] {
				t.Errorf("variable %q, seen before: %v", s, seen[name])
			}
			seen[name] = true
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("control character in %q", s)
			}
		}
		for _, no := range []string{"LD_PRELOAD", "BASH_ENV", "PATH", "IFS"} {
			if seen[no] {
				t.Errorf("%s is set", no)
			}
		}
	})
}
