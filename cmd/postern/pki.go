package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern/auth/pki"
	"postern/server/audit"
)

// pkiPlaces are where authorities are usually kept: by people who work in easy-rsa's directory, by quickstart, and by
// the installers for OpenVPN.
var pkiPlaces = []string{"pki", "/etc/postern/pki", "/etc/openvpn/easy-rsa/pki", "/etc/openvpn/server/easy-rsa/pki", "/etc/easy-rsa/pki"}

// soon is when an expiry is worth a warning.
const soon = 30 * 24 * time.Hour

// pkiCommand issues and revokes certificates in an easy-rsa 3 directory.
func pkiCommand() *cli.Command {
	dir := &cli.StringFlag{
		Name: "dir", EnvVars: []string{"EASYRSA_PKI"},
		Usage: "the authority's `DIR`, or the easy-rsa directory around it; otherwise the first of " + strings.Join(pkiPlaces, ", "),
	}
	pass := &cli.StringFlag{Name: "passphrase-file", Usage: "the CA key's passphrase is the first line of `FILE`; otherwise it is asked for"}
	algorithm := &cli.StringFlag{Name: "algorithm", Value: "ec", Usage: "make an `ec` (P-256) or rsa key"}
	bits := &cli.IntFlag{Name: "rsa-bits", Value: 3072, Usage: "size of an RSA key, 2048 to 8192"}
	crlDays := &cli.IntFlag{Name: "crl-days", Value: days(pki.DefaultCRLLife), Usage: "how long the revocation list is good for"}
	certDays := &cli.IntFlag{Name: "days", Value: days(pki.DefaultCertLife), Usage: "lifetime, cut to the authority's own"}
	issue := []cli.Flag{dir, pass, algorithm, bits, certDays}

	return &cli.Command{
		Name:  "pki",
		Usage: "issue and revoke certificates, in easy-rsa's layout",
		Description: "Works on an easy-rsa 3 directory as it is, and easyrsa can go on working on it. Do not run both at the\n" +
			"same moment. A running server takes a new revocation list by itself.",
		Subcommands: []*cli.Command{
			audited(&cli.Command{
				Name: "init", Usage: "make a certificate authority",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "dir", Value: "pki", EnvVars: []string{"EASYRSA_PKI"}, Usage: "the authority's `DIR`"},
					pass, algorithm, bits, crlDays,
					&cli.StringFlag{Name: "cn", Value: "Postern CA", Usage: "the authority's common `NAME`"},
					&cli.IntFlag{Name: "days", Value: days(pki.DefaultCALife), Usage: "lifetime"},
					&cli.BoolFlag{Name: "encrypt", Usage: "protect the CA key with a passphrase"},
				},
				Action: pkiInit,
			}),
			audited(&cli.Command{
				Name: "server", Usage: "issue a server's certificate", ArgsUsage: "NAME...", Flags: issue,
				Action: func(c *cli.Context) error { return pkiIssue(c, (*pki.PKI).Server) },
			}),
			audited(&cli.Command{
				Name: "client", Usage: "issue a client's certificate", ArgsUsage: "NAME...", Flags: issue,
				Action: func(c *cli.Context) error { return pkiIssue(c, (*pki.PKI).Client) },
			}),
			audited(&cli.Command{
				Name: "renew", Usage: "issue a certificate anew; the old one stays valid until it expires or NAME is revoked", ArgsUsage: "NAME...",
				Flags:  append([]cli.Flag{&cli.BoolFlag{Name: "keep-key", Usage: "for the same key, which need not be here"}}, issue...),
				Action: func(c *cli.Context) error { return pkiIssue(c, (*pki.PKI).Renew) },
			}),
			audited(&cli.Command{
				Name: "revoke", Usage: "revoke every certificate of a name and renew the revocation list", ArgsUsage: "NAME...",
				Flags: []cli.Flag{dir, pass, crlDays,
					&cli.StringFlag{Name: "reason", Usage: "keyCompromise, affiliationChanged, superseded, cessationOfOperation, ..."}},
				Action: pkiRevoke,
			}),
			{
				Name: "list", Usage: "list all certificates and when they expire",
				Flags:  []cli.Flag{dir, &cli.BoolFlag{Name: "json", Usage: "print everything as JSON"}},
				Action: pkiList,
			},
			audited(&cli.Command{
				Name: "crl", Usage: "renew the revocation list", Flags: []cli.Flag{dir, pass, crlDays},
				Action: func(c *cli.Context) error {
					return withPKI(c, 0, func(p *pki.PKI, _ []string) error {
						next, err := p.CRL(daysFlag(c, "crl-days"))
						if err != nil {
							return err
						}
						fmt.Fprintf(c.App.Writer, "%s is good until %s\n", filepath.Join(p.Dir(), "crl.pem"), date(next))
						return nil
					})
				},
			}),
		},
	}
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }

