package firewall_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/server/firewall"
)

var everything = []firewall.Rule{{Allow: true, Any: true}}

// policies are rules with policies: staff for alice, guests for bob.
func policies(staff, guests []firewall.Rule) func(*firewall.Rules) {
	return func(r *firewall.Rules) {
		r.Closed = true
		r.Policies = []firewall.Policy{{Name: "staff", Rules: staff}, {Name: "guests", Rules: guests}}
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func update(t *testing.T, f *firewall.Firewall, changes ...firewall.Change) {
	t.Helper()
	if err := f.Update(changes); err != nil {
		t.Fatal(err)
	}
}

// reaches reports whether a UDP packet comes through, from an address in a namespace to one in another.
func reaches(t *testing.T, from string, src netip.Addr, to string, dst netip.Addr, port uint16) bool {
	t.Helper()
	return sends(t, listen(t, from, src, 0), to, dst, port)
}

func sends(t *testing.T, c *net.UDPConn, to string, dst netip.Addr, port uint16) bool {
	t.Helper()
	l := listen(t, to, dst, port)
	defer l.Close()
	// A machine that is busy may take its time for the first one, and for finding a neighbour.
	for _, patience := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond} {
		send(t, c, "hello", dst, port)
		l.SetReadDeadline(time.Now().Add(patience))
		if _, _, err := l.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
			return true
		}
	}
	return false
}

// The first rule that a packet fits decides; without one, and without a policy, nothing goes. Membership is an element.
func TestPolicyRules(t *testing.T) {
	newLab(t)
	f := apply(t, policies([]firewall.Rule{
		{Protocol: "udp", To: host(beyond4), Ports: []firewall.PortRange{{7000, 7000}}},
		{Allow: true, Protocol: "udp", To: netip.MustParsePrefix("192.0.2.0/24"), Ports: []firewall.PortRange{{5000, 5000}, {7000, 7010}}},
		{Allow: true, To: netip.MustParsePrefix("2001:db8::/32")},
		{Allow: true, Policy: "guests", Protocol: "udp", Ports: []firewall.PortRange{{6000, 6000}}},
		{Allow: true, Gateway: true, Protocol: "udp", Ports: []firewall.PortRange{{53, 53}}},
	}, []firewall.Rule{{Allow: true, Any: true}}))
	check := func(step string, want map[string]bool) {
		t.Helper()
		for what, get := range map[string]func() bool{
			"alice 5000":         func() bool { return reaches(t, alice, alice4, beyond, beyond4, 5000) },
			"alice 5001":         func() bool { return reaches(t, alice, alice4, beyond, beyond4, 5001) },
			"alice 7000":         func() bool { return reaches(t, alice, alice4, beyond, beyond4, 7000) },
			"alice 7005":         func() bool { return reaches(t, alice, alice4, beyond, beyond4, 7005) },
			"alice v6":           func() bool { return reaches(t, alice, alice6, beyond, beyond6, 5001) },
			"alice ping":         func() bool { return ping(alice, beyond4) == nil },
			"alice bob 6000":     func() bool { return reaches(t, alice, alice4, bob, bob4, 6000) },
			"alice bob 6001":     func() bool { return reaches(t, alice, alice4, bob, bob4, 6001) },
			"alice bob v6":       func() bool { return reaches(t, alice, alice6, bob, bob6, 6000) },
			"bob alice":          func() bool { return reaches(t, bob, bob4, alice, alice4, 6000) },
			"bob beyond":         func() bool { return reaches(t, bob, bob4, beyond, beyond4, 5001) },
			"alice gateway 53":   func() bool { return reaches(t, alice, alice4, server, inside4, 53) },
			"alice gateway 54":   func() bool { return reaches(t, alice, alice4, server, inside4, 54) },
			"alice gateway wan":  func() bool { return reaches(t, alice, alice4, server, public4, 54) },
			"alice gateway ping": func() bool { return ping(alice, inside4) == nil && ping(alice, inside6) == nil },
			"alice ping wan":     func() bool { return ping(alice, public4) == nil },
			"bob gateway 53":     func() bool { return reaches(t, bob, bob4, server, inside4, 53) },
		} {
			if got := get(); got != want[what] {
				t.Errorf("%s: %s: %v, want %v", step, what, got, want[what])
			}
		}
	}
	// Pings of the gateway's own address are everybody's.
	check("nobody is in", map[string]bool{"alice gateway ping": true})
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: host(alice6), To: "staff"},
		firewall.Change{Net: host(bob4), To: "guests"}, firewall.Change{Net: host(bob6), To: "guests"})
	staff := map[string]bool{"alice 5000": true, "alice 7005": true, "alice v6": true, "alice bob 6000": true, "alice bob v6": true, "bob beyond": true,
		"alice gateway 53": true, "alice gateway ping": true}
	check("both are in", staff)
	update(t, f, firewall.Change{Net: host(alice4), From: "staff", To: "guests"}, firewall.Change{Net: host(alice6), From: "staff", To: "guests"})
	check("alice has moved", map[string]bool{"alice 5000": true, "alice 5001": true, "alice 7000": true, "alice 7005": true, "alice v6": true, "alice ping": true,
		"alice gateway ping": true, "bob beyond": true})
	if err := f.Replace(rules(policies(everything, nil)), firewall.Change{Net: host(alice4), To: "guests"}, firewall.Change{Net: host(bob4), To: "staff"}); err != nil {
		t.Fatal(err)
	}
	check("other rules and members", map[string]bool{"bob beyond": true, "alice gateway ping": true})
	update(t, f, firewall.Change{Net: host(bob4), From: "staff"})
	check("bob has left", map[string]bool{"alice gateway ping": true})
}

