package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Firewall is a table in the kernel.
type Firewall struct {
	conn  *nftables.Conn // its socket owns the table
	owned bool
	table *nftables.Table
	// policies are those that have sets and chains; nets are the networks in each one's sets.
	policies []string
	nets     map[string][]netip.Prefix
	zones    int // that have sets
}

// Apply makes the table that the rules ask for. What a crashed server left for the same device is replaced. Where
// the kernel can (since 5.12), the table belongs to this process: nobody else changes it, "flush ruleset" spares
// it, and it is gone when the process is, however that comes about.
func Apply(r Rules) (*Firewall, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	name := tableName(r.Zones[0].Device)
	f, err := claim(name)
	if err != nil {
		return nil, fmt.Errorf("firewall: table %s: %w", name, err)
	}
	f.layOut()
	f.layOutFor(&r)
	if err := f.fill(&r); err != nil {
		f.Remove()
		return nil, fmt.Errorf("firewall: table %s: %w", f.table.Name, err)
	}
	return f, nil
}

// Replace puts other rules in the place of the present ones, all at once, and has the policies hold these addresses and
// no others: each Change says where one is to be. It needs CAP_NET_ADMIN still, and the first device must be the same.
// After an error everything is as it was.
func (f *Firewall) Replace(r Rules, members ...Change) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	if tableName(r.Zones[0].Device) != f.table.Name {
		return fmt.Errorf("firewall: table %s is not for device %s", f.table.Name, r.Zones[0].Device)
	}
	for _, m := range members {
		if !slices.ContainsFunc(r.Policies, func(p Policy) bool { return p.Name == m.To }) {
			return fmt.Errorf("firewall: table %s: replace rules: no policy %q", f.table.Name, m.To)
		}
	}
	before := *f
	f.conn.FlushTable(f.table)
	for _, set := range f.sets() {
		f.conn.FlushSet(&nftables.Set{Table: f.table, Name: set})
	}
	f.layOutFor(&r)
	err := f.change(members)
	if err == nil {
		err = f.fill(&r)
	} else {
		f.forget()
	}
	if err != nil {
		f.policies, f.nets, f.zones = before.policies, before.nets, before.zones
		return fmt.Errorf("firewall: table %s: replace rules: %w", f.table.Name, err)
	}
	return nil
}

// Update makes changes, all of them or, after an error, none.
func (f *Firewall) Update(changes []Change) error {
	before := maps.Clone(f.nets)
	err := f.change(changes)
	if err == nil {
		err = f.conn.Flush()
	} else {
		f.forget()
	}
	if err != nil {
		f.nets = before
		return fmt.Errorf("firewall: table %s: update: %w", f.table.Name, err)
	}
	return nil
}

// forget empties the queue. The library can only send it: a chain that does not exist has the kernel refuse all of it.
func (f *Firewall) forget() {
	f.conn.DelChain(&nftables.Chain{Table: f.table, Name: "none"})
	f.conn.Flush()
}

// change queues changes.
func (f *Firewall) change(changes []Change) error {
	gone, come := make(map[string][]nftables.SetElement), make(map[string][]nftables.SetElement)
	var touched []string
	for _, c := range changes {
		for _, name := range []string{c.From, c.To} {
			if name != "" && !slices.Contains(f.policies, name) {
				return fmt.Errorf("no policy %q", name)
			}
		}
		if !c.Net.IsSingleIP() {
			f.nets[c.From] = slices.DeleteFunc(slices.Clone(f.nets[c.From]), func(n netip.Prefix) bool { return n == c.Net })
			f.nets[c.To] = append(slices.Clone(f.nets[c.To]), c.Net)
			for _, name := range f.policies { // what another policy has around it changes as well
				if !slices.Contains(touched, name) && (name == c.From || slices.ContainsFunc(f.nets[name], c.Net.Overlaps)) {
					touched = append(touched, name)
				}
			}
			continue
		}
		e := nftables.SetElement{Key: c.Net.Addr().AsSlice()}
		if c.From != "" {
			set := setOf(c.From, c.Net.Addr().Is6())
			gone[set] = append(gone[set], e)
		}
		if c.To != "" {
			set := setOf(c.To, c.Net.Addr().Is6())
			come[set] = append(come[set], e)
		}
	}
	delete(f.nets, "")
	for set, elements := range gone {
		for part := range slices.Chunk(elements, chunk) {
			if err := f.conn.SetDeleteElements(&nftables.Set{Table: f.table, Name: set, KeyType: keyType(set)}, part); err != nil {
				return err
			}
		}
	}
	var errs []error
	for set, elements := range come {
		errs = append(errs, f.add(set, elements))
	}
	for _, name := range touched {
		var others []netip.Prefix
		for other, nets := range f.nets {
			if other != name {
				others = append(others, nets...)
			}
		}
		for _, is6 := range []bool{false, true} {
			set := netSetOf(name, is6)
			f.conn.FlushSet(&nftables.Set{Table: f.table, Name: set})
			errs = append(errs, f.add(set, intervals(spansBut(f.nets[name], others, is6))))
		}
	}
	return errors.Join(errs...)
}

