package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Five hundred configurations that somebody has broken: every message names a file and a line of it, or a directive
// that is missing, and nothing panics.
func TestMutatedConfigurations(t *testing.T) {
	const seed, mutants = 5, 500
	var samples []string
	for _, pattern := range []string{"testdata/conf/*.conf", "../../cmd/postern/testdata/families/*.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			samples = append(samples, string(b))
		}
	}
	m := sampleMachine()
	rng := rand.New(rand.NewPCG(seed, seed))
	refused := 0
	for i := range mutants {
		text := samples[rng.IntN(len(samples))]
		for range 1 + rng.IntN(5) {
			text = mutate(rng, text)
		}
		c, r, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(text), nil)
		if (c == nil) != (err != nil) {
			t.Fatalf("mutant %d: config %v, error %v\n%s", i, c != nil, err, text)
		}
		if err == nil {
			continue
		}
		refused++
		var problems Errors
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("mutant %d: %T %v", i, err, err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			missing := p.Line == 0 && p.Directive != "" && strings.HasPrefix(p.Error(), "/etc/openvpn/server.conf: "+p.Directive+": ")
			placed := p.Line > 0 && p.Line <= lines && strings.HasPrefix(p.Error(), fmt.Sprintf("/etc/openvpn/server.conf:%d: %s: ", p.Line, p.Directive))
			if p.File != "/etc/openvpn/server.conf" || !missing && !placed || p.Message == "" {
				t.Errorf("mutant %d of %d lines: %+v", i, lines, p)
			}
		}
		if n := r.Count(Refused); n == 0 {
			t.Errorf("mutant %d: refused, but no line is", i)
		}
	}
	if refused < mutants/2 {
		t.Errorf("only %d of %d mutants are refused: they are not broken enough", refused, mutants)
	}
}

// mutate does to a configuration what people do by accident.
func mutate(rng *rand.Rand, text string) string {
	lines := strings.Split(text, "\n")
	at := rng.IntN(len(lines))
	words := strings.Fields(lines[at])
	all := Directives()
	other := all[rng.IntN(len(all))].Name
	pick := func() int { return rng.IntN(max(len(lines[at]), 1)) }
	switch rng.IntN(14) {
	case 0: // a slip of the finger
		if len(lines[at]) > 0 {
			p := pick()
			lines[at] = lines[at][:p] + string(rune(33+rng.IntN(94))) + lines[at][p+1:]
		}
	case 1: // a key too few
		if len(lines[at]) > 0 {
			p := pick()
			lines[at] = lines[at][:p] + lines[at][p+1:]
		}
	case 2: // the line twice
		lines = append(lines[:at+1], lines[at:]...)
	case 3: // the line not at all
		lines = append(lines[:at], lines[at+1:]...)
	case 4: // a word too many
		lines[at] += " " + other
	case 5: // a word too few
		if len(words) > 1 {
			lines[at] = strings.Join(words[:len(words)-1], " ")
		}
	case 6: // another number
		if len(words) > 1 {
			words[1+rng.IntN(len(words)-1)] = fmt.Sprint(rng.Int64N(1<<40) - 1<<39)
			lines[at] = strings.Join(words, " ")
		}
	case 7: // another directive's name
		if len(words) > 0 {
			words[0] = other
			lines[at] = strings.Join(words, " ")
		}
	case 8: // a directive from elsewhere, with whatever behind it
		lines[at] += "\n" + other + strings.Repeat(" 1", rng.IntN(5))
	case 9: // a quotation mark
		p := pick()
		lines[at] = lines[at][:min(p, len(lines[at]))] + `"` + lines[at][min(p, len(lines[at])):]
	case 10: // a block that never ends
		lines[at] += "\n<" + other + ">"
	case 11: // bytes of another program
		lines[at] += string([]byte{byte(rng.Uint32()), byte(rng.Uint32()), 0xff, 0})
	case 12: // two lines that became one
		if at+1 < len(lines) {
			lines[at] += " " + lines[at+1]
			lines = append(lines[:at+1], lines[at+2:]...)
		}
	case 13: // a path of Windows
		lines[at] += ` C:\vpn\keys`
	}
	return strings.Join(lines, "\n")
}