// A right that is lost ends what it had opened; what remains goes on, and so does who answers somebody else's.
func TestPolicyChangeCutsOpenConnections(t *testing.T) {
	newLab(t)
	toBob := []firewall.Rule{{Allow: true, Protocol: "udp", Policy: "guests"}, {Allow: true, Any: true}}
	f := apply(t, policies(toBob, nil))
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: host(bob4), To: "guests"})
	near, far := listen(t, alice, alice4, 6000), listen(t, bob, bob4, 6000)
	send(t, near, "to", bob4, 6000)
	expect(t, far, "to")
	send(t, far, "fro", alice4, 6000) // bob has no right of his own
	expect(t, near, "fro")
	out := listen(t, alice, alice4, 6001)
	if !sends(t, out, beyond, beyond4, 5000) {
		t.Fatal("alice does not reach beyond")
	}
	if err := f.Replace(rules(policies(everything, nil)), firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: host(bob4), To: "guests"}); err != nil {
		t.Fatal(err)
	}
	if sends(t, near, bob, bob4, 6001) {
		t.Error("a connection outlives the rule that allowed it")
	}
	if !sends(t, out, beyond, beyond4, 5001) || !sends(t, out, beyond, beyond4, 5000) {
		t.Error("what is still allowed was cut")
	}
}

