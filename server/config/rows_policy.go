package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A block is a pool or policy in the making: from its first line to `end`, lines are those of its own table.
type block struct {
	opened *directive
	rows   []row
	last   map[string]*directive
	pool   *Pool
	policy *Policy
	seen   map[string]*directive // lines of the block that rules need
}

// blockRows are the lines of each kind of block.
var blockRows = map[string][]row{"pool": poolRows, "policy": policyRows}

// The lines of pool blocks.
var poolRows = []row{
	use("network", "NET [NET]", "The addresses of the pool, an IPv4 network (/16 to /29), an IPv6 one (/64 to /124), or both. The gateway takes the first address. Must be there.", setPoolNetwork),
	use("exclude", "RANGE...", "Addresses that are never leased, as FIRST-LAST, a network or one address: for client files' fixed addresses.", addPoolExclude).each(),
	use("dev", "NAME", "The pool's TUN device; default `tun-` and the pool's name.", setPoolDev),
	use("route", "NET...", "Networks that clients of the pool reach through the tunnel: it is pushed to them.", addBlockRoute).each(),
	use("dns", "ADDRESS...", "DNS servers for clients of the pool.", addBlockDNS).each(),
	use("dns-forward", "ADDRESS[:PORT] [ZONE...]", "A name server that the gateway asks for clients of the pool, which ask it at the gateway's address; with zones, only about names in them.", addPoolDNSForward).each(),
	use("push", "\"TEXT\"", "Send this option to clients of the pool, besides those that everybody gets.", addBlockPush).each(),
	use("behind", "NET...", "Networks behind clients of the pool (`iroute` in their files): the kernel sends them into the device.", addPoolBehind).each(),
	use("nat", "yes|no", "Whether clients of the pool leave the gateway under its own address; default what the line outside of blocks says, before or behind.", setPoolNAT),
	use("limit", "down|up RATE [up RATE]", "What all clients of the pool may move together, in kbit, mbit or gbit a second; it is shared evenly among those who want it.", setBlockLimit),
}

// The lines of policy blocks.
var policyRows = []row{
	use("match", "any|KIND [VALUE] [KIND VALUE...]", "Whom the policy is for: `ldap-group DN`, `cert-ou OU`, `user NAME`, or `any`. Pairs on one line must hold together; of several lines any is enough.", addMatch).each(),
	use("pool", "NAME", "The pool they get their addresses from; needed where there are several.", setPolicyPool),
	use("allow", "[tcp|udp|icmp] NET|any|gateway|policy [NAME] [PORTS]", "What they may reach. `any` is everything but other clients and the gateway; `policy NAME` is the clients of that policy; PORTS is 443 or 80,443,8000-8080. Lines are tried in order, the first that fits decides; what none allows is denied.", addRule(true)).each(),
	use("deny", "[tcp|udp|icmp] NET|any|gateway|policy [NAME] [PORTS]", "What they may not reach, before an `allow` below that says more.", addRule(false)).each(),
	use("route", "NET...", "Networks that they reach through the tunnel: it is pushed to them.", addBlockRoute).each(),
	use("dns", "ADDRESS...", "DNS servers for them.", addBlockDNS).each(),
	use("push", "\"TEXT\"", "Send them this option, besides those of everybody and of the pool.", addBlockPush).each(),
	use("limit", "down|up RATE [up RATE]", "What each client may move, in kbit, mbit or gbit a second: `down` to it, `up` from it.", setBlockLimit),
	use("sessions", "N [replace|refuse]", "How many sessions a user may have at once. One too many takes the place of the oldest (`replace`, the default) or is refused, unless the oldest has fallen silent.", setSessions),
	use("hours", "DAYS HH:MM-HH:MM [ZONE]", "When they may be connected, as `mon-fri 07:00-20:00 Europe/Berlin`; at its end sessions end. Several lines add up; without one, always.", addHours).each(),
	use("session-timeout", "TIME", "How long a session may last, as 90m or 12h.", setPolicyTimeout),
	use("factor", "totp", "Let in only who has a one-time code to show besides the password (`auth-totp-file`), also where that is optional for others.", setFactor),
}

