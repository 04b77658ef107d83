package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/server/datachan"
	"postern/tlsctl"
)

// loginTimeout bounds a whole login (S058).
const loginTimeout = 10 * time.Second

// certRef is what of a certificate is remembered while its owner is connected.
type certRef struct {
	sum  [sha256.Size]byte
	cert *x509.Certificate
}

// Admit implements tlsctl.Owner: the one place that says yes (S039). Certificate, login and policy must all agree,
// at every negotiation. The first one also leases addresses and compiles what is pushed.
func (c *client) Admit(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
	live := c.srv.live.Load()
	certCN, err := c.srv.certificate(live, h)
	if err != nil {
		return nil, err
	}
	user := ""
	var groups []string
	if live.auth != nil {
		id, err := c.login(ctx, live.auth, h, certCN)
		if err != nil {
			return nil, err
		}
		user, groups = id.Name, id.Groups
	}
	name := certCN
	if live.cfg.UsernameAsCN && user != "" || name == "" {
		name = user
	}
	if !safeName(name) {
		return nil, &tlsctl.Denial{Public: "this name cannot be used here", Err: fmt.Errorf("name %q: letters, digits and ._@+- only, at most 64", name)}
	}
	c.mu.Lock()
	known := c.grant
	c.mu.Unlock()
	if !h.First {
		if known == nil || known.name != name || known.user != user {
			return nil, &tlsctl.Denial{Public: "identity changed", Err: errors.New("another identity at renegotiation")}
		}
		return &tlsctl.Grant{PeerID: uint32(known.peer)}, nil
	}
	settings, err := c.settings(live, name)
	if err != nil {
		return nil, err
	}
	g := &granted{name: name, user: user, certCN: certCN, groups: groups, settings: settings, peerInfo: h.Peer}
	for i, cert := range h.Chain {
		g.chain = append(g.chain, certRef{sha256.Sum256(cert.Raw), cert})
		if i == 0 {
			g.notAfter = cert.NotAfter
		}
	}
	if err := c.srv.grant(live, g); err != nil {
		return nil, err
	}
	if c.gone.Load() { // ended while the directory was asked
		c.srv.revoke(g)
		return nil, &tlsctl.Denial{Public: "session ended", Err: errors.New("session ended during login")}
	}
	c.mu.Lock()
	c.grant = g
	c.mu.Unlock()
	return &tlsctl.Grant{Push: g.push, PeerID: uint32(g.peer)}, nil
}

// certificate judges the client's certificate beyond what the TLS handshake did, and names it.
func (s *Server) certificate(live *live, h *tlsctl.Hello) (cn string, err error) {
	if len(h.Chain) == 0 {
		return "", nil // the TLS configuration decides whether that may be
	}
	if cn, err = tlsctl.CommonName(h.Chain[0]); err != nil {
		return "", &tlsctl.Denial{Public: "certificate not accepted", Err: err}
	}
	if err := live.revoked(h.Chain); err != nil {
		return "", &tlsctl.Denial{Public: "certificate revoked", Err: err}
	}
	return cn, nil
}

// login asks the authenticator, for at most loginTimeout.
func (c *client) login(ctx context.Context, a auth.Authenticator, h *tlsctl.Hello, certCN string) (*auth.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	c.log.Debug().Str("user", h.Username).Msg("asking for a login")
	id, err := a.Authenticate(ctx, &auth.Request{Username: h.Username, Password: h.Password, CommonName: certCN, Source: c.path.Load().addr})
	if err == nil && (id == nil || id.Name == "") {
		err = errors.New("the back end said yes without a name")
	}
	if err == nil {
		return id, nil
	}
	if denied := (*auth.Denied)(nil); errors.As(err, &denied) {
		return nil, &tlsctl.Denial{Public: denied.Public, Err: fmt.Errorf("login %q: %w", h.Username, err)}
	}
	return nil, &tlsctl.Denial{Public: "the login service cannot be reached, try again later", Temporary: true, Err: fmt.Errorf("login %q: %w", h.Username, err)}
}

// settings reads the client's file, if the configuration has a directory of them.
func (c *client) settings(live *live, name string) (*config.Client, error) {
	dir := live.cfg.ClientConfigDir
	if dir == "" {
		return &config.Client{}, nil
	}
	settings, err := config.LoadClient(dir, name, live.cfg.CCDExclusive)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &tlsctl.Denial{Err: fmt.Errorf("%q has no file in %s, and ccd-exclusive is set", name, dir)}
	case err != nil:
		return nil, &tlsctl.Denial{Temporary: true, Public: "server trouble, try again later", Err: fmt.Errorf("client file: %w", err)}
	case settings == nil:
		return &config.Client{}, nil
	case settings.Disable:
		return nil, &tlsctl.Denial{Err: fmt.Errorf("%q is disabled by %s", name, settings.Path)}
	}
	for _, w := range settings.Warnings {
		c.log.Warn().Msg(w)
	}
	return settings, nil
}