// Whoever loses a right gets nothing more by it either, however much the other end sends: neither UDP that needs no answer,
// nor what is under way of a TCP connection; from beyond, from another client, and from the gateway.
func TestPolicyChangeStopsAnswers(t *testing.T) {
	newLab(t)
	f := apply(t)
	all := []firewall.Rule{{Allow: true, Any: true}, {Allow: true, Policy: "guests"}, {Allow: true, Gateway: true}}
	for _, c := range []struct{ alice, bob, far, inside netip.Addr }{{alice4, bob4, beyond4, inside4}, {alice6, bob6, beyond6, inside6}} {
		members := []firewall.Change{{Net: host(c.alice), To: "staff"}, {Net: host(c.bob), To: "guests"}}
		judge := func(rules_ ...firewall.Rule) {
			t.Helper()
			if err := f.Replace(rules(policies(rules_, nil)), members...); err != nil {
				t.Fatal(err)
			}
		}
		judge(all...)
		near := listen(t, alice, c.alice, 6000)
		type peer struct {
			conn *net.UDPConn
			back netip.AddrPort // where it has alice
		}
		peers := make(map[string]peer)
		for ns, at := range map[string]netip.Addr{beyond: c.far, bob: c.bob, server: c.inside} {
			conn := listen(t, ns, at, 5000)
			send(t, near, "hello", at, 5000)
			peers[ns] = peer{conn, expect(t, conn, "hello")}
		}
		var l net.Listener
		within(t, beyond, func() (err error) {
			l, err = net.Listen("tcp", netip.AddrPortFrom(c.far, 5001).String())
			return err
		})
		defer l.Close()
		var stream net.Conn
		within(t, alice, func() (err error) {
			stream, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
			return err
		})
		defer stream.Close()
		source, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		var received strings.Builder
		streamed := func(text string, patience time.Duration) bool { // TCP that was cut takes its time to try again
			t.Helper()
			if _, err := source.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			stream.SetReadDeadline(time.Now().Add(patience))
			for b := make([]byte, 1000); !strings.Contains(received.String(), text); {
				n, err := stream.Read(b)
				if err != nil {
					return false
				}
				received.Write(b[:n])
			}
			return true
		}
		// check has everybody send to alice, and looks who comes through: each in turn, since she has one socket.
		check := func(step string, want ...string) {
			t.Helper()
			for ns, p := range peers {
				sent := fmt.Sprintf("%s from %s", step, ns)
				_, _ = p.conn.WriteToUDPAddrPort([]byte(sent), p.back) // the gateway's own is told that it may not
				near.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				b := make([]byte, 100)
				n, _, err := near.ReadFromUDPAddrPort(b)
				if got, want := err == nil, slices.Contains(want, ns); got != want {
					t.Errorf("%s: %v: UDP comes through: %v (%q), want %v", sent, c.alice, got, b[:n], want)
				}
			}
			patience := 200 * time.Millisecond
			if slices.Contains(want, beyond) {
				patience = 20 * time.Second
			}
			if got, want := streamed(step, patience), slices.Contains(want, beyond); got != want {
				t.Errorf("%s: %v: TCP comes through: %v, want %v", step, c.alice, got, want)
			}
		}
		check("all", beyond, bob, server)
		judge(all[0])
		check("beyond only", beyond)
		judge(all[1])
		check("clients only", bob)
		judge(all[2])
		check("gateway only", server)
		judge(firewall.Rule{Allow: true, Protocol: "udp", To: host(c.far), Ports: []firewall.PortRange{{4000, 4999}, {5001, 6000}}})
		check("other ports")
		judge(firewall.Rule{Protocol: "udp", To: host(c.far)}, all[0])
		if !streamed("all but udp", 20*time.Second) {
			t.Error("a connection that is allowed was cut")
		}
		update(t, f, firewall.Change{Net: host(c.alice), From: "staff", To: "guests"})
		check("another policy")
		judge(all...)
		update(t, f, firewall.Change{Net: host(c.alice), From: "staff"})
		check("left")
		judge(all...)
		check("all again", beyond, bob, server)
	}
}

// A connection to the gateway that is open ends with the right to it.
func TestPolicyChangeCutsGateway(t *testing.T) {
	newLab(t)
	f := apply(t, policies([]firewall.Rule{{Allow: true, Gateway: true}}, nil))
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"})
	near, far := listen(t, alice, alice4, 6000), listen(t, server, inside4, 5000)
	send(t, near, "to", inside4, 5000)
	from := expect(t, far, "to")
	send(t, far, "fro", from.Addr(), from.Port())
	expect(t, near, "fro")
	if err := f.Replace(rules(policies(nil, nil)), firewall.Change{Net: host(alice4), To: "staff"}); err != nil {
		t.Fatal(err)
	}
	send(t, near, "again", inside4, 5000)
	far.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, _, err := far.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Error("a connection to the gateway outlives the rule that allowed it")
	}
	// What the host opens itself is its own affair.
	if err := ping(server, alice4); err != nil {
		t.Errorf("the host does not reach a client: %v", err)
	}
}

