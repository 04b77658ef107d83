package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postern/server/config"
)

// A Filter keeps packets of clients within their policies, between the kernel's networks and the devices. One goroutine
// calls it, which is on no packet's way.
type Filter interface {
	// Update makes changes, all or none of them.
	Update(changes []FilterChange) error
	// Replace puts the rules of cfg in the place of those there are, with these holders and no others, all or nothing.
	Replace(cfg *config.Config, holders []FilterChange) error
}

// A FilterChange moves a client's address, or a network behind it, from one policy to another.
type FilterChange struct {
	Net      netip.Prefix
	From, To string // policies; "": none
}

// An enforcer tells the filter which addresses are under which policy. A connect or disconnect is one element added or
// removed; what has come up while the kernel was busy goes to it in one batch.
//
//	enter, join --+                            +--> Filter.Update: what differs now from what the filter has
//	move  --------+--> orders --> run (one) ---+
//	leave --------+   (in order)               +--> Filter.Replace: at a reload, and after an error
type enforcer struct {
	srv    *Server
	filter Filter // nil: there are no policies
	kick   chan struct{}

	mu     sync.Mutex
	orders []filterOrder // guarded by mu

	// The rest is run's.
	cfg     *config.Config
	holders map[netip.Prefix][]holder
	broken  bool // the filter may hold anything
}

// holder is a client that has an address; the newest is last, and counts: a client that comes again has the address of
// its older session. While clients of different names have one, as their files may say, it is under no policy: the older
// has it until the newer joins, and nobody may use it by another's rights.
type holder struct {
	c      *client
	name   string
	joined bool   // the lanes know it
	policy string // "" when a reload has taken it away, and c is not judged again yet
}

type filterOrder struct {
	c       *client
	policy  string         // "": c leaves
	name    string         // of a client that enters
	nets    []netip.Prefix // of a client that enters
	joined  bool           // what c has entered with is its own from now on
	replace *config.Config // not nil: a reload, with the clients' policies then
	assign  map[*client]string
	done    chan error // of one that is waited for; has room for the answer
}

func newEnforcer(s *Server, filter Filter, cfg *config.Config) *enforcer {
	return &enforcer{srv: s, filter: filter, cfg: cfg, kick: make(chan struct{}, 1), holders: make(map[netip.Prefix][]holder)}
}

func (e *enforcer) order(o filterOrder) {
	e.mu.Lock()
	e.orders = append(e.orders, o)
	e.mu.Unlock()
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

func (e *enforcer) wait(ctx context.Context, o filterOrder) error {
	o.done = make(chan error, 1)
	e.order(o)
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err() // the order stands: whoever gives up must leave
	}
}

var errNoFilter = errors.New("there is no packet filter to hold the policies' rules")

// enter returns once the filter has c's addresses.
func (e *enforcer) enter(ctx context.Context, c *client, name, policy string, nets []netip.Prefix) error {
	if e.filter == nil {
		return errNoFilter
	}
	return e.wait(ctx, filterOrder{c: c, name: name, policy: policy, nets: nets})
}

// join takes c's addresses from whoever else has any of them: the lanes know them as c's now.
func (e *enforcer) join(c *client) {
	if e.filter != nil {
		e.order(filterOrder{c: c, joined: true})
	}
}

// move puts all addresses of c under another policy.
func (e *enforcer) move(c *client, policy string) {
	if e.filter != nil && policy != "" {
		e.order(filterOrder{c: c, policy: policy})
	}
}

// leave takes c's addresses out. Whoever gets one of them next enters behind it.
func (e *enforcer) leave(c *client) {
	if e.filter != nil {
		e.order(filterOrder{c: c})
	}
}

// replace returns once the filter has the rules of cfg, and each client the policy that assign says.
func (e *enforcer) replace(ctx context.Context, cfg *config.Config, assign map[*client]string) error {
	if e.filter == nil {
		if len(cfg.Policies) > 0 {
			return errNoFilter
		}
		return nil
	}
	return e.wait(ctx, filterOrder{replace: cfg, assign: assign})
}

// run does what is ordered until ctx is done. An error is tried again every second.
func (e *enforcer) run(ctx context.Context) {
	if e.filter == nil {
		return
	}
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.kick:
		case <-retry.C:
			if !e.broken {
				continue
			}
		}
		e.mu.Lock()
		orders := e.orders
		e.orders = nil
		e.mu.Unlock()
		for len(orders) > 0 || e.broken {
			n := slices.IndexFunc(orders, func(o filterOrder) bool { return o.replace != nil })
			if n < 0 {
				n = len(orders)
			}
			if n > 0 || e.broken {
				e.batch(orders[:n])
				orders = orders[n:]
			}
			if len(orders) > 0 {
				e.reload(orders[0])
				orders = orders[1:]
			}
			if e.broken && len(orders) == 0 {
				break // until the next second
			}
		}
	}
}