// blockSectionRows are the lines outside of blocks that pools and policies bring with them.
var blockSectionRows = []row{
	use("pool", "NAME", "Begins a block, up to `end`: a network of clients with a TUN device of its own. See [policy.md](policy.md).", openBlock).each(),
	use("policy", "NAME", "Begins a block, up to `end`: who gets which pool, rules and limits. The first policy that matches counts; whom none matches is refused.", openBlock).each(),
	use("end", "", "Ends a block.", func(*draft, *directive) error { return errors.New("there is no block to end") }).each(),
	use("gateway-access", "all|none|tcp|udp [PORTS]", "What clients may reach on this machine itself, where `nat yes` guards it: everything, nothing, or these ports. Default nothing, but its answers to pings inside and the DNS servers that are pushed. Several lines add up. Policies say `allow gateway` in place of it.", addGatewayAccess).each(),
}

func openBlock(d *draft, l *directive) error {
	b := &block{opened: l, rows: blockRows[l.name], last: make(map[string]*directive), seen: make(map[string]*directive)}
	d.open = b
	if l.name == "pool" {
		b.pool = &Pool{Name: l.args[0]}
	} else {
		b.policy = &Policy{Name: l.args[0]}
	}
	if err := blockName(l.args[0]); err != nil {
		return err
	}
	for _, other := range d.blocks {
		if other.opened.name == l.name && other.opened.args[0] == l.args[0] {
			return fmt.Errorf("there is one of this name at %s: give this one another", other.opened.place())
		}
	}
	d.blocks = append(d.blocks, b)
	return nil
}

// inBlock takes one line between the first of a block and its end.
func (d *draft) inBlock(l *directive) {
	b := d.open
	d.enter(l)
	if l.name == "end" && l.fault == nil {
		d.open = nil
		if len(l.args) > 0 {
			d.refuse(l, "nothing belongs behind it")
		}
		return
	}
	i := slices.IndexFunc(b.rows, func(r row) bool { return r.name == l.name })
	switch {
	case l.fault != nil:
		d.refuse(l, "%v", l.fault)
		return
	case (l.name == "pool" || l.name == "policy" && len(l.args) == 1) && i < 0:
		d.refuse(b.opened, "the block has no end: write `end` before %s", l.place())
		d.open = nil
		d.entries = d.entries[:len(d.entries)-1]
		d.apply([]*directive{l})
		return
	case i < 0 || l.isBlock:
		d.refuse(l, "%s blocks have no such line%s; what is for everybody goes before the block or behind its `end`", b.opened.name, blockSuggestion(b.rows, l.name))
		return
	}
	l.row = &b.rows[i]
	l.entry.Text = "  " + l.text()
	if before := b.last[l.name]; before != nil && !l.row.adds && before.entry.Verdict != Refused {
		before.entry.Verdict, before.entry.Why = Ignored, "said again at "+l.place()+", and the last one counts"
	}
	b.last[l.name] = l
	if low, high := l.row.counts(); len(l.args) < low || len(l.args) > high {
		d.refuse(l, "Unrecognized option or missing or extra parameter(s): write %s%s", l.row.usage(), quotesMissing(l))
		return
	}
	if err := l.row.apply(d, l); err != nil {
		d.refuse(l, "%v", err)
	}
}

func blockSuggestion(rows []row, name string) string {
	best, found := 3, ""
	for _, r := range rows {
		if n := slips(name, r.name, best); n < best && n*3 <= len(r.name) {
			best, found = n, r.name
		}
	}
	if found == "" {
		return ""
	}
	return " (do you mean " + found + "?)"
}