// S084: allowing everything is not allowing the metadata service; naming it is.
func TestPolicyMetadata(t *testing.T) {
	newLab(t)
	service := netip.MustParseAddr("169.254.169.254")
	run(t, fmt.Sprintf("ip -n %s addr add %v dev lo", beyond, service))
	run(t, fmt.Sprintf("ip -n %s route add %v via %v", server, service, beyond4))
	f := apply(t, policies(everything, nil))
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: host(bob4), To: "guests"})
	if reaches(t, alice, alice4, beyond, service, 5000) {
		t.Error("the metadata service is reached by `allow any`")
	}
	named := []firewall.Rule{{Allow: true, Any: true}, {Allow: true, Protocol: "udp", To: host(service), Ports: []firewall.PortRange{{5000, 5000}}}}
	if err := f.Replace(rules(policies(named, everything)), firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: host(bob4), To: "guests"}); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ got, want bool }{
		"alice":       {reaches(t, alice, alice4, beyond, service, 5000), true},
		"other port":  {reaches(t, alice, alice4, beyond, service, 5001), false},
		"other hosts": {reaches(t, alice, alice4, beyond, beyond4, 5001), true},
		"bob":         {reaches(t, bob, bob4, beyond, service, 5000), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
}

// A network behind a client is under the client's policy, whatever else it overlaps.
func TestPolicyOfNetworksBehindClients(t *testing.T) {
	newLab(t)
	site := netip.MustParsePrefix("10.99.0.0/24")
	behind := netip.MustParseAddr("10.99.0.2")
	run(t, fmt.Sprintf("ip -n %s addr add %v dev tun", alice, behind))
	f := apply(t, func(r *firewall.Rules) { r.Zones[0].Behind = []netip.Prefix{site} }, policies(everything, nil))
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: site, To: "guests"})
	if reaches(t, alice, behind, beyond, beyond4, 5000) {
		t.Error("the network has its neighbour's rights")
	}
	update(t, f, firewall.Change{Net: site, From: "guests", To: "staff"}, firewall.Change{Net: netip.MustParsePrefix("10.99.0.0/25"), To: "staff"})
	if !reaches(t, alice, behind, beyond, beyond4, 5000) {
		t.Error("the network has no rights")
	}
	update(t, f, firewall.Change{Net: site, From: "staff"}, firewall.Change{Net: netip.MustParsePrefix("10.99.0.0/25"), From: "staff"})
	if reaches(t, alice, behind, beyond, beyond4, 5000) {
		t.Error("the network keeps its rights")
	}
	update(t, f, firewall.Change{Net: host(alice4), From: "staff", To: "guests"}, firewall.Change{Net: netip.PrefixFrom(alice4, 24).Masked(), To: "staff"})
	if reaches(t, alice, alice4, beyond, beyond4, 5000) {
		t.Error("a client has the rights of a network that is behind another")
	}
}

// Of networks behind clients that overlap the more specific one counts, whichever policy stands first in the file.
func TestPolicyOfOverlappingNetworks(t *testing.T) {
	newLab(t)
	site, part := netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("10.99.0.128/25")
	low, high := netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.200")
	for _, a := range []netip.Addr{low, high} {
		run(t, fmt.Sprintf("ip -n %s addr add %v dev tun", alice, a))
	}
	behind := func(r *firewall.Rules) { r.Zones[0].Behind = []netip.Prefix{site} }
	f := apply(t, behind, policies(everything, nil))
	check := func(step string, wantLow, wantHigh bool) {
		t.Helper()
		if got := reaches(t, alice, low, beyond, beyond4, 5000); got != wantLow {
			t.Errorf("%s: %v goes through: %v, want %v", step, low, got, wantLow)
		}
		if got := reaches(t, alice, high, beyond, beyond4, 5000); got != wantHigh {
			t.Errorf("%s: %v goes through: %v, want %v", step, high, got, wantHigh)
		}
	}
	update(t, f, firewall.Change{Net: site, To: "staff"})
	check("one network", true, true)
	update(t, f, firewall.Change{Net: part, To: "guests"})
	check("a part of it is another's", true, false)
	update(t, f, firewall.Change{Net: part, From: "guests"})
	check("no more", true, true)
	update(t, f, firewall.Change{Net: part, To: "staff"}, firewall.Change{Net: site, From: "staff", To: "guests"})
	check("exchanged", false, true)
	if err := f.Replace(rules(behind, policies(everything, nil)), firewall.Change{Net: part, To: "guests"}, firewall.Change{Net: site, To: "staff"}); err != nil {
		t.Fatal(err)
	}
	check("rules replaced", true, false)
}

