package main

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/urfave/cli/v2"

	"postern/auth"
	"postern/auth/pki"
	"postern/server/config"
	"postern/tlsctl"
)

// quickstartServer is the name on the server's certificate.
const quickstartServer = "server"

func quickstartCommand() *cli.Command {
	return &cli.Command{
		Name:  "quickstart",
		Usage: "make everything a server needs, and run it",
		Description: "Creates in DIR what is missing: a certificate authority, the server's certificate and keys, a user\n" +
			"with a random password, server.conf and the user's profile. Run again, it changes nothing and serves.\n" +
			"Everything in DIR can be changed by hand afterwards.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Value: "/etc/postern", Usage: "`DIR` to keep everything in"},
			&cli.StringFlag{Name: "endpoint", Usage: "`HOST[:PORT]` that clients connect to; otherwise this host's address towards the internet"},
			&cli.StringSliceFlag{Name: "users", Usage: "`NAME,...` of users to have; otherwise one, user1, when there is none yet"},
			&cli.IntFlag{Name: "port", Value: 1194, Usage: "port to listen on"},
			&cli.StringFlag{Name: "proto", Value: "udp", Usage: "udp or tcp"},
			&cli.StringSliceFlag{Name: "dns", Usage: "`ADDRESS` of the resolver that clients are told; otherwise this host's"},
			&cli.BoolFlag{Name: "prepare-only", Usage: "do not run the server"},
			logFormatFlag(),
		},
		Action: func(c *cli.Context) error {
			if args, err := positional(c); err != nil {
				return err
			} else if len(args) > 0 {
				return errors.New("usage: postern quickstart [--dir DIR] [--endpoint HOST] [--users NAME,...]")
			}
			o := quickstartOptions{
				dir: c.String("dir"), endpoint: c.String("endpoint"), users: c.StringSlice("users"),
				port: c.Int("port"), proto: c.String("proto"), dns: c.StringSlice("dns"),
			}
			for _, name := range []string{"endpoint", "port", "proto", "dns"} {
				o.insisted = o.insisted || c.IsSet(name)
			}
			path, summary, err := prepareQuickstart(o)
			fmt.Fprint(c.App.Writer, summary) // passwords are shown once, whatever went wrong after
			if err != nil || c.Bool("prepare-only") {
				return err
			}
			return serve(c.Context, source{path: path}, serveOptions{logFormat: c.String("log-format")})
		},
	}
}

type quickstartOptions struct {
	dir      string
	endpoint string
	users    []string
	port     int
	proto    string
	dns      []string
	insisted bool // some of endpoint, port, proto, dns was given by hand
}

// prepareQuickstart makes what is missing in the directory and changes nothing that is there, but a revocation list
// about to expire. The summary says what to do next; it holds the passwords of new users, and is worth showing even
// beside an error.
func prepareQuickstart(o quickstartOptions) (configPath, summary string, err error) {
	if err := o.check(); err != nil {
		return "", "", err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return "", "", err
	}
	q := &quickstart{quickstartOptions: o}
	err = q.prepare()
	return q.path("server.conf"), q.say.String(), err
}

func (o *quickstartOptions) check() error {
	if o.port < 1 || o.port > 65535 {
		return fmt.Errorf("--port %d: must be 1 to 65535", o.port)
	}
	if o.proto != "udp" && o.proto != "tcp" {
		return fmt.Errorf("--proto %q: must be udp or tcp", o.proto)
	}
	for _, name := range o.users {
		if err := pki.CheckName(name); err != nil {
			return fmt.Errorf("--users: %w", err)
		}
		if strings.EqualFold(name, quickstartServer) {
			return fmt.Errorf("--users: %s is the name of the server's certificate", name)
		}
	}
	if o.endpoint != "" {
		if _, _, err := splitEndpoint(o.endpoint); err != nil {
			return err
		}
	}
	for _, a := range o.dns {
		if _, err := netip.ParseAddr(a); err != nil {
			return fmt.Errorf("--dns: %w", err)
		}
	}
	return nil
}

// quickstart is one run of prepareQuickstart.
type quickstart struct {
	quickstartOptions
	say strings.Builder
	cfg *config.Config
}