func daysFlag(c *cli.Context, name string) time.Duration {
	return time.Duration(c.Int(name)) * 24 * time.Hour
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// checkDays refuses what would otherwise mean the default.
func checkDays(c *cli.Context) error {
	for _, name := range []string{"days", "crl-days"} {
		if n := c.Int(name); c.IsSet(name) && (n < 1 || n > 36500) {
			return fmt.Errorf("--%s %d: must be 1 to 36500", name, n)
		}
	}
	return nil
}

func keyType(c *cli.Context) (pki.KeyType, error) {
	switch c.String("algorithm") {
	case "ec":
		return pki.KeyType{}, nil
	case "rsa":
		return pki.KeyType{RSA: c.Int("rsa-bits")}, nil
	}
	return pki.KeyType{}, fmt.Errorf("--algorithm %q: must be ec or rsa", c.String("algorithm"))
}

// withPKI opens the authority that the flags name and hands it over with the command's arguments, of which there must
// be at least one when min is 1, and none when it is 0.
func withPKI(c *cli.Context, min int, do func(p *pki.PKI, names []string) error) error {
	names, err := positional(c)
	if err != nil {
		return err
	}
	if len(names) < min || min == 0 && len(names) > 0 {
		return fmt.Errorf("usage: postern pki %s %s", c.Command.Name, c.Command.ArgsUsage)
	}
	if err := checkDays(c); err != nil {
		return err
	}
	dir, err := findPKI(c.String("dir"), pkiPlaces)
	if err != nil {
		return err
	}
	p, err := pki.Open(dir, pki.Options{Passphrase: passphrase(c)})
	if err != nil {
		return noCA(err, dir)
	}
	defer p.Close()
	return do(p, names)
}

func noCA(err error, dir string) error {
	if errors.Is(err, pki.ErrNoCA) {
		return fmt.Errorf("%w; to make one: postern pki init --dir %s", err, dir)
	}
	return err
}

// findPKI returns the given directory, or the pki directory in it, or else the first of places that is an authority.
func findPKI(given string, places []string) (string, error) {
	isPKI := func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "ca.crt"))
		_, err2 := os.Stat(filepath.Join(dir, "index.txt"))
		return err == nil && err2 == nil
	}
	if given != "" {
		if inside := filepath.Join(given, "pki"); !isPKI(given) && isPKI(inside) {
			return inside, nil
		}
		return given, nil
	}
	for _, dir := range places {
		if isPKI(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no certificate authority in %s: name one with --dir, or make one with: postern pki init", strings.Join(places, ", "))
}

// passphrase asks for the CA key's passphrase when it is needed.
func passphrase(c *cli.Context) func() ([]byte, error) {
	return func() ([]byte, error) {
		if name := c.String("passphrase-file"); name != "" {
			return firstLine(name)
		}
		return askPassphrase(c, "Passphrase of the CA key: ")
	}
}

func firstLine(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

func askPassphrase(c *cli.Context, prompt string) ([]byte, error) {
	in, ok := c.App.Reader.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, fmt.Errorf("%w: there is no terminal to ask on; use --passphrase-file", pki.ErrPassphrase)
	}
	fmt.Fprint(c.App.ErrWriter, prompt)
	pass, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(c.App.ErrWriter)
	return pass, err
}

func pkiInit(c *cli.Context) error {
	if args, err := positional(c); err != nil {
		return err
	} else if len(args) > 0 {
		return errors.New("usage: postern pki init [--dir DIR]")
	}
	if err := checkDays(c); err != nil {
		return err
	}
	key, err := keyType(c)
	if err != nil {
		return err
	}
	var pass []byte
	if c.Bool("encrypt") {
		if pass, err = newPassphrase(c); err != nil {
			return err
		}
		defer clear(pass)
	}
	p, err := pki.Init(c.String("dir"), pki.InitOptions{
		CommonName: c.String("cn"), Key: key, Life: daysFlag(c, "days"), CRLLife: daysFlag(c, "crl-days"), Encrypt: pass,
	})
	if err != nil {
		return err
	}
	defer p.Close()
	ca, err := p.CA()
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: certificate authority %q, good until %s\n", p.Dir(), ca.Subject.CommonName, date(ca.NotAfter))
	return nil
}

func newPassphrase(c *cli.Context) ([]byte, error) {
	var pass []byte
	var err error
	if name := c.String("passphrase-file"); name != "" {
		pass, err = firstLine(name)
	} else if pass, err = askPassphrase(c, "New passphrase of the CA key: "); err == nil {
		var again []byte
		if again, err = askPassphrase(c, "Again: "); err == nil && !bytes.Equal(pass, again) {
			err = errors.New("the two passphrases differ")
		}
	}
	if err == nil && len(pass) < 4 { // OpenSSL, and so easy-rsa, takes no shorter one
		err = errors.New("a passphrase has at least four characters")
	}
	return pass, err
}

func pkiIssue(c *cli.Context, issue func(*pki.PKI, string, pki.IssueOptions) (*pki.Record, error)) error {
	return withPKI(c, 1, func(p *pki.PKI, names []string) error {
		key, err := keyType(c)
		if err != nil {
			return err
		}
		for _, name := range names {
			r, err := issue(p, name, pki.IssueOptions{Key: key, Life: daysFlag(c, "days"), KeepKey: c.Bool("keep-key")})
			if err != nil {
				return err
			}
			if err := recordOf(c, audit.Record{Event: "issue", Name: name, Serial: r.Serial, Reason: r.Kind.String() + " certificate"}); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "%s: %s certificate, good until %s\n",
				filepath.Join(p.Dir(), "issued", name+".crt"), r.Kind, date(r.NotAfter))
		}
		return nil
	})
}