// Without policies the host's services are closed as well, but for what is named (S084).
func TestClosedGateway(t *testing.T) {
	newLab(t)
	f := apply(t, func(r *firewall.Rules) {
		r.Closed = true
		r.Gateway = []firewall.Rule{{Allow: true, Gateway: true, To: host(inside4), Protocol: "udp", Ports: []firewall.PortRange{{53, 53}}}}
	})
	for what, c := range map[string]struct{ got, want bool }{
		"dns":             {reaches(t, alice, alice4, server, inside4, 53), true},
		"dns, outside":    {reaches(t, alice, alice4, server, public4, 53), false},
		"other port":      {reaches(t, alice, alice4, server, inside4, 54), false},
		"v6":              {reaches(t, alice, alice6, server, inside6, 54), false},
		"ping":            {ping(alice, inside4) == nil && ping(alice, inside6) == nil && ping(alice, public4) == nil, true},
		"from the host":   {ping(server, alice4) == nil && reaches(t, server, inside4, alice, alice4, 6000), true},
		"beyond the host": {reaches(t, alice, alice4, beyond, beyond4, 5000), true},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	replace(t, f, func(r *firewall.Rules) {
		r.Closed, r.Gateway = true, []firewall.Rule{{Allow: true, Gateway: true}}
	})
	if !reaches(t, alice, alice4, server, public4, 54) || !reaches(t, alice, alice6, server, inside6, 54) {
		t.Error("an open gateway is closed")
	}
}

// A change that cannot be made changes nothing, and the table goes on working.
func TestFailedUpdateChangesNothing(t *testing.T) {
	newLab(t)
	f := apply(t, policies(everything, nil))
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"})
	if err := f.Update([]firewall.Change{{Net: host(alice4), From: "staff"}, {Net: host(bob4), From: "staff"}}); err == nil {
		t.Error("an address that is not in was removed")
	}
	if err := f.Update([]firewall.Change{{Net: host(bob4), To: "nobody"}}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("an unknown policy: %v", err)
	}
	bad := rules(policies(everything, nil))
	bad.Policies[0].Rules = []firewall.Rule{{Allow: true, Policy: "nobody"}}
	if err := f.Replace(bad); err == nil || errors.Is(err, firewall.ErrUnsupported) {
		t.Errorf("rules about an unknown policy: %v", err)
	}
	if err := f.Replace(rules(policies(everything, nil)), firewall.Change{Net: host(bob4), To: "nobody"}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a member of an unknown policy: %v", err)
	}
	if err := f.Replace(rules(policies(everything, nil)), firewall.Change{Net: host(bob4), From: "nobody", To: "guests"}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a member that was of an unknown policy: %v", err)
	}
	if reaches(t, bob, bob4, beyond, beyond4, 5000) {
		t.Error("bob has rights from a refused change")
	}
	if !reaches(t, alice, alice4, beyond, beyond4, 5000) {
		t.Error("alice has lost her rights")
	}
	update(t, f, firewall.Change{Net: host(bob4), To: "staff"})
	if !reaches(t, bob, bob4, beyond, beyond4, 5000) {
		t.Error("bob has none")
	}
}

// BenchmarkConnect is what a client costs that connects and leaves, with 5,000 others connected: in two transactions of its
// own, or in those of a hundred.
func BenchmarkConnect(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprintf("by=%d", batch), func(b *testing.B) {
			f := benchTable(b)
			one := make([]firewall.Change, 0, 2*batch)
			leave := make([]firewall.Change, 0, 2*batch)
			for i := range batch {
				for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 200, byte(i)}), netip.AddrFrom16([16]byte{0xfd, 0x77, 15: byte(i)})} {
					one = append(one, firewall.Change{Net: host(a), To: "staff"})
					leave = append(leave, firewall.Change{Net: host(a), From: "staff"})
				}
			}
			for b.Loop() {
				if err := f.Update(one); err != nil {
					b.Fatal(err)
				}
				if err := f.Update(leave); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/client")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// crowd is three policies and 5,000 clients of theirs.
func crowd() (firewall.Rules, []firewall.Change) {
	r := rules(policies(everything, everything))
	r.Zones[0].Pools = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}
	r.Policies = append(r.Policies, firewall.Policy{Name: "others"})
	var all []firewall.Change
	for i := range 5000 {
		all = append(all, firewall.Change{Net: host(netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(i % 250)})), To: r.Policies[i%3].Name})
	}
	return r, all
}

