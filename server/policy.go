package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/tlsctl"
)

// A Subject is what policies are chosen by.
type Subject struct {
	Name  string         // of the client: the certificate's, or the user's
	Login *auth.Identity // nil without a login
	Units []string       // of the certificate
}

// policies are those of a configuration, in order, with names made comparable.
type policies []policy

type policy struct {
	*config.Policy
	match []match
}

type match struct {
	config.Match
	groups []string // DNs in their normal form
	users  []string // canonical
}

func newPolicies(cfg *config.Config) (policies, error) {
	var list policies
	for i := range cfg.Policies {
		p := policy{Policy: &cfg.Policies[i]}
		for _, m := range p.Match {
			c := match{Match: m}
			for _, g := range m.Groups {
				dn, err := auth.NormalDN(g)
				if err != nil {
					return nil, fmt.Errorf("policy %s: match ldap-group %q: %w", p.Name, g, err)
				}
				c.groups = append(c.groups, dn)
			}
			for _, u := range m.Users {
				name, err := auth.CanonicalName(u)
				if err != nil {
					return nil, fmt.Errorf("policy %s: match user %q: %w", p.Name, u, err)
				}
				c.users = append(c.users, name)
			}
			p.match = append(p.match, c)
		}
		list = append(list, p)
	}
	return list, nil
}

// choose returns the first policy that matches, nil when none does.
func (list policies) choose(of *Subject) *config.Policy {
	for _, p := range list {
		if slices.ContainsFunc(p.match, func(m match) bool { return m.fits(of) }) {
			return p.Policy
		}
	}
	return nil
}

// PolicyFor returns the policy that a configuration gives a client: nil when none matches, and when there are none.
func PolicyFor(cfg *config.Config, of *Subject) (*config.Policy, error) {
	list, err := newPolicies(cfg)
	if err != nil {
		return nil, err
	}
	return list.choose(of), nil
}

// fits reports whether all conditions hold.
func (m *match) fits(of *Subject) bool {
	for _, g := range m.groups {
		if of.Login == nil || !slices.Contains(of.Login.Groups, g) {
			return false
		}
	}
	for _, u := range m.Units {
		if !slices.Contains(of.Units, u) {
			return false
		}
	}
	for i, u := range m.users {
		if of.Login != nil && of.Login.Name != u || of.Login == nil && of.Name != m.Users[i] {
			return false
		}
	}
	return true
}

// ruling is what the configuration says about one client: without policies the zero policy, in the first zone.
type ruling struct {
	policy *config.Policy // nil without policies
	zone   *zone
}

// noPolicy is what holds where there are no policies.
var noPolicy = &config.Policy{}

// terms is the policy, or what holds without one.
func (r *ruling) terms() *config.Policy {
	if r.policy == nil {
		return noPolicy
	}
	return r.policy
}

// String names policy and pool, where there is a choice.
func (r *ruling) String() string {
	if r.policy == nil {
		return ""
	}
	return fmt.Sprintf("policy %s, pool %s", r.policy.Name, r.zone.name)
}

// sessions is how many sessions one name may have; 0: any number.
func (r *ruling) sessions(cfg *config.Config) int {
	switch {
	case r.policy != nil && r.policy.Sessions > 0:
		return r.policy.Sessions
	case cfg.DuplicateCN:
		return 0
	}
	return 1
}

// quietSince is when a client must have been heard, on Server.clock, so that its session counts against `sessions N
// refuse`: a device that lost its connection may come again before the server has noticed.
func (s *Server) quietSince(cfg *config.Config) int64 {
	return s.clock.Load() - max(2*seconds(cfg.Ping), 20)
}

// judge chooses the policy of a client and sees whether it lets it be connected now. The error is a *tlsctl.Denial.
func (s *Server) judge(l *live, of *Subject) (ruling, error) {
	r := ruling{zone: s.zones[0]}
	if len(l.policies) == 0 {
		return r, nil
	}
	if r.policy = l.policies.choose(of); r.policy == nil {
		return r, &tlsctl.Denial{Public: auth.PublicRefusal, Err: fmt.Errorf("%q: %w", of.Name, errNoPolicy)}
	}
	r.zone = s.zoneOf(r.policy.Pool)
	if of.Login != nil && of.Login.Pool != "" {
		if r.zone = s.zoneOf(of.Login.Pool); r.zone == nil {
			return r, &tlsctl.Denial{Public: auth.PublicRefusal, Err: fmt.Errorf("%q: the directory gives the pool %q, which is not there", of.Name, of.Login.Pool)}
		}
	}
	if !r.policy.Open(time.Now()) {
		return r, &tlsctl.Denial{Public: "connections are not allowed at this hour", Err: fmt.Errorf("%q: %w of policy %s", of.Name, errHours, r.policy.Name)}
	}
	if r.policy.Factor != "" && (l.login.HasFactor == nil || of.Login == nil || !l.login.HasFactor(of.Login.Name, r.policy.Factor)) {
		return r, &tlsctl.Denial{Public: "a one-time code is needed besides the password: ask for one to be set up",
			Err: fmt.Errorf("%q: policy %s wants the factor %s, and the user has none", of.Name, r.policy.Name, r.policy.Factor)}
	}
	return r, nil
}

