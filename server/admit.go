package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/server/datachan"
	"postern/server/link"
	"postern/tlsctl"
)

// certRef is what of a certificate is remembered while its owner is connected.
type certRef struct {
	sum  [sha256.Size]byte
	cert *x509.Certificate
}

// Admit implements tlsctl.Owner: the one place that says yes (S039). Certificate, login and policy must all agree,
// at every negotiation. The first one also leases addresses and compiles what is pushed.
func (c *client) Admit(ctx context.Context, h *tlsctl.Hello) (_ *tlsctl.Grant, err error) {
	c.srv.half.login(c)
	at := c.meet(h)
	defer func() { c.parted(h, at, err) }()
	live := c.srv.live.Load()
	defer func() { c.recordLogin(live, h, err) }()
	if err := c.recordable(live, h); err != nil {
		return nil, err
	}
	if live.cfg.ForceExporter && !h.Peer.Can(tlsctl.FeatureExporter) {
		return nil, &tlsctl.Denial{Public: "this client is too old", Err: errors.New("it cannot derive data keys with the exporter of TLS: force-tls-key-material-export")}
	}
	name, err := certificateName(live, h)
	if err != nil {
		return nil, err
	}
	v := c.visitor(h, name)
	if err := c.verifyChain(ctx, v); err != nil {
		return nil, err
	}
	at.reach(stepLogin, name)
	user := ""
	var who *auth.Identity
	if live.login.Auth != nil {
		if who, err = c.login(ctx, live, h, name, v); err != nil {
			return nil, err
		}
		user = who.Name
		at.reach(stepPolicy, described(who))
		if live.cfg.UsernameAsCN || name == "" {
			name = user
		}
	}
	if !safeName(name) {
		return nil, &tlsctl.Denial{Public: "this name cannot be used here", Err: fmt.Errorf("name %q: letters, digits and ._@+- only, at most 64", name)}
	}
	if !h.First {
		known := c.decided()
		if known == nil || known.name != name || known.user != user {
			return nil, &tlsctl.Denial{Public: "identity changed", Err: errors.New("another identity at renegotiation")}
		}
		if who != nil {
			c.reidentify(who)
		}
		return c.withToken(live, &tlsctl.Grant{PeerID: uint32(known.peer)}), nil
	}
	g := &granted{name: name, user: user, login: h.Username, who: who, peer: datachan.NoPeer, peerInfo: h.Peer, cfg: live.cfg}
	for i, cert := range h.Chain {
		g.chain = append(g.chain, certRef{sha256.Sum256(cert.Raw), cert})
		if i == 0 {
			g.notAfter = cert.NotAfter
		}
	}
	if g.ruling, err = c.srv.judge(live, g.subject()); err != nil {
		return nil, err
	}
	g.sessions = g.ruling.sessions(live.cfg)
	settings, err := c.settings(live, name)
	if err == nil {
		settings, err = withAttributes(live.view(&g.ruling), settings, who)
	}
	if err != nil {
		return nil, err
	}
	g.file, g.set, g.iroutes = settings, settings, settings.IRoutes
	at.reach(stepAddress, strings.TrimSpace(g.ruling.String()+" "+settings.Path))
	if err := c.allot(ctx, live, g); err != nil {
		return nil, err
	}
	at.reach("", strings.TrimSpace(shownAddr(g.addr4)+" "+shownAddr(g.addr6)))
	g.pushed = PushList(live.view(&g.ruling), g.set, Addresses{g.addr4, g.addr6, g.peer4}, g.peerInfo)
	c.mu.Lock()
	c.grant = g
	c.mu.Unlock()
	if c.gone.Load() { // ended while the directory was asked, or a script
		return nil, &tlsctl.Denial{Public: "session ended", Err: errEnded}
	}
	if err := c.recordEntry(ctx, live, g); err != nil {
		return nil, err
	}
	return c.withToken(live, &tlsctl.Grant{Push: g.pushed, PeerID: uint32(g.peer)}), nil
}

