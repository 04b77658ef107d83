package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server/config"
	"postern/server/hooks"
	"postern/tlsctl"
)

// Facts is what scripts and management clients are told of the server that p describes, and of its first pool, whose
// device must be open.
func Facts(cfg *config.Config, p *Parts) *hooks.Daemon {
	cfg = cfg.For(&cfg.AllPools()[0], nil)
	d := &hooks.Daemon{
		Config: cfg.Path, PID: os.Getpid(), Started: p.Started, Verb: cfg.Verb,
		Background: cfg.Daemon, LogRedirect: cfg.Log != "",
		Dev: p.Devices[0].Name(), DevType: devType(cfg), MTU: cfg.MTU, Local4: cfg.Addr4, Remote4: cfg.Peer4, Local6: cfg.Addr6,
		NetGateway: p.NetGateway, NetGateway6: p.NetGateway6, SetEnv: cfg.SetEnv,
	}
	if d.Local6.IsValid() {
		d.Remote6 = cfg.Addr6.Addr().Next()
	}
	for _, l := range cfg.Listen {
		h := hooks.Listener{Proto: l.Proto, Port: l.Addr.Port(), RemotePort: l.Addr.Port()}
		if !l.Addr.Addr().IsUnspecified() {
			h.Local = l.Addr.Addr()
		}
		d.Listeners = append(d.Listeners, h)
	}
	if d.VPNGateway = cfg.Peer4; !d.VPNGateway.IsValid() && cfg.Addr4.IsValid() {
		d.VPNGateway = cfg.Addr4.Addr().Next()
	}
	for _, r := range cfg.Routes {
		to := hooks.Route{Prefix: r.Net, Gateway: r.Gateway, Metric: r.Metric}
		switch {
		case to.Gateway.IsValid():
		case r.Net.Addr().Is4():
			to.Gateway = d.VPNGateway
		default:
			to.Gateway = d.Remote6
		}
		d.Routes = append(d.Routes, to)
	}
	return d
}

// ScriptOptions are how a configuration wants scripts to be run.
func ScriptOptions(cfg *config.Config, log zerolog.Logger) hooks.Options {
	o := hooks.Options{
		Commands: make(map[hooks.Kind]hooks.Command), Security: cfg.Scripts.Security, PasswordInFile: cfg.Scripts.PasswordInFile,
		Dir: cfg.Dir, TempDir: cfg.Scripts.TempDir, ExportCert: cfg.Scripts.ExportCert, Log: log,
	}
	for directive, words := range cfg.Scripts.Commands {
		o.Commands[hooks.Kind(directive)] = words
	}
	return o
}

// visitor is what scripts are told of a client whose certificates are being judged. At first that is little: what it says
// about itself comes with its login. At a renegotiation it is what info tells.
func (c *client) visitor(h *tlsctl.Hello, name string) *hooks.ClientInfo {
	v := &hooks.ClientInfo{CommonName: name, Untrusted: c.path.Load().addr}
	if g := c.decided(); g != nil { // it has logged in before
		v = c.info(g)
		v.Chain = nil
	}
	for _, cert := range h.Chain {
		v.Chain = append(v.Chain, hooks.CertOf(cert, tlsctl.Subject(cert)))
	}
	return v
}

func peerVars(p tlsctl.PeerInfo) (vars []hooks.Var) {
	for name, value := range p.All {
		vars = append(vars, hooks.Var{Name: name, Value: value})
	}
	return vars
}

// info is what scripts and management clients are told of a client that has logged in.
func (c *client) info(g *granted) *hooks.ClientInfo {
	cfg, from := c.srv.live.Load().view(&g.ruling), c.path.Load().addr
	i := &hooks.ClientInfo{
		CommonName: g.name, Username: g.login, Untrusted: from, Trusted: from, Peer: peerVars(g.peerInfo), Since: c.opened,
		Remote4: g.addr4, Remote6: g.addr6,
	}
	if i.Local4 = g.peer4; g.addr4.IsValid() && cfg.Addr4.IsValid() && cfg.Topology == config.Subnet {
		i.Netmask4 = maskOf(cfg.Addr4)
	}
	if g.set.IfconfigPush4.IsValid() && cfg.Topology == config.Subnet {
		i.Netmask4 = g.set.IfconfigMask
	}
	if g.addr6.IsValid() {
		i.Local6, i.Netbits6 = cfg.Addr6.Addr(), cfg.Pool6Bits
		if p := g.set.IfconfigPush6; p.IsValid() {
			i.Netbits6 = p.Bits()
		}
	}
	if r, ok := c.tokens.Report(); ok {
		i.SessionID, i.SessionState = r.Session, r.State.String()
	}
	for _, ref := range g.chain {
		i.Chain = append(i.Chain, hooks.CertOf(ref.cert, tlsctl.Subject(ref.cert)))
	}
	return i
}