func setPoolNetwork(d *draft, l *directive) error {
	var net4, net6 netip.Prefix
	for _, word := range l.args {
		net, err := parseNet(word)
		switch {
		case err != nil:
			return err
		case net.Addr().Is4() && net4.IsValid(), net.Addr().Is6() && net6.IsValid():
			return errors.New("two networks of one address family: a pool has one of each family")
		case net.Addr().Is4():
			if net.Bits() < 16 || net.Bits() > 29 {
				return fmt.Errorf("%s: the network must be between /16 and /29", net)
			}
			net4 = net
		default:
			if net.Bits() < 64 || net.Bits() > 124 {
				return fmt.Errorf("%s: the network must be between /64 and /124", net)
			}
			net6 = net
		}
	}
	p, made := d.open.pool, BlockPool("", net4, net6)
	p.Addr4, p.Addr6, p.Range4, p.Range6, p.Bits6 = made.Addr4, made.Addr6, made.Range4, made.Range6, made.Bits6
	return nil
}

func addPoolExclude(d *draft, l *directive) error {
	for _, word := range l.args {
		r, err := parseExclude(word)
		if err != nil {
			return err
		}
		d.open.pool.Exclude = append(d.open.pool.Exclude, r)
	}
	return nil
}

func setPoolDev(d *draft, l *directive) error {
	name := l.args[0]
	if err := deviceName(name); err != nil {
		return err
	}
	if name == "tun" {
		return errors.New("a pool's device needs a name that stays the same, such as tun1 or tun-staff")
	}
	d.open.pool.Dev = name
	return nil
}

// deviceName says what the kernel would say of a device's name.
func deviceName(name string) error {
	if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t:%") || name == "." || name == ".." {
		return fmt.Errorf("%q cannot be the name of a network device: at most 15 bytes, without / and blanks", name)
	}
	return nil
}

func (b *block) push(text string) {
	if b.pool != nil {
		b.pool.Push = append(b.pool.Push, text)
	} else {
		b.policy.Push = append(b.policy.Push, text)
	}
}

func addBlockRoute(d *draft, l *directive) error {
	for _, word := range l.args {
		net, err := parseNet(word)
		if err != nil {
			return err
		}
		if net.Addr().Is4() {
			d.open.push(fmt.Sprintf("route %s %s", net.Addr(), maskOf(net.Bits())))
		} else {
			d.open.push(fmt.Sprintf("route-ipv6 %s", net))
		}
	}
	return nil
}

func addBlockDNS(d *draft, l *directive) error {
	for _, word := range l.args {
		a, err := netip.ParseAddr(word)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not the address of a DNS server", word)
		}
		d.open.push("dhcp-option DNS " + a.String())
	}
	return nil
}

func addBlockPush(d *draft, l *directive) error {
	note, err := checkPush(l.args[0])
	if err != nil {
		return err
	}
	if note != "" {
		d.notice(l, "%s", note)
	}
	d.open.push(l.args[0])
	return nil
}

func addPoolBehind(d *draft, l *directive) error {
	for _, word := range l.args {
		net, err := parseNet(word)
		if err != nil {
			return err
		}
		d.open.pool.Routes = append(d.open.pool.Routes, Route{Net: net})
	}
	return nil
}

func setPoolNAT(d *draft, l *directive) (err error) {
	d.open.seen["nat"] = l
	d.open.pool.NAT, err = yesNo(l.args[0])
	return err
}

func setBlockLimit(d *draft, l *directive) error {
	if p := d.open.pool; p != nil {
		p.Down, p.Up = 0, 0
		return parseLimit(l.args, &p.Down, &p.Up)
	}
	p := d.open.policy
	p.Down, p.Up = 0, 0
	return parseLimit(l.args, &p.Down, &p.Up)
}

func addMatch(d *draft, l *directive) error {
	m, err := parseMatch(l.args)
	if err != nil {
		return err
	}
	if m.Groups != nil {
		d.open.seen["ldap-group"] = l
	}
	d.open.policy.Match = append(d.open.policy.Match, m)
	return nil
}

