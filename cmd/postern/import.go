package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern/auth/pki"
	"postern/server/config"
)

// importCommand is `postern import`: it looks at an OpenVPN server's directory, and copies what is taken over.
func importCommand() *cli.Command {
	return &cli.Command{
		Name:  "import",
		Usage: "show what of an OpenVPN server's directory is taken over, and copy it with --apply",
		Description: "Nothing is changed without --apply. With it each configuration that can be served is copied to --to, with the files\n" +
			"that it names and that lie beside it; what it names elsewhere stays there and is used from there. Nothing in --to is\n" +
			"replaced, and nothing in --from is changed: docs/migrate.md tells how to go on, and back.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Value: "/etc/openvpn", Usage: "OpenVPN's `DIR`"},
			&cli.StringFlag{Name: "to", Value: "/etc/postern", Usage: "Postern's `DIR`"},
			&cli.BoolFlag{Name: "apply", Usage: "copy, after showing"},
		},
		Action: func(c *cli.Context) error {
			found, err := findServers(c.String("from"))
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return fmt.Errorf("there is no configuration of a server in %s or %[1]s/server", c.String("from"))
			}
			out := bufio.NewWriter(c.App.Writer)
			defer out.Flush()
			bad := 0
			for _, s := range found {
				s.show(out)
				if s.cfg == nil {
					bad++
				}
			}
			showAuthorities(out, c.String("from"))
			if c.Bool("apply") {
				if err := copyServers(out, found, c.String("to")); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(out, "\nNothing was changed. With --apply, what can be served is copied to %s.\n", c.String("to"))
			}
			if bad > 0 {
				return cli.Exit("", 1)
			}
			return nil
		},
	}
}

// A foundServer is one configuration, and what it would be served as.
type foundServer struct {
	path     string
	cfg      *config.Config // nil when it cannot be served as it is
	report   *config.Report
	problems config.Errors
}

// name is what systemd calls the server: that of the file without .conf.
func (s *foundServer) name() string { return strings.TrimSuffix(filepath.Base(s.path), ".conf") }

// unit is the unit of OpenVPN's packages that serves it.
func (s *foundServer) unit() string {
	if filepath.Base(filepath.Dir(s.path)) == "server" {
		return "openvpn-server@" + s.name()
	}
	return "openvpn@" + s.name()
}

// findServers loads what distributions' units would serve. Profiles of clients are left out.
func findServers(dir string) (found []*foundServer, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	for _, pattern := range []string{"*.conf", "server/*.conf"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			s := &foundServer{path: name}
			// Relative names start where the unit starts its server.
			s.cfg, s.report, err = loadConfig("", []string{"cd", filepath.Dir(name)}, []string{"config", name})
			if err != nil && !errors.As(err, &s.problems) {
				return nil, err
			}
			if !s.isClient() {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

func (s *foundServer) isClient() bool {
	return slices.ContainsFunc(s.report.Entries, func(e config.Entry) bool {
		return e.Directive == "client" || e.Directive == "tls-client" || e.Directive == "remote"
	})
}

// show tells of one server, for people.
func (s *foundServer) show(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", s.path, checkVerdict(s.report, s.problems))
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %-14s %s\n", what, printable(fmt.Sprintf(format, args...)))
	}
	row("unit", "%s, in its place postern-server@%s", s.unit(), s.name())
	for _, p := range s.problems {
		row("to change", "%v", p)
	}
	for _, e := range s.report.Entries {
		if e.Verdict == config.Noticed {
			row("notice", "%s: %s: %s", e.At(), e.Directive, e.Why)
		}
	}
	if s.cfg == nil {
		return
	}
	for _, f := range s.files() {
		where := "copied"
		if !f.beside {
			where = "stays where it is"
		}
		row(f.directive, "%s (%s)", f.path, where)
	}
	s.showClients(row)
	s.showPool(row)
	for _, hook := range slices.Sorted(maps.Keys(s.cfg.Scripts.Commands)) {
		program := s.cfg.Scripts.Commands[hook][0]
		info, err := os.Stat(program)
		switch {
		case err != nil:
			row(hook, "%v", err)
		case info.Mode()&0o111 == 0:
			row(hook, "%s is not executable: chmod +x", program)
		default:
			row(hook, "%s (stays where it is)", program)
		}
	}
	if m := s.cfg.Management; m.Network != "" {
		row("management", "%v", m)
	}
	if s.cfg.Status != "" {
		row("status", "%s, version %d", s.cfg.Status, s.cfg.StatusVersion)
	}
}

// showClients tells of the files of client-config-dir, and of lines in them that would be skipped.
func (s *foundServer) showClients(row func(string, string, ...any)) {
	dir := s.cfg.ClientConfigDir
	if dir == "" {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		row("client files", "%v", err)
		return
	}
	n := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "DEFAULT" {
			continue
		}
		n++
		client, err := config.LoadClient(dir, e.Name(), true)
		if err != nil {
			row("client file", "%v", err)
			continue
		}
		for _, warning := range client.Warnings {
			row("client file", "%s", warning)
		}
	}
	row("client files", "%d in %s", n, dir)
}

// showPool tells what is remembered of addresses.
func (s *foundServer) showPool(row func(string, string, ...any)) {
	if s.cfg.PoolPersist == "" {
		return
	}
	b, err := os.ReadFile(s.cfg.PoolPersist)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		row("addresses", "%v", err)
		return
	}
	kept, lost := 0, 0
	for line := range bytes.Lines(b) {
		fields := strings.Split(strings.TrimSpace(string(line)), ",")
		if fields[0] == "" || fields[0][0] == '#' || fields[0][0] == ';' {
			continue
		}
		known := false
		for _, f := range fields[1:] {
			if a, err := netip.ParseAddr(strings.TrimSpace(f)); err == nil && (s.cfg.Addr4.Contains(a) || s.cfg.Addr6.Contains(a)) {
				known = true
			}
		}
		if known {
			kept++
		} else {
			lost++
		}
	}
	row("addresses", "%d remembered in %s", kept, s.cfg.PoolPersist)
	if lost > 0 {
		row("addresses", "%d lines in it hold no address of this network", lost)
	}
}