// verifyKey asks the tls-crypt-v2-verify script about a stranger's key.
func (s *Server) verifyKey(ctx context.Context, metadata []byte) error {
	if metadata == nil || !s.parts.Scripts.Has(hooks.TLSCryptV2Verify) {
		return nil
	}
	if len(metadata) == 0 {
		return errors.New("the client's key says nothing that tls-crypt-v2-verify could judge")
	}
	return s.parts.Scripts.TLSCryptV2Verify(ctx, hooks.MetadataType(metadata[0]), metadata[1:])
}

// verifyChain asks the tls-verify script about the client's certificates.
func (c *client) verifyChain(ctx context.Context, v *hooks.ClientInfo) error {
	if len(v.Chain) == 0 {
		return nil
	}
	return denial(c.scripts.TLSVerify(ctx, v), "certificate not accepted")
}

// denial is what a client hears of a script that did not agree; public, or what the script wants it to know.
func denial(err error, public string) error {
	refused := (*hooks.Refusal)(nil)
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return comeAgain("server trouble, try again later", err)
	case refused.Public != "":
		public = refused.Public
	}
	return &tlsctl.Denial{Public: public, Err: err}
}

// loginScript is auth.Request.Script for one negotiation: the script, and then the management clients, as far as there
// are such; nil without either.
func (c *client) loginScript(h *tlsctl.Hello, v *hooks.ClientInfo) func(context.Context, *auth.Request) error {
	script := c.passwordScript(h, v)
	if !c.srv.live.Load().cfg.Management.ClientAuth {
		return script
	}
	return func(ctx context.Context, r *auth.Request) error {
		if script != nil {
			if err := script(ctx, r); err != nil {
				return err
			}
		}
		return c.managedLogin(ctx, r, h, v)
	}
}

func (c *client) passwordScript(h *tlsctl.Hello, v *hooks.ClientInfo) func(context.Context, *auth.Request) error {
	if !c.srv.parts.Scripts.Has(hooks.AuthUserPassVerify) {
		return nil
	}
	return func(ctx context.Context, r *auth.Request) error {
		who := *v
		who.Peer = peerVars(h.Peer)
		if r.Token != nil {
			who.SessionID, who.SessionState = r.Token.Session, r.Token.State.String()
		}
		password := r.Password
		if r.State != "" || r.Response != nil {
			password = h.Password // with the answer to a question that only the script can have asked
		}
		login, err := c.scripts.AuthUserPassVerify(ctx, &who, hooks.Credentials{Username: r.Username, Password: password})
		if err == nil && login.Deferred() {
			who.Username = r.Username
			err = c.await(ctx, login, h, &who)
		}
		refused := (*hooks.Refusal)(nil)
		switch {
		case !errors.As(err, &refused):
			return err
		case strings.HasPrefix(refused.Public, "CRV1:"): // no guess, but a question to come back with the answer to
			return &tlsctl.Denial{Challenge: refused.Public, Err: err}
		}
		return &auth.Denied{Reason: err.Error(), Public: refused.Public}
	}
}

// await waits for the answer to a login that its script has deferred. Meanwhile the client may be asked something, and
// its answer goes to another script.
func (c *client) await(ctx context.Context, login *hooks.Login, h *tlsctl.Hello, v *hooks.ClientInfo) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var asking sync.WaitGroup
	defer asking.Wait()
	if login.Pending != nil {
		q, err := pendingQuestion(login.Pending)
		if err != nil {
			return fmt.Errorf("auth_pending_file: %w", err)
		}
		asking.Go(func() {
			if err := c.put(ctx, q, h, v); err != nil {
				cancel(err)
			}
		})
	}
	err := login.Wait(ctx)
	if refused := (*hooks.Refusal)(nil); errors.As(context.Cause(ctx), &refused) {
		err = refused
	}
	cancel(nil)
	return err
}