// batch makes orders true, with one change of the filter.
func (e *enforcer) batch(orders []filterOrder) {
	before := make(map[netip.Prefix]string)
	touch := func(net netip.Prefix) {
		if _, known := before[net]; !known {
			before[net] = e.policyOf(net)
		}
	}
	var unknown []filterOrder
	for _, o := range orders {
		switch {
		case o.policy != "" && e.cfg.Policy(o.policy) == nil:
			unknown = append(unknown, o) // of a configuration that is no more
			continue
		case o.joined:
			e.each(o.c, touch, func(list []holder) []holder {
				at := slices.IndexFunc(list, func(h holder) bool { return h.c == o.c })
				if at < 0 {
					return list
				}
				list[at].joined = true
				name := list[at].name
				return slices.DeleteFunc(list, func(h holder) bool { return h.joined && h.name != name })
			})
		case o.policy == "":
			e.each(o.c, touch, func(list []holder) []holder {
				return slices.DeleteFunc(list, func(h holder) bool { return h.c == o.c })
			})
		case o.nets == nil:
			e.each(o.c, touch, func(list []holder) []holder {
				for i := range list {
					if list[i].c == o.c {
						list[i].policy = o.policy
					}
				}
				return list
			})
		default:
			for _, net := range o.nets {
				touch(net)
				e.holders[net] = append(e.holders[net], holder{c: o.c, name: o.name, policy: o.policy})
			}
			o.c.filtered = o.nets
		}
	}
	var changes []FilterChange
	for net, was := range before {
		if is := e.policyOf(net); is != was {
			changes = append(changes, FilterChange{net, was, is})
		}
	}
	var err error
	switch {
	case e.broken:
		err = e.filter.Replace(e.cfg, e.all())
	case len(changes) > 0:
		if err = e.filter.Update(changes); err != nil {
			e.srv.alarmOnce("packet filter", err)
			err = e.filter.Replace(e.cfg, e.all()) // whatever made it differ from what it should hold
		}
	}
	if e.broken = err != nil; e.broken {
		e.srv.alarmOnce("packet filter", err)
	}
	for _, o := range orders {
		if o.done == nil {
			continue
		}
		if slices.ContainsFunc(unknown, func(u filterOrder) bool { return u.done == o.done }) {
			o.done <- errReloaded
			continue
		}
		o.done <- err
	}
}

var errReloaded = errors.New("the policies have been changed meanwhile")

// reload has the filter hold another configuration. After an error it holds the one before.
func (e *enforcer) reload(o filterOrder) {
	before := make(map[netip.Prefix][]holder, len(e.holders))
	for net, list := range e.holders {
		before[net] = list
		var kept []holder
		for _, h := range list {
			if policy := o.assign[h.c]; policy != "" {
				h.policy = policy
			} else if o.replace.Policy(h.policy) == nil {
				h.policy = "" // under none until it is judged again, or gone
			} // else it was admitted while the reload was prepared, and is judged again behind it
			kept = append(kept, h)
		}
		e.holders[net] = kept
	}
	err := e.filter.Replace(o.replace, e.all())
	if err == nil {
		e.cfg, e.broken = o.replace, false
	} else {
		e.holders = before
	}
	o.done <- err
}

// each changes the holders of c's addresses.
func (e *enforcer) each(c *client, touch func(netip.Prefix), change func([]holder) []holder) {
	for _, net := range c.filtered {
		touch(net)
		if e.holders[net] = change(e.holders[net]); len(e.holders[net]) == 0 {
			delete(e.holders, net)
		}
	}
}

// policyOf is the policy that an address is under, "" for none.
func (e *enforcer) policyOf(net netip.Prefix) string {
	list := e.holders[net]
	if len(list) == 0 || slices.ContainsFunc(list, func(h holder) bool { return h.name != list[0].name }) {
		return ""
	}
	return list[len(list)-1].policy
}

// all is every address that is under a policy, with it.
func (e *enforcer) all() []FilterChange {
	list := make([]FilterChange, 0, len(e.holders))
	for net := range e.holders {
		if policy := e.policyOf(net); policy != "" {
			list = append(list, FilterChange{Net: net, To: policy})
		}
	}
	return list
}