func setPolicyPool(d *draft, l *directive) error {
	d.open.policy.Pool, d.open.seen["pool"] = l.args[0], l
	return nil
}

func addRule(allow bool) func(*draft, *directive) error {
	return func(d *draft, l *directive) error {
		p := d.open.policy
		if len(p.Rules) >= maxRules {
			return fmt.Errorf("more than %d rules in one policy", maxRules)
		}
		r, err := parseRule(allow, l.args)
		if err != nil {
			return err
		}
		if r.Policy != "" {
			d.ruleTargets = append(d.ruleTargets, l)
		}
		p.Rules = append(p.Rules, r)
		return nil
	}
}

func setSessions(d *draft, l *directive) error {
	n, err := number(l.args[0], 1, 1000)
	if err != nil {
		return err
	}
	p := d.open.policy
	p.Sessions, p.Refuse = n, l.arg(1) == "refuse"
	return choice("replace", "refuse")(d, &directive{args: l.args[1:]})
}

func addHours(d *draft, l *directive) error {
	h, err := parseHours(l.args)
	if err != nil {
		return err
	}
	d.open.policy.Hours = append(d.open.policy.Hours, h)
	return nil
}

func setPolicyTimeout(d *draft, l *directive) (err error) {
	d.open.policy.Timeout, err = parseSpan(l.args[0])
	return err
}

func setFactor(d *draft, l *directive) error {
	if err := choice("totp")(d, l); err != nil {
		return err
	}
	d.open.policy.Factor = l.args[0]
	return nil
}

func addGatewayAccess(d *draft, l *directive) error {
	switch {
	case len(l.args) == 1 && l.args[0] == "all":
		d.cfg.GatewayAccess = append(d.cfg.GatewayAccess, Rule{Allow: true, Gateway: true})
		return nil
	case len(l.args) == 1 && l.args[0] == "none":
		return nil
	case len(l.args) == 2 && (l.args[0] == "tcp" || l.args[0] == "udp"):
		r, err := parseRule(true, []string{l.args[0], "gateway", l.args[1]})
		if err != nil {
			return err
		}
		d.cfg.GatewayAccess = append(d.cfg.GatewayAccess, r)
		return nil
	}
	return errors.New("write all, none, or tcp or udp with ports, as in `gateway-access tcp 22,443`")
}

// finishBlocks closes what was left open and makes pools and policies of the blocks. Macros have been expanded.
func (d *draft) finishBlocks() {
	if b := d.open; b != nil {
		d.refuse(b.opened, "the block has no end: write `end` behind its last line")
		d.open = nil
	}
	for _, b := range d.blocks {
		if b.pool != nil {
			d.finishPool(b)
		}
	}
	for _, b := range d.blocks {
		if b.policy != nil {
			d.finishPolicy(b)
		}
	}
	d.checkBlocks()
	d.checkDNSForward()
}

func (d *draft) finishPool(b *block) {
	p := b.pool
	if p.Name == DefaultPool && (d.cfg.Addr4.IsValid() || d.cfg.Addr6.IsValid()) {
		d.refuse(b.opened, "`server` makes the pool of this name: give this one another")
		return
	}
	if b.last["network"] == nil {
		d.refuse(b.opened, "it has no network: add `network 10.9.0.0/24`, or another")
		return
	}
	if p.Dev == "" {
		if p.Dev = "tun-" + p.Name; len(p.Dev) > 15 {
			d.refuse(b.opened, "tun-%s would be too long for a device: add a `dev` line to the block", p.Name)
		}
	}
	if b.seen["nat"] == nil {
		p.NAT = d.cfg.NAT
	}
	p.own = true
	push := slices.Clone(d.shared)
	if p.Addr6.IsValid() {
		push = append(push, "tun-ipv6")
	}
	if p.Addr4.IsValid() {
		push = append(push, fmt.Sprintf("route-gateway %s", p.Addr4.Addr()))
	}
	push = append(append(push, "topology subnet"), p.Push...)
	p.Push = append(push, d.behind...)
	for _, r := range p.Exclude {
		if !(p.Addr4.IsValid() && p.Addr4.Contains(r.First) && p.Addr4.Contains(r.Last)) && !(p.Addr6.IsValid() && p.Addr6.Contains(r.First) && p.Addr6.Contains(r.Last)) {
			d.refuse(b.last["exclude"], "%s-%s is not in the pool's network", r.First, r.Last)
		}
	}
	d.cfg.Pools = append(d.cfg.Pools, *p)
}