// put puts a question to the client's user, and gives what comes back to the client-crresponse script.
func (c *client) put(ctx context.Context, q tlsctl.Question, h *tlsctl.Hello, v *hooks.ClientInfo) error {
	response, err := h.Ask(ctx, q)
	defer clear(response)
	if err != nil {
		return fmt.Errorf("ask the user: %w", err)
	}
	if response == nil {
		return nil // the answer comes to somebody else, who tells the script
	}
	return c.scripts.ClientCRResponse(ctx, v, base64.StdEncoding.EncodeToString(response))
}

// pendingQuestion takes apart what a script wants a user to be asked: INFO_PRE's text, as in "CR_TEXT:R,E:One-time code".
func pendingQuestion(p *hooks.Pending) (tlsctl.Question, error) {
	q, method, ok := parseQuestion(p.Extra)
	if !ok || method != p.Method {
		return q, fmt.Errorf("%.60q is no text for the method %q: CR_TEXT:FLAGS:TEXT is for crtext, WEB_AUTH:FLAGS:URL for webauth, OPEN_URL:URL for openurl", p.Extra, p.Method)
	}
	q.Timeout = p.Timeout
	return q, nil
}

// parseQuestion takes the text behind INFO_PRE apart, and tells the method's name in IV_SSO.
func parseQuestion(text string) (q tlsctl.Question, method string, ok bool) {
	kind, rest, ok := strings.Cut(text, ":")
	switch kind {
	case "OPEN_URL":
		q.Method, q.Text, method = tlsctl.AskURL, rest, "openurl"
	case "CR_TEXT", "WEB_AUTH":
		q.Method, method = tlsctl.AskText, "crtext"
		if kind == "WEB_AUTH" {
			q.Method, method = tlsctl.AskWeb, "webauth"
		}
		var flags string
		flags, q.Text, ok = strings.Cut(rest, ":")
		if flags != "" {
			q.Flags = strings.Split(flags, ",")
		}
	default:
		return q, "", false
	}
	return q, method, ok
}

// visits keeps the scripts of all sessions of one name in order: what client-connect has set up for one of them is
// taken down by its client-disconnect before the next one's turn, or the older session would take down what the newer
// one has set up.
type visits struct {
	mu sync.Mutex
	by map[string]*client // guarded by mu: whose scripts are under way, from client-connect until after client-disconnect
}

// enter waits until it is c's turn. The session whose turn it was ends: c has been authorised.
func (v *visits) enter(ctx context.Context, c *client, name string) error {
	for {
		v.mu.Lock()
		other := v.by[name]
		if other == nil || other == c {
			if v.by == nil {
				v.by = make(map[string]*client)
			}
			v.by[name] = c
			v.mu.Unlock()
			return nil
		}
		v.mu.Unlock()
		c.srv.end(other, "a newer session of the same name")
		select {
		case <-other.over:
		case <-ctx.Done():
			return fmt.Errorf("the scripts of an older session of %q have not ended: %w", name, context.Cause(ctx))
		}
	}
}

// leave hands the turn on, if it was c's.
func (v *visits) leave(c *client, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by[name] == c {
		delete(v.by, name)
	}
}

// departures counts the sessions whose last script has not run yet.
type departures struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	none chan struct{} // guarded by mu: closed when n falls to 0; nil: nobody waits
}

func (d *departures) enter() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
}

func (d *departures) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n--; d.n == 0 && d.none != nil {
		close(d.none)
		d.none = nil
	}
}

