package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCompleteDirectives(t *testing.T) {
	complete := func(args ...string) []string {
		var out bytes.Buffer
		if err := openvpn(t.Context(), &out, append(args, completionFlag)); err != nil {
			t.Fatal(err)
		}
		return strings.Fields(out.String())
	}
	all := complete("--config", "server.conf")
	for _, name := range []string{"--status", "--genkey", "--ldap-url", "--config"} {
		if !slices.Contains(all, name) {
			t.Errorf("%s is not offered", name)
		}
	}
	if slices.Contains(all, "--client") {
		t.Error("--client is offered, and would be refused")
	}
	if got, want := complete("--topology"), []string{"subnet", "net30", "p2p"}; !slices.Equal(got, want) {
		t.Errorf("behind --topology: %q, want %q", got, want)
	}
	if got := complete("--config"); len(got) != 0 {
		t.Errorf("behind --config: %q, want nothing: the shell knows files", got)
	}
}

// The script for bash, in bash: commands, flags and directives.
func TestE2ECompletion(t *testing.T) {
	if testing.Short() {
		t.Skip("end-to-end: not with -short")
	}
	buildPrograms(t)
	for _, c := range []struct{ words, want string }{
		{"postern che", "check"}, {"postern check --con", "--config"}, {"postern openvpn --status-v", "--status-version"},
		{"postern openvpn --topology n", "net30"},
	} {
		words := strings.Fields(c.words)
		cmd := exec.Command("bash", "-c", `source <(postern completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _postern; echo "${COMPREPLY[*]}"`, "bash")
		cmd.Args = append(cmd.Args, words...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(programs.postern)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s<TAB>: %q, %v; want %s", c.words, got, err, c.want)
		}
	}
}