func (d *draft) finishPolicy(b *block) {
	p := b.policy
	if len(p.Match) == 0 && b.last["match"] == nil {
		d.refuse(b.opened, "nobody matches: add `match any`, or another match line")
	}
	if l := b.seen["ldap-group"]; l != nil && d.cfg.LDAP == nil && !d.anyRefused("ldap-url") {
		d.refuse(l, "there is no directory whose groups could be known: add ldap-url")
	}
	if p.Factor != "" && !d.has("auth-totp-file") {
		d.refuse(b.last["factor"], "there are no one-time codes: add auth-totp-file")
	}
	all := d.cfg.AllPools()
	named := func(pool Pool) bool { return pool.Name == p.Pool }
	switch l := b.seen["pool"]; {
	case l == nil && slices.ContainsFunc(all, func(pool Pool) bool { return pool.Name == DefaultPool }):
		p.Pool = DefaultPool
	case l == nil && len(all) == 1:
		p.Pool = all[0].Name
	case l == nil:
		d.refuse(b.opened, "there are several pools: add a `pool` line to say which one is meant")
	case !slices.ContainsFunc(all, named) && !slices.ContainsFunc(d.blocks, func(o *block) bool { return o.pool != nil && o.pool.Name == p.Pool }):
		d.refuse(l, "there is no pool %q", p.Pool)
	}
	d.cfg.Policies = append(d.cfg.Policies, *p)
}

// checkBlocks holds pools and policies against each other and against what they replace.
func (d *draft) checkBlocks() {
	c := d.cfg
	if c.Tap && len(d.blocks) > 0 {
		d.refuse(d.blocks[0].opened, "rules are about IP addresses, and a tap device carries frames that may have any: write `dev tun`")
		return
	}
	if len(c.Pools) > maxPools || len(c.Policies) > maxPolicies {
		d.refuse(d.blocks[0].opened, "more than %d pools or %d policies", maxPools, maxPolicies)
	}
	if len(c.Pools) > 0 && len(c.Policies) == 0 && !d.anyRefused("pool", "policy") {
		d.refuse(d.poolLine(c.Pools[0].Name), "no policy leads anybody into it: add a `policy` block")
	}
	all := c.AllPools()
	for i, a := range all {
		for _, b := range all[:i] {
			if a.Dev == b.Dev {
				d.refuse(d.poolLine(a.Name), "pool %s has the device %s already: add a `dev` line", b.Name, b.Dev)
			}
			for _, x := range a.Nets() {
				for _, y := range b.Nets() {
					if x.Overlaps(y) {
						d.refuse(d.poolLine(a.Name), "its network %s overlaps %s of pool %s", x, y, b.Name)
					}
				}
			}
		}
		for _, b := range all[:i] {
			for _, x := range a.Routes {
				if slices.ContainsFunc(b.Routes, func(y Route) bool { return x.Net.Masked() == y.Net.Masked() }) {
					d.refuse(d.poolLine(a.Name), "%s is behind clients of pool %s already: the kernel can send it into one device only", x.Net.Masked(), b.Name)
				}
			}
		}
		if a.Name != DefaultPool && len(c.Policies) > 0 && !slices.ContainsFunc(c.Policies, func(p Policy) bool { return p.Pool == a.Name }) {
			d.notice(d.poolLine(a.Name), "no policy leads into it")
		}
	}
	if len(all) > 1 {
		for _, name := range []string{"up", "down", "route-up", "route-pre-down"} {
			if l := d.last[name]; l != nil && l.entry.Verdict == Used {
				d.notice(l, "it runs once, for the device %s of pool %s, and knows no other", all[0].Dev, all[0].Name)
			}
		}
	}
	if len(c.Policies) == 0 {
		return
	}
	for _, l := range d.ruleTargets {
		name := l.args[slices.Index(l.args, "policy")+1]
		if c.Policy(name) == nil {
			d.refuse(l, "there is no policy %q", name)
		}
	}
	if l := d.last["client-to-client"]; l != nil {
		d.refuse(l, "policies say who reaches whom: remove the line and write `allow policy NAME`")
	}
	if l := d.last["gateway-access"]; l != nil && !d.anyRefused("gateway-access") {
		d.refuse(l, "policies say who reaches the gateway: remove the line and write `allow tcp gateway PORTS`")
	}
	if len(c.Routes) > 0 && !c.Addr4.IsValid() && !c.Addr6.IsValid() {
		d.refuse(d.last["route"], "there is no pool outside of blocks to route it to: write `behind NET` in a pool")
	}
	d.explain(all)
}

