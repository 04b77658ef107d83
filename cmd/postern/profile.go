package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern/auth"
	"postern/auth/pki"
	"postern/auth/profile"
	"postern/server/config"
)

// endpointVariable is where a server.conf says how clients reach the server. OpenVPN knows the line too, and only
// hands it to scripts.
const endpointVariable = "profile_endpoint"

// configPlaces are where profile looks for the server's configuration.
var configPlaces = []string{"server.conf", "/etc/postern/server.conf", "/etc/openvpn/server/server.conf", "/etc/openvpn/server.conf"}

// profileCommand writes the file that a client imports. It issues no certificate.
func profileCommand() *cli.Command {
	return &cli.Command{
		Name:      "profile",
		Usage:     "write a client's profile, an .ovpn file with everything in it",
		ArgsUsage: "NAME",
		Description: "NAME has a certificate already (postern pki client NAME). Ports, protocols, ciphers, the control\n" +
			"channel's key and whether a login is wanted come from the server's configuration. With tls-crypt-v2 each\n" +
			"profile gets a key of its own.\n\n" +
			"Clients connect to the endpoints given, or to those of `setenv " + endpointVariable + " HOST[:PORT]...` in the\n" +
			"configuration, or to its local address, or to the address that this host has towards the internet.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "server.conf `FILE`; otherwise the first of " + strings.Join(configPlaces, ", ")},
			&cli.StringFlag{Name: "out", Usage: "`FILE` to write, or - for the standard output; otherwise NAME.ovpn"},
			&cli.StringSliceFlag{Name: "endpoint", Usage: "`HOST[:PORT]` that clients connect to; repeatable"},
			&cli.StringFlag{Name: "pki", Usage: "the authority's `DIR`; otherwise found by the configuration's ca"},
			&cli.BoolFlag{Name: "drop-key", Usage: "remove the private key from the authority once the profile is written: the profile has the only copy then"},
			&cli.StringFlag{Name: "wrap", Usage: "tls-crypt-v2, tls-crypt, tls-auth or none, where the server takes several"},
		},
		Action: profileAction,
	}
}

func profileAction(c *cli.Context) error {
	names, err := positional(c)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return errors.New("usage: postern profile NAME [--out FILE] [--config FILE] [--endpoint HOST]")
	}
	name, path := names[0], c.String("config")
	if path == "" {
		if path, err = firstFile(configPlaces); err != nil {
			return err
		}
	}
	cfg, _, err := config.Load(path)
	if err != nil {
		return err
	}
	dir, err := pkiOf(cfg, c.String("pki"))
	if err != nil {
		return err
	}
	text, found, err := makeProfile(profileRequest{
		name: name, cfg: cfg, pki: dir, endpoints: c.StringSlice("endpoint"), wrap: c.String("wrap"),
	})
	if err != nil {
		return err
	}
	if found != "" {
		fmt.Fprintf(c.App.ErrWriter, "Clients will connect to %s, the address of this host; --endpoint sets another.\n", found)
	}
	out := c.String("out")
	switch out {
	case "-":
		if _, err := c.App.Writer.Write(text); err != nil {
			return err
		}
		return dropKey(c, dir, name)
	case "":
		out = name + ".ovpn"
	}
	if err := replaceFile(out, text); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, out)
	return dropKey(c, dir, name)
}

// dropKey removes the key of a profile that is written, if that is wanted.
func dropKey(c *cli.Context, dir, name string) error {
	if !c.Bool("drop-key") {
		return nil
	}
	authority, err := pki.Open(dir, pki.Options{})
	if err != nil {
		return noCA(err, dir)
	}
	defer authority.Close()
	return authority.DropKey(name)
}