// grant leases addresses and a peer id and compiles the push list.
func (s *Server) grant(live *live, g *granted) (err error) {
	defer func() {
		if err != nil {
			s.revoke(g)
		}
	}()
	cfg := live.cfg
	if g.peer, err = s.table.allocatePeer(time.Now()); err != nil {
		g.peer = datachan.NoPeer
		return &tlsctl.Denial{Public: "server full, try again later", Temporary: true, Err: err}
	}
	set := g.settings
	mask := cfg.Addr4
	if fixed := set.IfconfigPush4; fixed.IsValid() {
		g.addr4 = fixed
		if s.pool != nil {
			if g.lease, err = s.pool.claim(g.name, fixed, s.leaseHolder); err != nil {
				return &tlsctl.Denial{Public: "address in use, try again later", Temporary: true, Err: err}
			}
		}
	} else if s.pool != nil {
		if g.lease, err = s.pool.lease(g.name); err != nil {
			return &tlsctl.Denial{Public: "no free address, try again later", Temporary: true, Err: err}
		}
		g.addr4, g.addr6 = g.lease.addr4, g.lease.addr6
	}
	if set.IfconfigPush6.IsValid() {
		g.addr6 = set.IfconfigPush6.Addr()
	}
	g.iroutes = set.IRoutes
	g.push = set.Pushes(cfg.Push)
	if g.addr6.IsValid() && !removed(set, "ifconfig-ipv6") {
		bits, gw := cfg.Pool6Bits, cfg.Addr6.Addr()
		if p := set.IfconfigPush6; p.IsValid() {
			bits = p.Bits()
			if set.Gateway6.IsValid() {
				gw = set.Gateway6
			}
		}
		g.push = append(g.push, fmt.Sprintf("ifconfig-ipv6 %v/%d %v", g.addr6, bits, gw))
	}
	if g.addr4.IsValid() && !removed(set, "ifconfig") {
		second := set.IfconfigMask
		if !set.IfconfigPush4.IsValid() {
			second = maskOf(mask)
		}
		g.push = append(g.push, fmt.Sprintf("ifconfig %v %v", g.addr4, second))
	}
	return nil
}

// revoke gives back what grant took.
func (s *Server) revoke(g *granted) {
	now := time.Now()
	s.pool.release(g.lease, now)
	if g.peer != datachan.NoPeer {
		s.table.freePeer(g.peer, now)
	}
}

// leaseHolder names who has a lease.
func (s *Server) leaseHolder(l *lease) string {
	for _, c := range s.table.all() {
		c.mu.Lock()
		g := c.grant
		c.mu.Unlock()
		if g != nil && g.lease == l {
			return g.name
		}
	}
	return ""
}

// removed reports whether a client file suppresses the address itself.
func removed(set *config.Client, what string) bool {
	return slices.ContainsFunc(set.PushRemove, func(r config.PushRemove) bool { return r.Prefix == what })
}

func maskOf(p netip.Prefix) netip.Addr {
	m := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}

// safeName is S066's allow-list: what may become a file name, a line in a file and a field in a log. Never replaced,
// since two names could become one.
func safeName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s == "DEFAULT" {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("._@+-", b) >= 0:
		default:
			return false
		}
	}
	return true
}

// join makes c a member at its first key. Older sessions of the same name end now.
func (c *client) join(k tlsctl.KeyMaterial, live *live) error {
	c.mu.Lock()
	g := c.grant
	c.cipher = k.Cipher
	c.mu.Unlock()
	if g == nil {
		return errors.New("a key before the login was decided")
	}
	p := c.path.Load()
	m := &member{peer: g.peer, addr4: g.addr4, addr6: g.addr6, routed: len(g.iroutes) > 0}
	m.mss4, m.mss6 = mss(live.cfg.MSSFix, p.addr.Addr().Is6(), c.stream, k.V2, k.Cipher)
	if !live.cfg.DuplicateCN {
		for _, old := range c.srv.table.all() {
			if old != c && old.member.Load() != nil && old.identity() == g.name {
				c.srv.end(old, "a newer session of the same name")
			}
		}
	}
	if displaced := c.srv.table.publish(c, m, g.iroutes); displaced != nil {
		c.srv.end(displaced, "a newer session from the same address")
	}
	return nil
}

// Established implements tlsctl.Owner: the client has its PUSH_REPLY on the way.
func (c *client) Established() {
	c.established.Store(true)
	c.leaveHalfOpen()
	c.mu.Lock()
	g, cipher := c.grant, c.cipher
	c.mu.Unlock()
	e := c.log.Info().Str("client", g.name).Str("cipher", cipher).Uint32("peer", uint32(g.peer)).Stringer("took", time.Since(c.opened).Round(time.Millisecond))
	if g.user != "" {
		e = e.Str("user", g.user)
	}
	if g.addr4.IsValid() {
		e = e.Stringer("addr4", g.addr4)
	}
	if g.addr6.IsValid() {
		e = e.Stringer("addr6", g.addr6)
	}
	e.Str("version", g.peerInfo.Version()).Str("platform", g.peerInfo.Platform()).Msg("client connected")
}

func (c *client) leaveHalfOpen() {
	c.mu.Lock()
	was := c.open
	c.open = false
	c.mu.Unlock()
	if was {
		c.srv.half.leave(c.source)
		c.settle(c.established.Load())
	}
}
