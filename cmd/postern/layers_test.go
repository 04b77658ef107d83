package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers says which of our packages each package may import. A leaf never imports a leaf; test files may also use
// the fakes beside what they fake.
var layers = map[string][]string{
	"postern/cmd/postern":          nil, // knows everything
	"postern/cmd/lab":              {},  // not part of the product: networks for tests and the demo
	"postern/cmd/lab/depot":        {},
	"postern/cmd/demo":             {"postern/cmd/lab", "postern/auth/slapdtest"},
	"postern/cmd/interop":          {},
	"postern/cmd/bench":            {"postern/cmd/lab", "postern/server/firewall"},
	"postern/cmd/vpnload":          {"postern/tlsctl", "postern/server/datachan", "postern/server/link"},
	"postern/server":               {"postern/tlsctl", "postern/auth", "postern/tun", "postern/server/link", "postern/server/datachan", "postern/server/config", "postern/server/hooks", "postern/server/management", "postern/server/audit"},
	"postern/server/audit":         {},
	"postern/server/config":        {},
	"postern/server/link":          {},
	"postern/server/link/linktest": {"postern/server/link"},
	"postern/server/datachan":      {},
	"postern/server/firewall":      {},
	"postern/server/hostnet":       {},
	"postern/server/hooks":         {},
	"postern/server/dnsforward":    {},
	"postern/server/management":    {},
	"postern/tlsctl":               {},
	"postern/tlsctl/ctltest":       {"postern/tlsctl"},
	"postern/auth":                 {},
	"postern/auth/pki":             {},
	"postern/auth/profile":         {},
	"postern/auth/authldapconf":    {},
	"postern/auth/slapdtest":       {},
	"postern/tun":                  {},
	"postern/tun/tuntest":          {"postern/tun"},
}

// thirdParty says which packages alone may import a module of others.
var thirdParty = map[string][]string{
	"github.com/urfave/cli":          {"postern/cmd/postern"},
	"github.com/pion/dtls":           {"postern/tlsctl"},
	"github.com/go-ldap/ldap":        {"postern/auth"},
	"github.com/songgao/water":       {"postern/tun"},
	"github.com/google/nftables":     {"postern/server/firewall"},
	"github.com/vishvananda/netlink": {"postern/tun", "postern/server/hostnet"},
	"github.com/miekg/dns":           {"postern/server/dnsforward"},
	"rsc.io/qr":                      {"postern/cmd/postern"},
	"software.sslmate.com/src":       {"postern/server/config"},
	"golang.org/x/crypto":            {"postern/auth", "postern/server/datachan", "postern/auth/pki"},
}

// silent packages log nothing: their callers do.
var silent = []string{"postern/server/datachan", "postern/server/config", "postern/server/audit"}

func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "postern/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		allowed, known := layers[p.ImportPath]
		if !known {
			t.Errorf("package %s has no place in the picture: give it a row in layers", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "postern/") && allowed != nil && !slices.Contains(allowed, imp) {
				t.Errorf("%s imports %s: the layers forbid it", p.ImportPath, imp)
			}
			if imp == "github.com/rs/zerolog" && slices.Contains(silent, p.ImportPath) {
				t.Errorf("%s logs: it must not", p.ImportPath)
			}
			for module, where := range thirdParty {
				if strings.HasPrefix(imp, module) && !slices.Contains(where, p.ImportPath) {
					t.Errorf("%s imports %s: only %v may", p.ImportPath, imp, where)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("go list named %d packages: the test looks at the wrong place", seen)
	}
}