// keyType is what a set of addresses holds, by the end of its name.
func keyType(set string) nftables.SetDatatype {
	if strings.HasSuffix(set, "6") {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// The names of a policy's sets and chains. None of what comes before the policy's name begins another, so that no two
// policies, whatever they are called, share one.
func setOf(policy string, is6 bool) string        { return "policy_" + policy + family46(is6) }
func netSetOf(policy string, is6 bool) string     { return "nets_of_" + policy + family46(is6) }
func forwardChain(policy string, is6 bool) string { return "forward_" + policy + family46(is6) }
func answerChain(policy string, is6 bool) string  { return "answer_" + policy + family46(is6) }
func gatewayChain(policy string, is6 bool) string { return "gateway_" + policy + family46(is6) }
func gatewayAnswerChain(policy string, is6 bool) string {
	return "from_gateway_" + policy + family46(is6)
}

// chainsOf are all chains of a policy.
func chainsOf(policy string) (list []string) {
	for _, chain := range []func(string, bool) string{forwardChain, answerChain, gatewayChain, gatewayAnswerChain} {
		list = append(list, chain(policy, false), chain(policy, true))
	}
	return list
}

func family46(is6 bool) string {
	if is6 {
		return "_6"
	}
	return "_4"
}

// zoneSet names the set of a zone's networks.
func zoneSet(zone int, is6 bool) string {
	name := setNets4
	if is6 {
		name = setNets6
	}
	if zone == 0 {
		return name
	}
	return fmt.Sprintf("zone%d_%s", zone, name)
}

// sets lists all sets there are.
func (f *Firewall) sets() []string {
	list := []string{setUDP, setTCP, setPools4, setPools6}
	for _, is6 := range []bool{false, true} {
		for i := range f.zones {
			list = append(list, zoneSet(i, is6))
		}
		for _, p := range f.policies {
			list = append(list, setOf(p, is6), netSetOf(p, is6))
		}
	}
	return list
}

// Remove deletes the table. A process that has given up CAP_NET_ADMIN can remove only a table that it owns.
func (f *Firewall) Remove() error {
	f.conn.DelTable(f.table)
	err := f.conn.Flush()
	if closeErr := f.conn.CloseLasting(); f.owned && errors.Is(err, os.ErrPermission) {
		err = closeErr // with its owner's socket the table goes too
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("firewall: remove table %s: %w", f.table.Name, err)
	}
	return nil
}

// RemoveStale deletes the table that a crashed server left for a device, if there is one.
func RemoveStale(device string) error {
	var conn nftables.Conn
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName(device)})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("firewall: remove stale table %s: %w", tableName(device), err)
	}
	return nil
}

// Obstacles names the forward chains of other tables that drop what nothing accepts, as "family table chain". On
// such a host clients get nowhere until the administrator lets the device through there.
func Obstacles() ([]string, error) {
	var conn nftables.Conn
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("firewall: list chains: %w", err)
	}
	families := map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	}
	var found []string
	for _, c := range chains {
		family, routed := families[c.Table.Family]
		if routed && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
			c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			found = append(found, family+" "+c.Table.Name+" "+c.Name)
		}
	}
	return found, nil
}

