package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Firewall is a table in the kernel.
type Firewall struct {
	conn  *nftables.Conn // its socket owns the table
	owned bool
	table *nftables.Table
}

// Apply makes the table that the rules ask for. What a crashed server left for the same device is replaced. Where
// the kernel can (since 5.12), the table belongs to this process: nobody else changes it, "flush ruleset" spares
// it, and it is gone when the process is, however that comes about.
func Apply(r Rules) (*Firewall, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	f, err := claim(tableName(r.Device))
	if err != nil {
		return nil, fmt.Errorf("firewall: table %s: %w", tableName(r.Device), err)
	}
	f.layOut()
	if err := f.fill(&r); err != nil {
		f.Remove()
		return nil, fmt.Errorf("firewall: table %s: %w", f.table.Name, err)
	}
	return f, nil
}

// Replace puts other rules in the place of the present ones, all at once. It needs CAP_NET_ADMIN still, and the
// device must be the same.
func (f *Firewall) Replace(r Rules) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	if tableName(r.Device) != f.table.Name {
		return fmt.Errorf("firewall: table %s is not for device %s", f.table.Name, r.Device)
	}
	f.conn.FlushTable(f.table)
	for _, set := range []string{setNets4, setNets6, setUDP, setTCP} {
		f.conn.FlushSet(&nftables.Set{Table: f.table, Name: set})
	}
	if err := f.fill(&r); err != nil {
		return fmt.Errorf("firewall: table %s: replace rules: %w", f.table.Name, err)
	}
	return nil
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
		{Name: setNets4, KeyType: nftables.TypeIPAddr, Interval: true},
		{Name: setNets6, KeyType: nftables.TypeIP6Addr, Interval: true},
		{Name: setUDP, KeyType: nftables.TypeInetService},
		{Name: setTCP, KeyType: nftables.TypeInetService},
	} {
		s.Table = f.table
		f.conn.AddSet(&s, nil) // fails only for anonymous sets
	}
	for _, c := range []nftables.Chain{
		{Name: chainUntrack, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw},
		{Name: chainUntrackOwn, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw},
		{Name: chainGuard, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle},
		{Name: chainBetween, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter},
		{Name: chainMasquerade, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource},
		{Name: chainSpare, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 10)},
	} {
		c.Table = f.table
		f.conn.AddChain(&c)
	}
}

// fill queues the elements and rules, and sends all that is queued as one batch.
func (f *Firewall) fill(r *Rules) error {
	add := func(set string, elements []nftables.SetElement) error {
		const chunk = 500 // elements in one message, whose attributes must stay below 64 KiB
		for len(elements) > 0 {
			n := min(len(elements), chunk)
			if err := f.conn.SetAddElements(&nftables.Set{Table: f.table, Name: set}, elements[:n]); err != nil {
				return err
			}
			elements = elements[n:]
		}
		return nil
	}
	if err := errors.Join(
		add(setNets4, intervals(spans(r.Nets, false))),
		add(setNets6, intervals(spans(r.Nets, true))),
		add(setUDP, services(r.Ports, "udp")),
		add(setTCP, services(r.Ports, "tcp")),
	); err != nil {
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
	setNets4 = "nets4" // where clients are
	setNets6 = "nets6"
	setUDP   = "udp_ports" // where the server listens
	setTCP   = "tcp_ports"

	chainUntrack    = "untrack"
	chainUntrackOwn = "untrack_own"
	chainGuard      = "guard"
	chainBetween    = "between_clients"
	chainMasquerade = "masquerade"
	chainSpare      = "spare"
)

// metadata is where clouds keep what only the host should know.
var metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}

// A rule is one line of a chain.
type rule struct {
	chain string
	exprs []expr.Any
}

// rules writes the rules. Each is preceded by what nft would show, for a device tun0.
func (r *Rules) rules() []rule {
	var list []rule
	add := func(chain string, parts ...[]expr.Any) {
		var exprs []expr.Any
		for _, p := range parts {
			exprs = append(exprs, p...)
		}
		list = append(list, rule{chain, exprs})
	}
	dev := r.Device
	services := []struct {
		protocol byte
		ports    string
	}{{unix.IPPROTO_UDP, setUDP}, {unix.IPPROTO_TCP, setTCP}}

	for _, s := range services {
		// Connection tracking would let a client take over the VPN's port for another's packets ("port shadow").
		// iifname != tun0 fib daddr type local udp dport @udp_ports notrack
		add(chainUntrack, from(dev, false), toHost(), port(s.protocol, destination, s.ports), untrack())
		// udp sport @udp_ports notrack
		add(chainUntrackOwn, port(s.protocol, source, s.ports), untrack())
		// iifname tun0 fib daddr type local udp dport @udp_ports drop
		add(chainGuard, from(dev, true), toHost(), port(s.protocol, destination, s.ports), drop())
		// A random source port that is the VPN's would shadow it too. The client tries again and gets another.
		// oifname != tun0 udp sport @udp_ports ct status snat drop
		add(chainSpare, to(dev, false), port(s.protocol, source, s.ports), translated(), drop())
	}
	for _, f := range []family{ipv4, ipv6} {
		// iifname tun0 ip saddr != @nets4 drop
		add(chainGuard, from(dev, true), f.address(source, false), drop())
		if !r.Reachable {
			// iifname != tun0 iifname != lo ip daddr @nets4 ct state != { established, related } drop
			add(chainGuard, from(dev, false), from("lo", false), f.address(destination, true), unanswered(), drop())
		}
		if r.NAT {
			// oifname != tun0 ip saddr @nets4 masquerade fully-random
			add(chainMasquerade, to(dev, false), f.address(source, true), masquerade())
		}
	}
	if !r.Metadata {
		for _, addr := range metadata {
			// iifname tun0 ip daddr 169.254.169.254 drop
			add(chainGuard, from(dev, true), is(addr), drop())
		}
	}
	if !r.ClientToClient {
		// iifname tun0 oifname tun0 drop
		add(chainBetween, from(dev, true), to(dev, true), drop())
	}
	return list
}