func firstFile(names []string) (string, error) {
	for _, name := range names {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("no server configuration in %s: name it with --config", strings.Join(names, ", "))
}

// pkiOf finds the authority whose ca.crt the configuration names.
func pkiOf(cfg *config.Config, given string) (string, error) {
	if given != "" {
		return findPKI(given, nil)
	}
	conf := filepath.Dir(cfg.Path)
	places := []string{filepath.Dir(cfg.CA.Name), filepath.Dir(filepath.Dir(cfg.Cert.Name)), filepath.Join(conf, "pki"), filepath.Join(conf, "easy-rsa/pki")}
	dir, err := findPKI("", append(places, pkiPlaces...))
	if err != nil {
		return "", errors.New("the certificate authority is not where the configuration has its ca, nor in one of the usual places: name it with --pki")
	}
	return dir, nil
}

// A profileRequest is whose profile to make, and for which server.
type profileRequest struct {
	name      string
	cfg       *config.Config
	pki       string   // directory
	endpoints []string // HOST or HOST:PORT
	wrap      string   // "": the best the server has
}

// makeProfile writes a profile. found is the endpoint when it had to be guessed.
func makeProfile(r profileRequest) (text []byte, found string, err error) {
	cfg := r.cfg
	p := profile.Profile{
		Name: r.name, Login: cfg.WantLogin(), DataCiphers: cfg.DataCiphers, Auth: cfg.Auth, TLSMin: "1.2", MTU: cfg.MTU, Tap: cfg.Tap,
		BlockOutsideDNS: wantsBlockOutsideDNS(cfg.Push),
	}
	if p.CodeText, err = codeText(cfg, r.name); err != nil {
		return nil, "", err
	}
	if cfg.TLSMin >= tls.VersionTLS13 {
		p.TLSMin = "1.3"
	}
	endpoints := r.endpoints
	if len(endpoints) == 0 {
		if endpoints, found, err = defaultEndpoints(cfg); err != nil {
			return nil, "", err
		}
	}
	if p.Remotes, err = remotes(cfg.Listen, endpoints); err != nil {
		return nil, "", err
	}
	if err := addCertificates(&p, r); err != nil {
		return nil, "", err
	}
	if p.Wrap, p.WrapKey, err = wrapOf(cfg, r.wrap); err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	if err := profile.Write(&b, p); err != nil {
		return nil, "", err
	}
	return b.Bytes(), found, nil
}

// codeText is what a user is asked for besides the password; "" for nothing.
func codeText(cfg *config.Config, name string) (string, error) {
	if cfg.TOTPFile == "" {
		return "", nil
	}
	if cfg.TOTPOptional {
		if has, err := auth.HoldsTOTP(cfg.TOTPFile, name); err != nil || !has {
			return "", err
		}
	}
	return cmp.Or(cfg.TOTPText, auth.DefaultCodeText), nil
}

// addCertificates adds CA, certificate and key, after making sure that server and client will accept each other.
func addCertificates(p *profile.Profile, r profileRequest) error {
	authority, err := pki.Open(r.pki, pki.Options{})
	if err != nil {
		return noCA(err, r.pki)
	}
	defer authority.Close()
	ca, err := authority.CA()
	if err != nil {
		return err
	}
	p.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})

	server, err := leaf(r.cfg.Cert.Bytes)
	if err != nil {
		return fmt.Errorf("the server's certificate %s: %w", r.cfg.Cert.Name, err)
	}
	p.VerifyName = server.Subject.CommonName
	if !issuedBy(server, p.CA, x509.ExtKeyUsageServerAuth) {
		if !issuedBy(server, r.cfg.CA.Bytes, x509.ExtKeyUsageServerAuth) {
			return fmt.Errorf("the server's certificate %s is expired, or no server certificate of the authority in %s: clients would refuse it",
				r.cfg.Cert.Name, authority.Dir())
		}
		p.CA = r.cfg.CA.Bytes
	}

	if r.cfg.VerifyClientCert == config.CertNone {
		return nil
	}
	bundle, err := authority.Load(r.name)
	switch {
	case errors.Is(err, pki.ErrNoCertificate) && r.cfg.VerifyClientCert == config.CertOptional:
		return nil
	case errors.Is(err, pki.ErrNoCertificate):
		return fmt.Errorf("%w; to issue it: postern pki client --dir %s %s", err, authority.Dir(), r.name)
	case errors.Is(err, pki.ErrNoKey):
		return fmt.Errorf("%w: a profile needs it, and it has been taken away. If it is lost, make a new one: postern pki renew --dir %s %s",
			err, authority.Dir(), r.name)
	case err != nil:
		return err
	}
	accepted := r.cfg.CA.Bytes
	if !r.cfg.CA.Set() {
		accepted = bundle.CA
	}
	if !issuedBy(bundle.Leaf, accepted, x509.ExtKeyUsageClientAuth) {
		return fmt.Errorf("the certificate of %s is no client certificate that the server's ca %s accepts", r.name, r.cfg.CA.Name)
	}
	p.Cert, p.Key = bundle.Cert, bundle.Key
	return nil
}

func leaf(b []byte) (*x509.Certificate, error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, errors.New("no certificate in it")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}