// claim makes an empty table, with a connection that owns it where the kernel can.
func claim(name string) (*Firewall, error) {
	var probe nftables.Conn
	if _, err := probe.ListTables(); errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("needs CAP_NET_ADMIN: %w", err)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	f := &Firewall{owned: true, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}}
	var err error
	if f.conn, err = dial(name, tableOwner); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		f.owned = false
		f.conn, err = dial(name, 0)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, ErrTaken
	}
	return f, err
}

// tableOwner is NFT_TABLE_F_OWNER: the table lives and dies with the socket that made it.
const tableOwner = 0x2

// dial opens the connection that the table is made and later changed with. The library makes tables without
// flags only, so the table is made on the connection's socket before the library gets it.
func dial(name string, flags uint32) (*nftables.Conn, error) {
	return nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(sock *netlink.Conn) error {
		// A batch is one message to the kernel; the usual buffer ends at some thousand networks.
		err := sock.SetWriteBuffer(8 << 20)
		if err == nil {
			// The kernel acknowledges each rule and element before we read the first of these answers, and one that does
			// not fit fails the whole batch.
			err = sock.SetReadBuffer(8 << 20)
		}
		if err == nil {
			err = makeTable(sock, name, flags)
		}
		if err != nil {
			sock.Close()
		}
		return err
	}))
}

// makeTable replaces the table of this name, if there is one, by an empty one, in one batch: "delete" would fail
// without a table, so it is added first.
func makeTable(sock *netlink.Conn, name string, flags uint32) error {
	const (
		add    = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE
		remove = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
	)
	message := func(kind uint16, mode netlink.HeaderFlags, flags uint32) (netlink.Message, error) {
		attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(name), 0)},
			{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
		})
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | mode},
			Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attributes...),
		}, err
	}
	frame := func(kind uint16) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
			Data:   []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	batch := []netlink.Message{frame(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, step := range []struct {
		kind  uint16
		mode  netlink.HeaderFlags
		flags uint32
	}{
		{add, netlink.Create, 0},
		{remove, 0, 0},
		{add, netlink.Create | netlink.Excl, flags},
	} {
		m, err := message(step.kind, step.mode, step.flags)
		if err != nil {
			return err
		}
		batch = append(batch, m)
	}
	acks := len(batch) - 1
	if _, err := sock.SendMessages(append(batch, frame(unix.NFNL_MSG_BATCH_END))); err != nil {
		return err
	}
	for range acks {
		if _, err := sock.Receive(); err != nil {
			return err
		}
	}
	return nil
}

// layOut queues the sets and chains, which stay the same whatever the rules are.
func (f *Firewall) layOut() {
	for _, s := range []nftables.Set{
		{Name: setPools4, KeyType: nftables.TypeIPAddr, Interval: true},
		{Name: setPools6, KeyType: nftables.TypeIP6Addr, Interval: true},
		{Name: setUDP, KeyType: nftables.TypeInetService},
		{Name: setTCP, KeyType: nftables.TypeInetService},
	} {
		f.addSet(s)
	}
	for _, c := range []nftables.Chain{
		{Name: chainUntrack, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw},
		{Name: chainUntrackOwn, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw},
		{Name: chainGuard, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle},
		{Name: chainBetween, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter},
		{Name: chainGateway, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter},
		{Name: chainAnswers, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter},
		{Name: chainFromClients}, {Name: chainToClients}, {Name: chainToGateway}, {Name: chainFromGateway},
		{Name: chainMasquerade, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource},
		{Name: chainSpare, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 10)},
	} {
		c.Table = f.table
		f.conn.AddChain(&c)
	}
}

func (f *Firewall) addSet(s nftables.Set) {
	s.Table = f.table
	f.conn.AddSet(&s, nil) // fails only for anonymous sets
}