// allot leases addresses and a peer id to g and has scripts say what they think of the client, which may add to what its
// file says. After an error nothing is leased.
func (c *client) allot(ctx context.Context, live *live, g *granted) error {
	if c.srv.visitScripts() && g.sessions == 1 {
		if err := c.srv.visits.enter(ctx, c, g.name); err != nil {
			return err
		}
	}
	err := c.srv.grant(live, g, g.set)
	if err == nil {
		err = c.visit(ctx, live, g)
	}
	if err == nil {
		if err = c.enter(ctx, g); err != nil {
			c.unvisit(g)
		}
	}
	if err != nil {
		c.srv.revoke(c, g)
		c.srv.visits.leave(c, g.name)
	}
	return err
}

// certificateName judges the client's certificate beyond what the TLS handshake did, and names its owner: "" without
// one, where the configuration lets that be.
func certificateName(live *live, h *tlsctl.Hello) (string, error) {
	if len(h.Chain) == 0 {
		return "", nil
	}
	switch err := live.revoked(h.Chain); {
	case errors.Is(err, tlsctl.ErrRevoked):
		return "", &tlsctl.Denial{Public: "certificate revoked", Err: err}
	case err != nil: // it cannot be known (S068)
		return "", comeAgain("server trouble, try again later", err)
	}
	return h.CommonName, nil
}

// errDisabled: the client's file says disable.
var errDisabled = errors.New("is disabled")

// noSettings is what a client without a file has. As all settings it never changes.
var noSettings = new(config.Client)

// settings reads the client's file, if the configuration has a directory of them.
func (c *client) settings(live *live, name string) (*config.Client, error) {
	dir := live.cfg.ClientConfigDir
	if dir == "" {
		return noSettings, nil
	}
	settings, err := config.LoadClient(dir, name, live.cfg.CCDExclusive)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &tlsctl.Denial{Err: fmt.Errorf("%q has no file in %s, and ccd-exclusive is set", name, dir)}
	case err != nil:
		return nil, comeAgain("server trouble, try again later", fmt.Errorf("client file: %w", err))
	case settings == nil:
		return noSettings, nil
	case settings.Disable:
		return nil, &tlsctl.Denial{Err: fmt.Errorf("%q %w by %s", name, errDisabled, settings.Path)}
	}
	for _, w := range settings.Warnings {
		c.log.Warn().Msg(w)
	}
	if odd := oddAddress(live.cfg, settings); odd != "" {
		c.log.Warn().Str("file", settings.Path).Msg(odd)
	}
	return settings, nil
}

// grant leases addresses and a peer id to g. After an error revoke gives back what it took.
func (s *Server) grant(live *live, g *granted, set *config.Client) (err error) {
	if max := live.cfg.MaxClients; s.table.full(g.name, max, g.sessions) {
		return tryNext("server full, try again later", fmt.Errorf("%q: %d clients are connected, which is max-clients", g.name, max))
	}
	if g.ruling.terms().Refuse && s.table.crowded(g.name, g.sessions, s.quietSince(live.cfg)) {
		return &tlsctl.Denial{Public: "too many sessions: end another one first", Err: fmt.Errorf("%q has the %d sessions that policy %s allows", g.name, g.sessions, g.ruling.policy.Name)}
	}
	if g.peer, err = s.table.allocatePeer(time.Now()); err != nil {
		return tryNext("server full, try again later", err)
	}
	return s.lease(g, set)
}

// lease gives g its inside addresses: those of its client file, or an entry of the pool. With a fixed IPv4 address there
// is no IPv6 one of the pool, as OpenVPN has it. Where the name may have several sessions, each has an address
// of its own.
func (s *Server) lease(g *granted, set *config.Client) error {
	leases := g.ruling.zone.leases
	for _, a := range []netip.Addr{set.IfconfigPush4, set.IfconfigPush6.Addr()} {
		if !a.IsValid() {
			continue
		}
		for _, z := range s.zones {
			if z != g.ruling.zone && z.leases.index(a) >= 0 {
				return comeAgain("server trouble, try again later", fmt.Errorf("%q: the file's address %v is one of pool %s, and its policy leads into %s", g.name, a, z.name, g.ruling.zone.name))
			}
		}
		l, err := leases.claim(g.name, a)
		if err != nil {
			return comeAgain("address in use, try again later", err)
		}
		g.leases = append(g.leases, l)
		s.handOn(l)
		if (l == nil || l.index < 0) && s.fixed.given(a, g.name) {
			g.taken = append(g.taken, a)
			s.forget(a)
		}
	}
	g.addr4, g.addr6 = set.IfconfigPush4, set.IfconfigPush6.Addr()
	if leases == nil || g.addr4.IsValid() {
		return nil
	}
	l, err := leases.lease(g.name, g.sessions != 1)
	if err != nil {
		return tryNext("no free address, try again later", err) // F42
	}
	g.leases = append(g.leases, l)
	s.handOn(l)
	g.addr4, g.peer4 = l.addr4, l.peer4
	if !g.addr6.IsValid() {
		g.addr6 = l.addr6
	}
	return nil
}