func (q *quickstart) path(name string) string { return filepath.Join(q.dir, filepath.FromSlash(name)) }

// prepare goes from what others need to what they need it for, and adds users last: their passwords exist nowhere
// else, so nothing shall fail between making one and showing it.
func (q *quickstart) prepare() error {
	if err := os.MkdirAll(q.path("profiles"), 0o700); err != nil {
		return err
	}
	authority, err := q.authority()
	if err != nil {
		return err
	}
	defer authority.Close()
	err = writeNewWith(q.path("tls-crypt-v2.key"), func() ([]byte, error) { return tlsctl.GenerateServerKeyV2(), nil })
	if err != nil {
		return err
	}
	if err := writeNewWith(q.path("server.conf"), q.serverConf); err != nil {
		return err
	}
	have, err := auth.ListUsers(q.path("users"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(q.users) == 0 && len(have) == 0 {
		q.users = []string{"user1"}
	}
	if err := writeNewWith(q.path("users"), func() ([]byte, error) { return nil, nil }); err != nil {
		return err
	}
	if q.cfg, _, err = config.Load(q.path("server.conf")); err != nil {
		return err
	}

	fmt.Fprintf(&q.say, "Postern in %s\n", q.dir)
	for _, name := range q.users {
		if err := q.profile(authority, name); err != nil {
			return err
		}
	}
	for _, name := range q.users {
		if !slices.Contains(have, name) {
			if err := q.addUser(name); err != nil {
				return err
			}
		}
	}
	q.conclude(have)
	return nil
}

// writeNewWith makes a file unless there is one.
func writeNewWith(name string, contents func() ([]byte, error)) error {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := contents()
	if err != nil {
		return err
	}
	return writeNew(name, b)
}

// authority opens or makes the certificate authority, with the server's certificate and a revocation list that is
// good for a while.
func (q *quickstart) authority() (*pki.PKI, error) {
	p, err := pki.Open(q.path("pki"), pki.Options{})
	if errors.Is(err, pki.ErrNoCA) {
		p, err = pki.Init(q.path("pki"), pki.InitOptions{})
	}
	if err != nil {
		return nil, err
	}
	if err := q.keepUp(p); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (q *quickstart) keepUp(p *pki.PKI) error {
	_, err := p.Load(quickstartServer)
	if errors.Is(err, pki.ErrNoCertificate) {
		_, err = p.Server(quickstartServer, pki.IssueOptions{})
	}
	if err != nil {
		return err
	}
	expiry, err := p.CRLExpiry()
	if errors.Is(err, fs.ErrNotExist) || err == nil && time.Until(expiry) < soon {
		_, err = p.CRL(0)
	}
	return err
}

//go:embed quickstart.conf.tmpl
var quickstartConf string

var quickstartTemplate = template.Must(template.New("server.conf").Parse(quickstartConf))

// serverConf fills in the template for this host.
func (q *quickstart) serverConf() ([]byte, error) {
	endpoint := q.endpoint
	if endpoint == "" {
		var err error
		if endpoint, err = ownAddress(); err != nil {
			return nil, err
		}
	}
	proto := map[string]string{"udp": "udp", "tcp": "tcp-server"}[q.proto]
	if host, _, err := splitEndpoint(endpoint); err != nil {
		return nil, err
	} else if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		proto = map[string]string{"udp": "udp6", "tcp": "tcp6-server"}[q.proto] // takes IPv4 too
	}
	dir, err := confWord(q.dir)
	if err != nil {
		return nil, err
	}
	network4, err := freeNetwork()
	if err != nil {
		return nil, err
	}
	dns := q.dns
	if len(dns) == 0 {
		dns = resolvers()
	}
	var b bytes.Buffer
	err = quickstartTemplate.Execute(&b, map[string]any{
		"Dir": dir, "Port": q.port, "Network": q.proto, "Proto": proto, "Endpoint": endpoint,
		"Network4": network4.Addr(), "Mask4": net.IP(net.CIDRMask(network4.Bits(), 32)), "Network6": privateNetwork6(),
		"DNS": dns, "Control": controlSocket(q.path("server.conf")),
	})
	return b.Bytes(), err
}

// profile makes the certificate and the profile of a user, where missing.
func (q *quickstart) profile(p *pki.PKI, name string) error {
	out := q.path("profiles/" + name + ".ovpn")
	return writeNewWith(out, func() ([]byte, error) {
		if _, err := p.Load(name); errors.Is(err, pki.ErrNoCertificate) {
			if _, err := p.Client(name, pki.IssueOptions{}); err != nil {
				return nil, err
			}
		}
		var endpoints []string
		if q.endpoint != "" {
			endpoints = []string{q.endpoint}
		}
		text, _, err := makeProfile(profileRequest{name: name, cfg: q.cfg, pki: p.Dir(), endpoints: endpoints})
		return text, err
	})
}

func (q *quickstart) addUser(name string) error {
	password := randomPassword()
	if err := auth.AddUser(q.path("users"), name, []byte(password)); err != nil {
		return err
	}
	fmt.Fprintf(&q.say, "\n  user      %s\n  password  %s   (shown only now)\n  profile   %s\n",
		name, password, q.path("profiles/"+name+".ovpn"))
	return nil
}

// conclude says what there was already and what to do with it.
func (q *quickstart) conclude(have []string) {
	for _, name := range have {
		profile := q.path("profiles/" + name + ".ovpn")
		if _, err := os.Stat(profile); err != nil {
			profile = fmt.Sprintf("none here; postern profile --config %s %s makes one", q.path("server.conf"), name)
		}
		fmt.Fprintf(&q.say, "\n  user      %s\n  profile   %s\n", name, profile)
	}
	if len(have) > 0 && q.insisted {
		fmt.Fprintf(&q.say, "\n%s was there and stays as it is: change endpoint, port, protocol and DNS in it.\n", q.path("server.conf"))
	}
	fmt.Fprintf(&q.say, "\nTake the profile to the device and import it there: OpenVPN Connect, OpenVPN for Android, NetworkManager, or\n"+
		"  sudo openvpn --config FILE.ovpn\n"+
		"Another password: postern user passwd --file %s NAME. Another user: the same command with --users NAME.\n\n", q.path("users"))
}

// passwordLetters are hard to mistake for each other, and 32 of them waste no random bit.
const passwordLetters = "abcdefghijkmnpqrstuvwxyz23456789"

// randomPassword is 80 random bits in four groups.
func randomPassword() string {
	b := make([]byte, 16)
	rand.Read(b)
	var s strings.Builder
	for i, c := range b {
		if i > 0 && i%4 == 0 {
			s.WriteByte('-')
		}
		s.WriteByte(passwordLetters[int(c)%len(passwordLetters)])
	}
	return s.String()
}

// confWord writes s as one word of a configuration file.
func confWord(s string) (string, error) {
	if strings.ContainsAny(s, "\"\\\r\n\x00") || len(s) > 200 {
		return "", fmt.Errorf("directory %q cannot be written into a configuration file: choose another with --dir", s)
	}
	return `"` + s + `"`, nil
}

// freeNetwork is OpenVPN's usual network, or the next that no interface of this host is in.
func freeNetwork() (netip.Prefix, error) {
	var used []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			used = append(used, p)
		}
	}
	for third := range 248 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(8 + third), 0, 0}), 24)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("all of 10.8.0.0/24 to 10.255.0.0/24 is in use on this host")
}

// privateNetwork6 is a random unique local network, so that sites that meet one day do not collide; "" when the
// kernel has no IPv6.
func privateNetwork6() string {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	if err != nil || strings.TrimSpace(string(off)) != "0" {
		return ""
	}
	a := [16]byte{0: 0xfd}
	rand.Read(a[1:6])
	return netip.PrefixFrom(netip.AddrFrom16(a), 64).String()
}

// publicResolver stands in when the host's own resolver cannot be reached through the tunnel.
const publicResolver = "9.9.9.9"

// resolvers are this host's, as far as clients can reach them: not the stub on loopback, but what is behind it.
func resolvers() []string {
	for _, name := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var found []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(f[1]); err == nil && a.Is4() && !a.IsLoopback() && len(found) < 2 {
				found = append(found, a.String())
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return []string{publicResolver}
}
