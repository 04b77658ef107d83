package config

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
)

// serverOnly are the directives that make no sense without a server.
var serverOnly = []string{"client-config-dir", "ccd-exclusive", "duplicate-cn", "client-to-client", "max-clients", "ifconfig-pool", "ifconfig-pool-persist", "username-as-common-name"}

// finishTimers joins keepalive with the single timers.
func (d *draft) finishTimers() {
	if d.has("keepalive") {
		for _, name := range []string{"ping", "ping-restart", "ping-exit"} {
			if d.has(name) {
				d.refuse(d.last["keepalive"], "conflicts with %s at %s: remove that line, keepalive says it all", name, d.last[name].place())
			}
		}
		return
	}
	if !d.has("ping-restart") && !d.has("ping-exit") {
		d.tell("keepalive", "(keepalive is missing)", "clients that vanish are never noticed: add `keepalive 10 60`")
	}
}

// checkRules holds the directives against each other, once all are known.
func (d *draft) checkRules() {
	d.checkRole()
	d.checkAddresses()
	d.checkTLS()
	d.checkLogin()
	c := d.cfg
	if d.fullTunnel != nil && !d.has("leak-guard") {
		d.notice(d.fullTunnel, "completed for each client so that nothing goes past the tunnel (ipv6 or block-ipv6; with name servers block-local and block-outside-dns): say `leak-guard yes`, or no to leave it as it is")
	}
	if c.CCDExclusive && c.ClientConfigDir == "" {
		d.refuse(d.last["ccd-exclusive"], "needs client-config-dir: nobody could come in")
	}
	if d.has("tun-mtu") && (d.has("link-mtu") || d.has("udp-mtu")) {
		d.refuse(d.last["tun-mtu"], "only one of tun-mtu and link-mtu may be given: remove link-mtu")
	}
	d.checkMTU()
	if d.has("mtu-test") && d.overTCP() {
		d.refuse(d.last["mtu-test"], "only makes sense over UDP: remove the line")
	}
	for _, name := range []string{"port-share", "proxy-protocol-from"} {
		if d.has(name) && !d.overTCP() {
			d.refuse(d.last[name], "only makes sense over TCP: add `local * 443 tcp-server`, or remove the line")
		}
	}
	if cbc := slices.ContainsFunc(append([]string{c.CipherFallback}, c.DataCiphers...), func(name string) bool { return strings.HasSuffix(name, "-CBC") }); cbc && c.Auth == "MD5" {
		d.refuse(d.last["auth"], "MD5 is too weak for the data packets of CBC ciphers: write `auth SHA256` here and in profiles, or take the CBC ciphers out of data-ciphers")
	}
	if c.ReplayWindow < 64 && d.has("replay-window") {
		d.notice(d.last["replay-window"], "a window that small drops packets that were merely overtaken; the default is 2048")
	}
}

// minMTU6 is the least MTU of a device on which Linux carries IPv6.
const minMTU6 = 1280

// checkMTU holds the device's MTU against IPv6.
func (d *draft) checkMTU() {
	c := d.cfg
	six := c.Addr6.IsValid() || slices.ContainsFunc(c.Pools, func(p Pool) bool { return p.Addr6.IsValid() })
	if six && c.MTU < minMTU6 && !c.NoIfconfig {
		d.refuse(d.last["tun-mtu"], "Linux has no IPv6 on a device with an MTU below %d: write that, or leave IPv6 out (server-ipv6)", minMTU6)
	}
}

// checkRole insists on a server.
func (d *draft) checkRole() {
	switch {
	case !d.serverMode && d.hasPools():
	case !d.serverMode:
		d.refuseName("server", "this is no server's configuration: add `server 10.8.0.0 255.255.255.0`, or another network")
		for _, name := range serverOnly {
			if l := d.last[name]; l != nil {
				d.notice(l, "it is for servers only")
			}
		}
	case !d.tlsServer:
		d.refuse(d.last["mode"], "mode server requires tls-server: add it")
	}
}