// revoke gives back what grant and enter took.
func (s *Server) revoke(c *client, g *granted) {
	s.enforcer.leave(c) // before anybody else can have its addresses
	s.unlease(g)
	if g.peer != datachan.NoPeer {
		s.table.freePeer(g.peer, time.Now())
	}
}

// unlease gives back g's addresses.
func (s *Server) unlease(g *granted) {
	for _, l := range g.leases {
		g.ruling.zone.leases.release(l, time.Now())
	}
}

func maskOf(p netip.Prefix) netip.Addr {
	m := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}

// safeName is S066's allow-list: what may become a file name, a line in a file and a field in a log. Never replaced,
// since two names could become one.
func safeName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || strings.EqualFold(s, "DEFAULT") {
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

// join makes c a member at its first key. Who was at its address, or has its name, ends now.
func (c *client) join(key *datachan.Key, cipher string, live *live) error {
	c.mu.Lock()
	g := c.grant
	c.cipher = cipher
	c.mu.Unlock()
	if g == nil {
		return errors.New("a key before the login was decided")
	}
	p := c.path.Load()
	m := &member{name: g.name, sessions: g.sessions, zone: g.ruling.zone.index, limited: c.setLimits(live, &g.ruling), peer: g.peer,
		addr4: g.usable(g.addr4), addr6: g.usable(g.addr6), routed: len(g.iroutes) > 0}
	m.mss4, m.mss6 = mss(live.cfg.MSSFix, p.addr.Addr().Is6(), c.stream, key)
	if st, ok := p.sock.(*link.Stream); ok {
		st.SetLimit(frameLimit(live.cfg.MTU))
	}
	// The timers of keepalive begin now: a login may have taken longer than they allow.
	now := c.srv.clock.Load()
	c.rx.last.Store(now)
	c.tx.last.Store(now)
	displaced, ok := c.srv.table.publish(c, m, g.iroutes)
	if !ok {
		return errEnded
	}
	c.srv.enforcer.join(c)
	if len(g.taken) > 0 { // whoever had them may have used them until now
		c.srv.wg.Go(func() { c.srv.forget(g.taken...) })
	}
	for _, old := range displaced {
		c.srv.displace(old, c)
	}
	return nil
}

// Established implements tlsctl.Owner: the client has its PUSH_REPLY on the way.
func (c *client) Established() {
	c.tell(stepConnected, "")
	c.established.Store(true)
	c.leaveHalfOpen()
	c.mu.Lock()
	g, cipher := c.grant, c.cipher
	c.mu.Unlock()
	e := c.log.Info().Str("client", g.name).Str("cipher", cipher).Uint32("peer", uint32(g.peer)).Stringer("took", time.Since(c.opened).Round(time.Millisecond))
	if g.user != "" {
		e = e.Str("user", g.user).Str("by", g.who.By)
	}
	if g.addr4.IsValid() {
		e = e.Stringer("addr4", g.addr4)
	}
	if g.addr6.IsValid() {
		e = e.Stringer("addr6", g.addr6)
	}
	e.Str("version", g.peerInfo.Version()).Str("platform", g.peerInfo.Platform()).Msg("client connected")
	c.tellEstablished(g)
	c.recordConnect(g)
	c.catchUp(g.cfg)
}

// leaveHalfOpen gives up c's place among the half-open sessions, and tells the gate how it went.
func (c *client) leaveHalfOpen() {
	c.srv.half.leave(c)
	c.settle(c.established.Load())
}