// A namedFile is a file or directory that a configuration names.
type namedFile struct {
	directive, path string
	beside          bool // beneath the configuration's directory: it is copied
	written         bool // may be missing
}

// files lists what the configuration names, itself first.
func (s *foundServer) files() (list []namedFile) {
	c, dir := s.cfg, filepath.Dir(s.path)
	add := func(directive, path string, written bool) {
		if filepath.IsAbs(path) && !slices.ContainsFunc(list, func(f namedFile) bool { return f.path == path }) {
			_, err := filepath.Rel(dir, path)
			list = append(list, namedFile{directive, path, err == nil && strings.HasPrefix(path, dir+"/"), written})
		}
	}
	add("config", s.path, false)
	for _, e := range s.report.Entries {
		add("config", e.File, false)
	}
	for _, m := range []struct {
		directive string
		config.Material
	}{{"ca", c.CA}, {"cert", c.Cert}, {"key", c.Key}, {"extra-certs", c.ExtraCerts}, {"crl-verify", c.CRL}, {"tls-auth", c.TLSAuth},
		{"tls-crypt", c.TLSCrypt}, {"tls-crypt-v2", c.TLSCryptV2}} {
		add(m.directive, m.Name, false)
	}
	add("client-config-dir", c.ClientConfigDir, false)
	add("ifconfig-pool-persist", c.PoolPersist, true)
	add("auth-users-file", c.Users, false)
	return list
}

// showAuthorities tells of easy-rsa's trees.
func showAuthorities(w io.Writer, from string) {
	for _, dir := range []string{"pki", "easy-rsa/pki", "easy-rsa/keys", "server/easy-rsa/pki", "server/pki"} {
		dir = filepath.Join(from, dir)
		ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			continue
		}
		fmt.Fprintf(w, "%s: a certificate authority of easy-rsa, which stays where it is: `postern pki --dir %[1]s` works on it, and so does easyrsa\n", dir)
		if block, _ := pem.Decode(ca); block != nil {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				fmt.Fprintf(w, "  %-14s %s, until %s\n", "authority", printable(cert.Subject.CommonName), cert.NotAfter.Format(time.DateOnly))
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, "index.txt")); err == nil {
			names, err := pki.RefusedNames(b)
			if err != nil {
				fmt.Fprintf(w, "  %-14s index.txt: %v\n", "names", err)
			}
			for _, name := range names {
				fmt.Fprintf(w, "  %-14s a certificate named %s cannot log in: issue another whose name has A-Z a-z 0-9 . _ @ + - only\n", "names", printable(name))
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, "crl.pem")); err == nil {
			if block, _ := pem.Decode(b); block != nil {
				if list, err := x509.ParseRevocationList(block.Bytes); err == nil {
					fmt.Fprintf(w, "  %-14s %d revoked, to be renewed by %s\n", "list", len(list.RevokedCertificateEntries), list.NextUpdate.Format(time.DateOnly))
				}
			}
		}
	}
}

// copyServers copies what can be served, and says what it did. Nothing that is there is replaced.
func copyServers(w io.Writer, found []*foundServer, to string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, s := range found {
		if s.cfg == nil {
			fmt.Fprintf(w, "%s is not copied: it needs changes first\n", s.path)
			continue
		}
		for _, f := range s.files() {
			if !f.beside {
				continue
			}
			rel, err := filepath.Rel(filepath.Dir(s.path), f.path)
			if err != nil {
				return err
			}
			if err := copyTree(w, f.path, filepath.Join(to, rel), f.written); err != nil {
				return fmt.Errorf("%s: %w", f.directive, err)
			}
		}
		fmt.Fprintf(w, "%s: check with `postern check --config %[1]s`, then let postern@%s serve it\n", filepath.Join(to, filepath.Base(s.path)), s.name())
	}
	return nil
}

// copyTree copies a file, or a directory of files, with modes. A missing one is an error unless the server writes it.
func copyTree(w io.Writer, from, to string, written bool) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) && written {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(to, info.Mode().Perm()); err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				if err := copyTree(w, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), false); err != nil {
					return err
				}
			}
		}
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, b) {
		return nil // of an import before this one
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := writeNew(to, b); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already, with other contents: move it away, or import into another directory", to)
		}
		return err
	}
	if err := os.Chmod(to, info.Mode().Perm()); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s -> %s\n", from, to)
	return nil
}