// checkAddresses compares pools with the server's own addresses.
func (d *draft) checkAddresses() {
	c := d.cfg
	if d.serverMode && !c.Bridge && !c.Addr4.IsValid() && !c.Addr6.IsValid() && !d.hasPools() && !d.anyRefused("server", "server-ipv6", "ifconfig", "ifconfig-ipv6") {
		d.refuseName("server", "the network inside is missing: add `server 10.8.0.0 255.255.255.0`, or another network")
	}
	if l := d.last["ifconfig-pool"]; l != nil && c.Pool4.First.IsValid() && (!d.server.IsValid() || d.noPool) {
		d.checkPool4(l)
	}
	if l := d.last["ifconfig-ipv6-pool"]; l != nil && c.Pool6.First.IsValid() && !d.server6.IsValid() {
		switch {
		case !c.Addr6.IsValid():
			d.refuse(l, "needs ifconfig-ipv6, or write server-ipv6 in place of both")
		case inside(c.Pool6, c.Addr6):
			d.refuse(l, "the server's own address is among the pool's: let it start behind, as with %s/%d", addr6Behind(c.Addr6.Addr()), c.Pool6Bits)
		case !c.Addr6.Contains(c.Pool6.First):
			d.refuse(l, "the pool is outside the network of ifconfig-ipv6, %s", c.Addr6.Masked())
		}
	}
	if l := d.last["ifconfig-pool-persist"]; l != nil {
		switch {
		case !c.Pool4.First.IsValid() && !c.Pool6.First.IsValid() && !d.hasPools():
			d.refuse(l, "needs a pool: remove the line, or add `server` or ifconfig-pool")
		case c.DuplicateCN:
			d.notice(l, "with duplicate-cn nothing is remembered")
		}
	}
	if d.server.IsValid() && !d.has("topology") && !c.Tap {
		d.tell("topology", "(topology is missing)", "subnet is used, as in OpenVPN 2.7; OpenVPN up to 2.6 would use net30: client files must say `ifconfig-push ADDRESS MASK`, or add `topology net30`")
	}
}

func (d *draft) checkPool4(l *directive) {
	c := d.cfg
	switch {
	case !c.Addr4.IsValid():
		d.refuse(l, "needs ifconfig, or write `server` in place of both")
	case inside(c.Pool4, c.Addr4):
		d.refuse(l, "the server's own address %s is among the pool's: leave it out", c.Addr4.Addr())
	case c.Topology != Subnet && d.poolMask != 0:
		d.refuse(l, "topology %s has no mask: leave it out", c.Topology)
	case c.Topology != Subnet && d.server == (netip.Prefix{}): // the network is what `route` lines say
	case !c.Addr4.Contains(c.Pool4.First) || !c.Addr4.Contains(c.Pool4.Last):
		d.refuse(l, "the pool is outside the server's network %s", c.Addr4.Masked())
	case d.poolMask != 0 && d.poolMask != c.Addr4.Bits():
		d.refuse(l, "the mask is not that of the server's address: write %s, or none", maskOf(c.Addr4.Bits()))
	}
}

// checkTLS holds certificates, wraps and versions against each other.
func (d *draft) checkTLS() {
	c := d.cfg
	if !d.has("ca") && !d.has("capath") && !d.has("pkcs12") && !d.has("peer-fingerprint") && c.VerifyClientCert != CertNone {
		d.refuseName("ca", "You must define CA file (ca), or fingerprints of the clients (peer-fingerprint): add one")
	}
	for _, name := range []string{"cert", "key"} {
		if !d.has(name) && !d.has("pkcs12") && !d.anyRefused("pkcs11-id", "management-external-"+name) {
			d.refuseName(name, "the server has no %s of its own: add `%s FILE`", map[string]string{"cert": "certificate", "key": "private key"}[name], name)
		}
	}
	for _, name := range []string{"cert", "key"} {
		if d.has("pkcs12") && d.has(name) {
			d.refuse(d.last["pkcs12"], "it already stands for cert and key: remove those, or this line")
			break
		}
	}
	if l := d.last["connect-freq"]; l != nil && !d.overUDP() {
		d.refuse(l, "only works over UDP: remove the line")
	}
	if d.has("tls-auth") && d.has("tls-crypt") {
		d.refuse(d.last["tls-crypt"], "tls-auth and tls-crypt are mutually exclusive: remove one")
	}
	if d.has("tls-auth") {
		c.TLSAuthDirection = d.keyDirection
	} else if d.has("key-direction") {
		d.notice(d.last["key-direction"], "it says nothing without tls-auth")
	}
	if c.TLSMax != 0 && c.TLSMin > c.TLSMax {
		d.refuse(d.last["tls-version-min"], "is above tls-version-max: lower it, or remove tls-version-max")
	}
	if c.TLSMin == tls.VersionTLS13 && d.has("tls-cipher") {
		d.notice(d.last["tls-cipher"], "it says nothing, since TLS 1.2 is not spoken")
	}
}