func issuedBy(cert *x509.Certificate, ca []byte, usage x509.ExtKeyUsage) bool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	_, err := cert.Verify(x509.VerifyOptions{Roots: pool, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err == nil
}

// wrapOf chooses the control channel's protection, the best unless one is asked for, and gets the client its key.
func wrapOf(cfg *config.Config, want string) (profile.Wrap, []byte, error) {
	is := func(name string, set bool) bool { return set && (want == name || want == "") }
	switch {
	case is("tls-crypt-v2", cfg.TLSCryptV2.Set()):
		key, err := clientKeyV2(cfg.TLSCryptV2.Bytes, nil)
		return profile.TLSCryptV2, key, err
	case is("tls-crypt", cfg.TLSCrypt.Set()):
		return profile.TLSCrypt, cfg.TLSCrypt.Bytes, nil
	case is("tls-auth", cfg.TLSAuth.Set()):
		wrap := map[int]profile.Wrap{-1: profile.TLSAuthAny, 0: profile.TLSAuth, 1: profile.TLSAuth0}[cfg.TLSAuthDirection]
		return wrap, cfg.TLSAuth.Bytes, nil
	case is("none", !cfg.TLSAuth.Set() && !cfg.TLSCrypt.Set()) && (want != "" || !cfg.TLSCryptV2.Set()):
		return profile.NoWrap, nil, nil
	}
	return 0, nil, fmt.Errorf("--wrap %s: the server does not take it", want)
}

// wantsBlockOutsideDNS: everything goes through the tunnel and a resolver is pushed, so Windows, which asks all
// resolvers at once, shall not ask the others.
func wantsBlockOutsideDNS(push []string) bool {
	has := func(prefix string) bool {
		return slices.ContainsFunc(push, func(p string) bool { return strings.HasPrefix(p, prefix) })
	}
	return has("redirect-gateway") && (has("dhcp-option DNS ") || has("dns server ")) && !has("block-outside-dns")
}

// remotes pairs every endpoint with everything the server listens on, in the order of the configuration. A port
// with an endpoint stands for all, since something in front of the server translates it.
func remotes(listen []config.Listen, endpoints []string) ([]profile.Remote, error) {
	var all []profile.Remote
	for _, endpoint := range endpoints {
		host, port, err := splitEndpoint(endpoint)
		if err != nil {
			return nil, err
		}
		for _, l := range listen {
			if l.Addr.Addr().IsLoopback() && host != l.Addr.Addr().String() {
				continue // behind a proxy, say; nobody outside reaches it
			}
			r := profile.Remote{Host: host, Port: l.Addr.Port(), Proto: remoteProto(listen, l, host)}
			if port != 0 {
				r.Port = port
			}
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the server listens on loopback addresses only: clients cannot reach it")
	}
	return all, nil
}

// remoteProto names the address family too when a name could lead a client to the one that is not served.
func remoteProto(listen []config.Listen, l config.Listen, host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return l.Network
	}
	var v4, v6 bool
	for _, o := range listen {
		if o.Network == l.Network && o.Addr.Port() == l.Addr.Port() {
			is4 := o.Addr.Addr().Is4() || o.Any4
			v4 = v4 || is4 || o.Addr.Addr().IsUnspecified() && !o.V6Only
			v6 = v6 || !is4
		}
	}
	switch {
	case v4 && !v6:
		return l.Network + "4"
	case v6 && !v4:
		return l.Network + "6"
	}
	return l.Network
}

// splitEndpoint takes HOST, HOST:PORT, an IPv6 address, or one in brackets with or without a port.
func splitEndpoint(s string) (host string, port uint16, err error) {
	if _, err := netip.ParseAddr(s); err == nil {
		return s, 0, nil
	}
	host = s
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	} else if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("endpoint %q: bad port", s)
		}
		host, port = h, uint16(n)
	}
	if err := profile.CheckHost(host); err != nil {
		return "", 0, fmt.Errorf("endpoint %q: %w", s, err)
	}
	return host, port, nil
}

// defaultEndpoints is what the configuration says, or else a guess.
func defaultEndpoints(cfg *config.Config) (endpoints []string, found string, err error) {
	for _, kv := range cfg.SetEnv {
		if kv[0] == endpointVariable {
			endpoints = strings.Fields(kv[1])
		}
	}
	if len(endpoints) > 0 {
		return endpoints, "", nil
	}
	for _, l := range cfg.Listen {
		if a := l.Addr.Addr(); !a.IsUnspecified() && !a.IsLoopback() && !slices.Contains(endpoints, a.String()) {
			endpoints = append(endpoints, a.String())
		}
	}
	if len(endpoints) > 0 {
		return endpoints, "", nil
	}
	if found, err = ownAddress(); err != nil {
		return nil, "", err
	}
	return []string{found}, found, nil
}

// ownAddress is the address this host has towards the internet, or any other that is not loopback, or its name.
func ownAddress() (string, error) {
	for _, far := range []string{"udp4 198.51.100.1:9", "udp6 [2001:db8::1]:9"} { // nothing is sent to them
		network, addr, _ := strings.Cut(far, " ")
		conn, err := net.DialTimeout(network, addr, time.Second)
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
		if local.IsGlobalUnicast() {
			return local.String(), nil
		}
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				return p.Addr().String(), nil
			}
		}
	}
	if name, err := os.Hostname(); err == nil && profile.CheckHost(name) == nil && name != "localhost" {
		return name, nil
	}
	return "", errors.New("this host has no address that clients could reach: name one with --endpoint")
}