func pkiRevoke(c *cli.Context) error {
	return withPKI(c, 1, func(p *pki.PKI, names []string) error {
		for _, name := range names {
			revoked, err := p.Revoke(name, c.String("reason"), daysFlag(c, "crl-days"))
			if errors.Is(err, pki.ErrRevoked) {
				fmt.Fprintf(c.App.Writer, "%s was revoked already; the revocation list is up to date\n", name)
				continue
			}
			if err != nil {
				return err
			}
			for _, r := range revoked {
				if err := recordOf(c, audit.Record{Event: "revoke", Name: name, Serial: r.Serial, Reason: c.String("reason")}); err != nil {
					return err
				}
				fmt.Fprintf(c.App.Writer, "%s: revoked serial %s\n", name, r.Serial)
			}
		}
		return nil
	})
}

// pkiListing is `postern pki list --json`.
type pkiListing struct {
	Dir          string            `json:"dir"`
	CA           string            `json:"ca"`
	CAExpires    time.Time         `json:"ca_expires"`
	CRLExpires   *time.Time        `json:"crl_expires"` // null: no list
	Certificates []pkiListingEntry `json:"certificates"`
}

type pkiListingEntry struct {
	Name    string     `json:"name"`
	File    string     `json:"file,omitempty"`
	Kind    string     `json:"kind"`
	Status  string     `json:"status"`
	Expires time.Time  `json:"expires"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Serial  string     `json:"serial"`
	Current bool       `json:"current"`
}

func pkiList(c *cli.Context) error {
	return withPKI(c, 0, func(p *pki.PKI, _ []string) error {
		ca, err := p.CA()
		if err != nil {
			return err
		}
		records, err := p.List()
		if err != nil {
			return err
		}
		crl, err := p.CRLExpiry()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if c.Bool("json") {
			return printPKIJSON(c, p.Dir(), ca.Subject.String(), ca.NotAfter, crl, records)
		}
		w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tKIND\tSTATUS\tEXPIRES\tSERIAL")
		for _, r := range records {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(r.Name), r.Kind, statusText(r), expiryText(r.NotAfter, r.Status == pki.Valid), r.Serial)
		}
		fmt.Fprintf(w, "\nauthority\t%s\t\t%s\t%s\n", printable(ca.Subject.String()), expiryText(ca.NotAfter, true), p.Dir())
		if crl.IsZero() {
			fmt.Fprintf(w, "revocation list\tnone; postern pki crl makes it\n")
		} else {
			fmt.Fprintf(w, "revocation list\t\t\t%s\n", expiryText(crl, true))
		}
		return w.Flush()
	})
}

func printPKIJSON(c *cli.Context, dir, ca string, caExpires, crl time.Time, records []pki.Record) error {
	l := pkiListing{Dir: dir, CA: ca, CAExpires: caExpires, Certificates: []pkiListingEntry{}}
	if !crl.IsZero() {
		l.CRLExpires = &crl
	}
	for _, r := range records {
		e := pkiListingEntry{Name: r.Name, File: r.File, Kind: r.Kind.String(), Status: string(r.Status), Expires: r.NotAfter,
			Reason: r.Reason, Serial: r.Serial, Current: r.Current}
		if r.Status == pki.Revoked {
			e.Revoked = &r.Revoked
		}
		l.Certificates = append(l.Certificates, e)
	}
	e := json.NewEncoder(c.App.Writer)
	e.SetIndent("", "  ")
	return e.Encode(l)
}

func statusText(r pki.Record) string {
	switch {
	case r.Status == pki.Revoked && r.Reason != "":
		return fmt.Sprintf("revoked %s (%s)", date(r.Revoked), printable(r.Reason))
	case r.Status == pki.Revoked:
		return "revoked " + date(r.Revoked)
	case r.Status == pki.Valid && !r.Current:
		return "valid, renewed since"
	}
	return string(r.Status)
}

// expiryText is a date, with what is left when that is little.
func expiryText(t time.Time, matters bool) string {
	left := time.Until(t)
	switch {
	case matters && left < 0:
		return date(t) + " EXPIRED"
	case matters && left < soon:
		return fmt.Sprintf("%s in %d days", date(t), days(left))
	}
	return date(t)
}