var (
	errNoPolicy = errors.New("no policy matches")
	errHours    = errors.New("outside the hours")
)

// subject is what is known of an admitted client.
func (g *granted) subject() *Subject {
	of := &Subject{Name: g.name, Login: g.who}
	if len(g.chain) > 0 {
		of.Units = g.chain[0].cert.Subject.OrganizationalUnit
	}
	return of
}

// restartKeeping has a client come again with the credentials it has.
const restartKeeping = tlsctl.Message("RESTART,[P]")

// reevaluate has policy judge an established client anew: its groups are others than they were, or the policies. Any
// goroutine. Rules and limits change at once, under the connection; routes with a PUSH_UPDATE where the client takes
// one. Where it does not and another policy holds for it now, and where the pool changes, the client is told to come
// again. Whom no policy matches any more is ended with a reason.
func (s *Server) reevaluate(c *client) {
	s.reevaluating.Lock()
	defer s.reevaluating.Unlock()
	for !s.reevaluated(c) {
	}
}

// reevaluated reports whether c was judged by what is known of it: its login may have become another meanwhile. The
// caller holds reevaluating.
func (s *Server) reevaluated(c *client) bool {
	l, g := s.live.Load(), c.decided()
	if g == nil || c.gone.Load() {
		return true
	}
	if len(l.policies) == 0 { // limits of its pool there may be
		c.applyTerms(l, &g.ruling)
		return true
	}
	r, err := s.judge(l, g.subject())
	if err != nil {
		denial := (*tlsctl.Denial)(nil)
		errors.As(err, &denial)
		s.deny(c, denial.Public, fmt.Errorf("policy: %w", denial.Err))
		return true
	}
	if r.zone != g.ruling.zone {
		c.log.Info().Str("client", g.name).Str("policy", r.policy.Name).Str("pool", r.zone.name).Msg("the policy asks for another pool: client told to connect again")
		c.session.Shutdown(restartKeeping)
		return true
	}
	moved, ok := c.regrant(g.who, r)
	if !ok {
		return false
	}
	s.enforcer.move(c, r.terms().Name)
	c.applyTerms(l, &r)
	if !moved {
		return true // what else has changed of its pushes is repushAll's
	}
	c.log.Info().Str("client", g.name).Str("policy", r.terms().Name).Str("was", g.ruling.terms().Name).Msg("policy changed")
	s.wg.Go(func() { // its file is read again, which may take as long as a disk does
		if _, later := c.repush(l); later && !c.gone.Load() {
			c.log.Info().Str("client", g.name).Msg("another policy pushes other options: client told to connect again")
			c.session.Shutdown(restartKeeping)
		}
	})
	return true
}

// regrant puts another ruling in the place of the one there is, and reports whether the policy is another. It does
// nothing when the client's login is not the one that was judged.
func (c *client) regrant(who *auth.Identity, r ruling) (moved, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.grant == nil || c.grant.who != who {
		return false, false
	}
	next := *c.grant
	moved = next.ruling.terms().Name != r.terms().Name
	next.ruling = r
	c.grant = &next
	return moved, true
}

// applyTerms has the lanes know what the ruling says of a member.
func (c *client) applyTerms(l *live, r *ruling) {
	limited := c.setLimits(l, r)
	c.srv.table.repolicy(c, func(m *member) { m.sessions, m.limited = r.sessions(l.cfg), limited })
}

// consequences counts the connected clients whose session a configuration would end, by refusing them or by moving them
// to another pool.
func (s *Server) consequences(l *live) (ending, total int) {
	for _, c := range s.table.all(nil) {
		g := c.decided()
		if g == nil || !c.isIn() {
			continue
		}
		total++
		if s.ends(l, g, g.subject()) {
			ending++
		}
	}
	return ending, total
}

// ends reports whether a client's session would end, or move to another pool, if it were of that subject.
func (s *Server) ends(l *live, g *granted, of *Subject) bool {
	r, err := s.judge(l, of)
	return err != nil || r.zone != g.ruling.zone
}

// enforceTime is how long a login waits for the packet filter.
const enforceTime = 5 * time.Second

// enter has the packet filter know the addresses of an admitted client, before it gets any.
func (c *client) enter(ctx context.Context, g *granted) error {
	if g.ruling.policy == nil {
		return nil
	}
	nets := slices.DeleteFunc(g.inside(), func(p netip.Prefix) bool { return slices.Contains(g.unlearned, p) })
	ctx, cancel := context.WithTimeout(ctx, enforceTime)
	defer cancel()
	if err := c.srv.enforcer.enter(ctx, c, g.name, g.ruling.policy.Name, nets); err != nil {
		return &tlsctl.Denial{Public: "server trouble, try again later", Temporary: true, Err: fmt.Errorf("packet filter: %w", err)}
	}
	return nil
}