// layOutFor queues the sets and chains of zones and policies: it adds what is missing and takes away what is no more.
// Rules that use them have been flushed.
func (f *Firewall) layOutFor(r *Rules) {
	for ; f.zones < len(r.Zones); f.zones++ {
		f.addSet(nftables.Set{Name: zoneSet(f.zones, false), KeyType: nftables.TypeIPAddr, Interval: true})
		f.addSet(nftables.Set{Name: zoneSet(f.zones, true), KeyType: nftables.TypeIP6Addr, Interval: true})
	}
	var names []string
	for _, p := range r.Policies {
		names = append(names, p.Name)
		if slices.Contains(f.policies, p.Name) {
			continue
		}
		for _, is6 := range []bool{false, true} {
			f.addSet(nftables.Set{Name: setOf(p.Name, is6), KeyType: keyType(family46(is6))})
			f.addSet(nftables.Set{Name: netSetOf(p.Name, is6), KeyType: keyType(family46(is6)), Interval: true})
		}
		for _, chain := range chainsOf(p.Name) {
			f.conn.AddChain(&nftables.Chain{Table: f.table, Name: chain})
		}
	}
	for _, name := range f.policies {
		if slices.Contains(names, name) {
			continue
		}
		for _, chain := range chainsOf(name) {
			f.conn.DelChain(&nftables.Chain{Table: f.table, Name: chain})
		}
		for _, is6 := range []bool{false, true} {
			f.conn.DelSet(&nftables.Set{Table: f.table, Name: setOf(name, is6)})
			f.conn.DelSet(&nftables.Set{Table: f.table, Name: netSetOf(name, is6)})
		}
	}
	f.policies, f.nets = names, make(map[string][]netip.Prefix)
}

// chunk is how many elements go into one message, whose attributes must stay below 64 KiB.
const chunk = 500

// add queues elements of a set.
func (f *Firewall) add(set string, elements []nftables.SetElement) error {
	for part := range slices.Chunk(elements, chunk) {
		if err := f.conn.SetAddElements(&nftables.Set{Table: f.table, Name: set}, part); err != nil {
			return err
		}
	}
	return nil
}

// fill queues the elements of all sets but the policies' and the rules, and sends all that is queued as one batch.
func (f *Firewall) fill(r *Rules) error {
	errs := []error{f.add(setUDP, services(r.Ports, "udp")), f.add(setTCP, services(r.Ports, "tcp"))}
	var pools []netip.Prefix
	for i := range r.Zones {
		z := &r.Zones[i]
		pools = append(pools, z.Pools...)
		for _, is6 := range []bool{false, true} {
			errs = append(errs, f.add(zoneSet(i, is6), intervals(spans(z.nets(), is6))))
		}
	}
	errs = append(errs, f.add(setPools4, intervals(spans(pools, false))), f.add(setPools6, intervals(spans(pools, true))))
	if err := errors.Join(errs...); err != nil {
		f.forget()
		return err
	}
	for _, rule := range r.rules() {
		f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: &nftables.Chain{Name: rule.chain}, Exprs: rule.exprs})
	}
	if err := f.conn.Flush(); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	} else if err != nil {
		return err
	}
	return nil
}

// intervals writes spans as the kernel wants them: where each begins, and the address behind its end, unless that
// is the end of all addresses.
func intervals(spans []span) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, s := range spans {
		elements = append(elements, nftables.SetElement{Key: s.first.AsSlice()})
		if behind := s.last.Next(); behind.IsValid() {
			elements = append(elements, nftables.SetElement{Key: behind.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}

func services(ports []Port, network string) []nftables.SetElement {
	var elements []nftables.SetElement
	seen := map[Port]bool{}
	for _, p := range ports {
		if p.Network == network && !seen[p] {
			seen[p] = true
			elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, p.Number)})
		}
	}
	return elements
}

const (
	setNets4  = "nets4" // where clients of the first zone are
	setNets6  = "nets6"
	setPools4 = "pools4" // clients' own addresses, of all zones
	setPools6 = "pools6"
	setUDP    = "udp_ports" // where the server listens
	setTCP    = "tcp_ports"

	chainUntrack     = "untrack"
	chainUntrackOwn  = "untrack_own"
	chainGuard       = "guard"
	chainBetween     = "between_clients"
	chainFromClients = "from_clients"
	chainToClients   = "to_clients"
	chainGateway     = "gateway"
	chainToGateway   = "to_gateway"
	chainAnswers     = "answers"
	chainFromGateway = "from_gateway"
	chainMasquerade  = "masquerade"
	chainSpare       = "spare"
)