// checkLogin holds the logins against what relies on them.
func (d *draft) checkLogin() {
	c := d.cfg
	login := d.wantsLogin()
	if c.VerifyClientCert != CertRequire && !login {
		d.refuse(d.last["verify-client-cert"], "must be used with a login (ldap-url, auth-users-file or auth-user-pass-verify): anybody could come in")
	}
	if c.UsernameAsCN && !login {
		d.refuse(d.last["username-as-common-name"], "must be used with a login (ldap-url, auth-users-file or auth-user-pass-verify): there is no user name")
	}
	if l := d.last["login-must-match-cert"]; l != nil && !login {
		d.notice(l, "it says nothing without a login (ldap-url, auth-users-file or auth-user-pass-verify)")
	}
	for _, name := range []string{"auth-user-pass-verify", authLDAPPlugin} {
		if l := d.last[name]; l != nil && l.entry.Verdict != Refused && c.VerifyClientCert != CertNone && !d.has("login-must-match-cert") {
			d.notice(l, "only logins whose name is that of the certificate are asked about: write `login-must-match-cert no` if names may differ")
		}
	}
	if l := d.last["management-client-auth"]; l != nil && l.entry.Verdict != Refused && c.VerifyClientCert != CertNone && !d.has("login-must-match-cert") {
		d.notice(l, "only logins whose name is that of the certificate are put to management clients: write `login-must-match-cert no` if names may differ")
	}
	if c.VerifyClientCert == CertNone {
		if l := d.last["login-must-match-cert"]; l != nil && c.LoginMustMatchCert {
			d.refuse(l, "there is no certificate to match with verify-client-cert none: write no")
		}
		c.LoginMustMatchCert = false
		if login && !c.UsernameAsCN {
			d.notice(d.last["verify-client-cert"], "clients without a certificate have no name: add username-as-common-name")
		}
	}
	for _, name := range []string{"auth-user-pass-optional", "auth-gen-token"} {
		if d.has(name) && !login {
			d.refuse(d.last[name], "must be used with a login (ldap-url or auth-users-file): there is none")
		}
	}
	d.checkTokens()
	d.checkTOTP()
}

// wantsLogin reports whether clients log in, or would but for what has been refused.
func (d *draft) wantsLogin() bool {
	return d.cfg.WantLogin() || d.anyRefused("auth-user-pass-verify", "plugin", "management-client-auth", "auth-users-file")
}

// anyRefused reports whether one of these directives was written and refused; what it would have given is then no
// second problem.
func (d *draft) anyRefused(names ...string) bool {
	for _, n := range names {
		if l := d.last[n]; l != nil && l.entry.Verdict == Refused {
			return true
		}
	}
	return false
}

// inside reports whether the server's own address is one of the pool's.
func inside(pool Range, own netip.Prefix) bool {
	a := own.Addr()
	return !a.Less(pool.First) && !pool.Last.Less(a)
}

// addr6Behind is where server-ipv6 would let a pool start, for the server's address own.
func addr6Behind(own netip.Addr) netip.Addr {
	a, err := offset(own, 0xfff)
	if err != nil {
		return own
	}
	return a
}