// benchTable is a table with a crowd.
func benchTable(b *testing.B) *firewall.Firewall {
	b.Helper()
	newLab(b)
	r, all := crowd()
	var f *firewall.Firewall
	within(b, server, func() (err error) {
		f, err = firewall.Apply(r)
		return err
	})
	b.Cleanup(func() { f.Remove() })
	if err := f.Replace(r, all...); err != nil {
		b.Fatal(err)
	}
	return f
}

// Policies have nothing in common, however much their names are alike.
func TestPolicyNamesAlike(t *testing.T) {
	newLab(t)
	dns := firewall.Rule{Allow: true, Gateway: true, Protocol: "udp", Ports: []firewall.PortRange{{53, 53}}}
	f := apply(t, func(r *firewall.Rules) {
		r.Closed = true
		r.Policies = []firewall.Policy{{Name: "x"}, {Name: "answer_x", Rules: []firewall.Rule{dns}}, {Name: "x_nets", Rules: []firewall.Rule{dns}}}
	})
	update(t, f, firewall.Change{Net: host(alice4), To: "answer_x"}, firewall.Change{Net: host(bob4), To: "x_nets"})
	if !reaches(t, alice, alice4, server, inside4, 53) {
		t.Error("a member of answer_x has not what it allows")
	}
	if !reaches(t, bob, bob4, server, inside4, 53) {
		t.Error("a member of x_nets has not what it allows")
	}
}

// Rights are of one family. Sources of this IPv6 client have, where an IPv4 header has its addresses, that of a client that may
// do everything, and that of the gateway.
func TestPolicyFamiliesAreApart(t *testing.T) {
	newLab(t)
	net6 := netip.MustParsePrefix("fd77:0:a4d:2::/64")
	like4, likeGateway4 := netip.MustParseAddr("fd77:0:a4d:2::2"), netip.MustParseAddr("fd77:0:a4d:2:a4d:1:0:2")
	for _, addr := range []netip.Addr{like4, likeGateway4} {
		run(t, fmt.Sprintf("ip -n %s addr add %v/128 dev tun nodad", bob, addr))
	}
	run(t, fmt.Sprintf("ip -n %s route add %v dev %s", server, net6, device))
	dns := firewall.Rule{Allow: true, Gateway: true, To: host(inside4), Protocol: "udp", Ports: []firewall.PortRange{{53, 53}}}
	f := apply(t, policies(everything, nil), func(r *firewall.Rules) {
		r.Zones[0].Pools = append(slices.Clone(pools), net6)
		r.Gateway = []firewall.Rule{dns}
	})
	update(t, f, firewall.Change{Net: host(alice4), To: "staff"}, firewall.Change{Net: host(like4), To: "guests"})
	if !reaches(t, alice, alice4, beyond, beyond4, 5000) || !reaches(t, alice, alice4, server, inside4, 53) {
		t.Error("the IPv4 client has not what it may")
	}
	if reaches(t, bob, like4, beyond, beyond6, 5000) {
		t.Error("the IPv6 client has the rights of an IPv4 client")
	}
	if reaches(t, bob, likeGateway4, server, inside6, 53) {
		t.Error("the IPv6 client reaches what is allowed of the gateway's IPv4 address")
	}
	update(t, f, firewall.Change{Net: host(like4), From: "guests", To: "staff"})
	if !reaches(t, bob, like4, beyond, beyond6, 5000) {
		t.Error("the IPv6 client has not what it may")
	}
}