// poolLine is where a pool is made.
func (d *draft) poolLine(name string) *directive {
	for _, b := range d.blocks {
		if b.pool != nil && b.pool.Name == name {
			return b.opened
		}
	}
	for _, macro := range []string{"server", "server-ipv6", "ifconfig", "ifconfig-ipv6"} {
		if l := d.last[macro]; l != nil {
			return l
		}
	}
	return d.blocks[0].opened
}

// explain has the report say in words what pools and policies come to.
func (d *draft) explain(pools []Pool) {
	anyBefore := ""
	for _, b := range d.blocks {
		why := ""
		switch {
		case b.pool != nil:
			why = fmt.Sprintf("device %s, gateway %s", b.pool.Dev, join(b.pool.Nets(), " and "))
		case anyBefore != "":
			d.notice(b.opened, "nobody gets here: policy %s above matches everybody", anyBefore)
		default:
			why = b.policy.explain()
			if slices.ContainsFunc(b.policy.Match, func(m Match) bool { return m.Any }) {
				anyBefore = b.policy.Name
			}
		}
		if b.opened.entry.Verdict == Used && why != "" {
			b.opened.entry.Why = why
		}
	}
	if last := d.blocks[len(d.blocks)-1]; anyBefore == "" && last.policy != nil && last.opened.entry.Verdict == Used {
		last.opened.entry.Why += "; whom no policy matches is refused"
	}
}

func join[T fmt.Stringer](list []T, between string) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, between)
}

// explain tells in a sentence whom a policy is for and what it gives.
func (p *Policy) explain() string {
	var whom []string
	for _, m := range p.Match {
		var all []string
		if m.Any {
			all = append(all, "everybody")
		}
		for _, v := range m.Groups {
			all = append(all, "members of "+v)
		}
		for _, v := range m.Units {
			all = append(all, "certificates of the unit "+v)
		}
		for _, v := range m.Users {
			all = append(all, "the user "+v)
		}
		whom = append(whom, strings.Join(all, " with "))
	}
	text := strings.Join(whom, ", or ") + ": addresses of pool " + p.Pool
	if len(p.Rules) == 0 {
		return text + "; nothing can be reached"
	}
	allowed := 0
	for _, r := range p.Rules {
		if r.Allow {
			allowed++
		}
	}
	if allowed == 0 {
		return text + "; nothing can be reached"
	}
	return fmt.Sprintf("%s; %d rules, and nothing else can be reached", text, len(p.Rules))
}

// hasPools reports whether there are pool blocks, good ones or not: they make a server as `server` does.
func (d *draft) hasPools() bool {
	return slices.ContainsFunc(d.blocks, func(b *block) bool { return b.pool != nil })
}
