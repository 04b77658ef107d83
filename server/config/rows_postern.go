package config

import (
	"fmt"
	"net/netip"
)

var posternRows = []row{
	use("auth-users-file", "FILE", "Local users, made with `postern user add`. With a directory too, it is asked only for names that are in the file. Hashes of other programs may be bcrypt or argon2id; one of several lanes (p=4) computes on as many processors at once. Refused when others can read it.", func(d *draft, l *directive) error {
		d.cfg.Users = l.args[0] // found in readMaterial
		return setMaterial(d, l)
	}),
	use("login-must-match-cert", "yes|no", "Whether the login must be the certificate's common name; default yes.", func(d *draft, l *directive) (err error) {
		d.cfg.LoginMustMatchCert, err = yesNo(l.args[0])
		return err
	}),
	use("auth-totp-file", "FILE", "One-time codes: who logs in needs, besides the password, the code that an authenticator app shows. FILE has the users' secrets, of the user file's and of the directory's, made with `postern user totp`. Refused when others can read it.", func(d *draft, l *directive) error {
		d.cfg.TOTPFile = l.args[0] // found in readMaterial
		return setMaterial(d, l)
	}),
	use("auth-totp", "required|optional", "Whether users without a secret are kept out (default), or come in by their password alone. Then it shows, to whoever asks, who has one.", setTOTP),
	use("auth-totp-place", "last|first|apart", "Where in a password the code may be, for clients that have one field for both: at its end (default) or its beginning, if there are six digits, or nowhere. Clients that ask for the code by itself are understood in any case.", setTOTPPlace),
	use("auth-totp-text", "TEXT", "What users are asked, here and in profiles; default \"One-time code\".", setTOTPText),
	use("auth-totp-used", "FILE", "A file of the server's own in which it remembers over a restart which codes have been used. Without it, codes of the first minute after a start are refused.", func(d *draft, l *directive) error { return d.output(l, &d.cfg.TOTPUsed) }),
	use("auth-gen-token-format", "postern|openvpn", "What tokens are like: bound to a client's certificate, and over when its user's password or code has changed (default); or such that servers of OpenVPN with the same `auth-gen-token-secret` take them too.", setTokenFormat),
	use("nat", "yes|no", "Let clients reach what this machine reaches, with its address: forwarding and masquerading in a firewall table of Postern's own. Default no.", func(d *draft, l *directive) (err error) {
		d.cfg.NAT, err = yesNo(l.args[0])
		return err
	}),
	use("dns-forward", "ADDRESS[:PORT] [ZONE...]", "A name server that the gateway asks for its clients, which ask it at its own address inside; with zones, only about names in them. Several lines add up: for a name those of the longest zone it is in are asked, in their order. Clients must be told: `push \"dhcp-option DNS 10.8.0.1\"`.", addDNSForward).each(),
	use("leak-guard", "yes|no", "Whether a pushed `redirect-gateway` is completed for each client, so that nothing goes past the tunnel: IPv6 goes through it too, or is blocked for clients without an IPv6 address; and where name servers are pushed and used, other ones and local networks are blocked (block-outside-dns, block-local). Default yes.", func(d *draft, l *directive) error {
		yes, err := yesNo(l.args[0])
		d.cfg.NoLeakGuard = err == nil && !yes
		return err
	}),
	use("tun-offload", "yes|no", "Whether the TUN device passes packets in large pieces where the kernel can; default yes.", func(d *draft, l *directive) error {
		yes, err := yesNo(l.args[0])
		d.cfg.NoOffload = err == nil && !yes
		return err
	}),
	use("proxy-protocol-from", "NET/BITS|ADDRESS...", "Balancers that announce whose TCP connections they pass on, by the PROXY protocol, version 2. Limits, logs and logins then go by the client's address. A connection from there without it is closed, and nobody else's announcements are heard.", addBalancers).each(),
	use("audit", "FILE", "Record who came in, who did not and why, what was done and by whom, in FILE, which can be checked with `postern audit verify` ([above](#audit)). It cannot be changed without a restart.", func(d *draft, l *directive) error { return d.output(l, &d.cfg.Audit) }),
	use("audit-failure", "deny|continue", "What happens when records cannot be written: new logins are put off until they can (default), or nothing but an alarm. Who is connected stays so.", setAuditFailure),
	use("control-socket", "PATH", "The socket that `postern status` asks; default /run/postern/NAME.sock for NAME.conf.", func(d *draft, l *directive) error { return d.output(l, &d.cfg.Control) }),
}

func setAuditFailure(d *draft, l *directive) error {
	d.cfg.AuditContinue = l.args[0] == "continue"
	return choice("deny", "continue")(d, l)
}

func addBalancers(d *draft, l *directive) error {
	for _, s := range l.args {
		p, err := netip.ParsePrefix(s)
		if a, aErr := netip.ParseAddr(s); aErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || p.Addr().Zone() != "" || p.Addr().Is4In6():
			return fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/28", s)
		case hostBits(p):
			return fmt.Errorf("%s has bits set behind its prefix: write %s", s, p.Masked())
		case p.Bits() == 0:
			return fmt.Errorf("%s would let everybody choose an address: name the balancers", s)
		}
		d.cfg.Balancers = append(d.cfg.Balancers, p)
	}
	return nil
}