// wait waits until there are none, or for ctx.
func (d *departures) wait(ctx context.Context) {
	d.mu.Lock()
	if d.n == 0 {
		d.mu.Unlock()
		return
	}
	if d.none == nil {
		d.none = make(chan struct{})
	}
	none := d.none
	d.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

// visitScripts reports whether there are scripts that sessions of one name would disturb each other with.
func (s *Server) visitScripts() bool {
	r := s.parts.Scripts
	return r.Has(hooks.ClientConnect) || r.Has(hooks.ClientDisconnect) || r.Has(hooks.LearnAddress)
}

// visit runs the scripts of a client that has logged in, and applies to g what they say.
func (c *client) visit(ctx context.Context, live *live, g *granted) error {
	lines, err := c.scripts.ClientConnect(ctx, c.info(g))
	if err != nil {
		return denial(err, "")
	}
	for _, said := range []struct {
		by    string
		lines []byte
	}{{"client-connect", lines}, {"client-auth", c.managed.said()}} {
		if len(said.lines) == 0 {
			continue
		}
		if err := c.apply(live, g, said.by, said.lines); err != nil {
			c.disconnectScript(c.info(g))
			return err
		}
	}
	c.mu.Lock()
	c.visited = true
	c.mu.Unlock()
	c.learn(ctx, g)
	return nil
}

// apply has g follow the lines that client-connect has written, or a management client.
func (c *client) apply(live *live, g *granted, by string, lines []byte) error {
	set, warnings := g.set.With(live.cfg.ClientConfigDir, by, lines)
	for _, w := range warnings {
		c.log.Warn().Msg(w)
	}
	if set.Disable {
		return &tlsctl.Denial{Err: fmt.Errorf("%q is disabled by %s", g.name, by)}
	}
	moved := set.IfconfigPush4 != g.set.IfconfigPush4 || set.IfconfigPush6 != g.set.IfconfigPush6
	g.set, g.iroutes = set, set.IRoutes
	if !moved {
		return nil
	}
	c.srv.unlease(g)
	g.leases, g.peer4 = nil, netip.Addr{}
	return c.srv.lease(g, set)
}

// learn tells the script of the addresses that become the client's, and takes from g those that it refuses.
func (c *client) learn(ctx context.Context, g *granted) {
	if !c.srv.parts.Scripts.Has(hooks.LearnAddress) {
		return
	}
	info := c.info(g)
	for _, p := range g.inside() {
		op := hooks.AddressAdd
		if c.srv.table.zones[g.ruling.zone.index].find(p.Addr()) != nil {
			op = hooks.AddressUpdate
		}
		if err := c.scripts.LearnAddress(ctx, op, p, info); err != nil {
			c.log.Warn().Err(err).Stringer("inside", p).Msg("the address is not used: learn-address did not agree")
			g.unlearned = append(g.unlearned, p)
		}
	}
	g.iroutes = slices.DeleteFunc(slices.Clone(g.iroutes), func(p netip.Prefix) bool { return slices.Contains(g.unlearned, p) })
}

// inside is every address and network inside that is to be the client's.
func (g *granted) inside() (nets []netip.Prefix) {
	for _, a := range []netip.Addr{g.addr4, g.addr6} {
		if a.IsValid() {
			nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return append(nets, g.iroutes...)
}

// usable is an inside address, or nothing when learn-address has refused it.
func (g *granted) usable(a netip.Addr) netip.Addr {
	if a.IsValid() && slices.Contains(g.unlearned, netip.PrefixFrom(a, a.BitLen())) {
		return netip.Addr{}
	}
	return a
}

// unvisit runs client-disconnect for a client that client-connect has let in and that nobody else does.
func (c *client) unvisit(g *granted) {
	c.mu.Lock()
	c.visited = false
	c.mu.Unlock()
	c.disconnectScript(c.info(g))
}

// depart runs the scripts of a client that is gone.
func (c *client) depart(g *granted) {
	defer c.scripts.Close()
	c.mu.Lock()
	visited := c.visited
	c.mu.Unlock()
	if g == nil || !visited {
		return
	}
	c.disconnectScript(c.info(g))
	if !c.srv.parts.Scripts.Has(hooks.LearnAddress) {
		return
	}
	for _, p := range g.inside() {
		if slices.Contains(g.unlearned, p) || c.srv.table.zones[g.ruling.zone.index].find(p.Addr()) != nil {
			continue // it never was the client's, or is somebody else's now, who has been told of
		}
		if err := c.scripts.LearnAddress(c.srv.scripting, hooks.AddressDelete, p, nil); err != nil {
			c.log.Warn().Err(err).Msg("learn-address")
		}
	}
}

func (c *client) disconnectScript(info *hooks.ClientInfo) {
	err := c.scripts.ClientDisconnect(c.srv.scripting, info, c.rx.bytes.Load(), c.tx.bytes.Load(), time.Since(c.opened))
	if err != nil {
		c.log.Warn().Err(err).Msg("client-disconnect")
	}
}
