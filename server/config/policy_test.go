package config

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const ldapAndCodes = "auth-totp-file users\nldap-url ldaps://ldap.example\nldap-user-base dc=x\n"

// pools is a configuration with three pools.
const pools = minimal + ldapAndCodes + `keepalive 10 60
topology subnet
push "echo all"
pool staff
  network 10.8.0.0/22 fd00:8::/64
  exclude 10.8.0.10-10.8.0.20 fd00:8::2000/116
  dev tun1
  route 10.1.0.0/16 fd00:10::/64
  dns 10.8.0.1
  nat yes
  limit down 100mbit
end
pool guests
  network 10.9.0.0/24   # IPv4 alone
  behind 192.168.66.0/24
end
policy admins
  match ldap-group "CN=Admins, OU=Groups, DC=x" cert-ou Laptops
  match user root
  pool staff
  allow any
  allow gateway
  allow policy guests
end
policy guests
  match any
  pool guests
  deny tcp 10.1.2.3
  allow tcp 10.1.0.0/16 443,8000-8080
  allow icmp fd00:10::/64
  limit down 50mbit up 500kbit
  sessions 2 refuse
  hours mon-fri 07:00-20:00 Europe/Berlin
  hours sat 22:00-02:00 UTC
  session-timeout 12h
  factor totp
end
verb 3
`

func TestPoolsAndPolicies(t *testing.T) {
	c, r := mustLoad(t, pools)
	all := c.AllPools()
	if len(all) != 2 || all[0].Name != "staff" || all[1].Name != "guests" {
		t.Fatalf("pools %+v", all)
	}
	staff, guests := all[0], all[1]
	if staff.Dev != "tun1" || guests.Dev != "tun-guests" || !staff.NAT || guests.NAT || staff.Down != 100e6 || staff.Up != 0 {
		t.Errorf("pools %+v", all)
	}
	if staff.Addr4.String() != "10.8.0.1/22" || staff.Range4.First.String() != "10.8.0.2" || staff.Range4.Last.String() != "10.8.3.254" ||
		staff.Addr6.String() != "fd00:8::1/64" || staff.Range6.First.String() != "fd00:8::1000" || staff.Bits6 != 64 {
		t.Errorf("addresses %+v", staff)
	}
	if want := []string{"echo all", "tun-ipv6", "route-gateway 10.8.0.1", "topology subnet", "route 10.1.0.0 255.255.0.0", "route-ipv6 fd00:10::/64",
		"dhcp-option DNS 10.8.0.1", "ping 10", "ping-restart 60"}; !slices.Equal(staff.Push, want) {
		t.Errorf("pushed: %q, want %q", staff.Push, want)
	}
	if len(guests.Routes) != 1 || guests.Routes[0].Net.String() != "192.168.66.0/24" || len(staff.Exclude) != 2 {
		t.Errorf("%+v", guests)
	}
	admins, others := c.Policies[0], c.Policies[1]
	if want := []Match{{Groups: []string{"CN=Admins, OU=Groups, DC=x"}, Units: []string{"Laptops"}}, {Users: []string{"root"}}}; !reflect.DeepEqual(admins.Match, want) {
		t.Errorf("matches %+v", admins.Match)
	}
	var rules []string
	for _, rule := range append(admins.Rules, others.Rules...) {
		rules = append(rules, rule.String())
	}
	if want := []string{"allow any", "allow gateway", "allow policy guests", "deny tcp 10.1.2.3/32", "allow tcp 10.1.0.0/16 443,8000-8080", "allow icmp fd00:10::/64"}; !slices.Equal(rules, want) {
		t.Errorf("rules %q", rules)
	}
	if others.Down != 50e6 || others.Up != 500e3 || others.Sessions != 2 || !others.Refuse || others.Timeout != 12*time.Hour || others.Factor != "totp" || others.Pool != "guests" {
		t.Errorf("%+v", others)
	}
	for _, e := range r.Entries {
		switch {
		case e.Verdict == Refused || e.Verdict == Ignored:
			t.Errorf("%+v", e)
		case e.Text == "policy guests" && !strings.Contains(e.Why, "everybody: addresses of pool guests; 3 rules"):
			t.Errorf("the policy is explained as %q", e.Why)
		case e.Text == "pool staff" && !strings.Contains(e.Why, "device tun1, gateway"):
			t.Errorf("the pool is explained as %q", e.Why)
		}
	}
}

// Without blocks there is one pool, and no policy.
func TestPlainConfigurationIsOnePool(t *testing.T) {
	c, _ := mustLoad(t, basic+"server-ipv6 fd00:9::/64\npush \"route 10.0.0.0 255.0.0.0\"\n")
	all := c.AllPools()
	if len(all) != 1 || len(c.Policies) != 0 {
		t.Fatalf("%d pools, %d policies", len(all), len(c.Policies))
	}
	p := all[0]
	if p.Name != DefaultPool || p.Dev != c.Dev || p.Addr4 != c.Addr4 || p.Range6 != c.Pool6 || !slices.Equal(p.Push, c.Push) {
		t.Errorf("%+v", p)
	}
	// One beside the pool of server: policies without a pool line lead into that.
	c, _ = mustLoad(t, basic+"pool more\nnetwork 10.10.0.0/24\nend\npolicy a\nmatch user x\npool more\nend\npolicy b\nmatch any\nend\n")
	if all := c.AllPools(); len(all) != 2 || c.Policies[0].Pool != "more" || c.Policies[1].Pool != DefaultPool {
		t.Errorf("%+v", c.Policies)
	}
}

func TestHours(t *testing.T) {
	c, _ := mustLoad(t, pools)
	p := c.Policy("guests")
	for at, want := range map[string]bool{
		"2026-07-06T05:00:00Z": true,  // Monday 07:00 in Berlin's summer
		"2026-07-06T04:59:59Z": false, //
		"2026-01-05T06:00:00Z": true,  // Monday 07:00 in Berlin's winter
		"2026-01-05T05:59:59Z": false,
		"2026-07-06T17:59:59Z": true,
		"2026-07-06T18:00:00Z": false,
		"2026-07-11T12:00:00Z": false, // Saturday noon
		"2026-07-11T22:00:00Z": true,
		"2026-07-12T01:59:59Z": true, // it began on Saturday
		"2026-07-12T02:00:00Z": false,
		"2026-07-12T22:30:00Z": false, // Sunday
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Open(when); got != want {
			t.Errorf("open at %s: %v, want %v", at, got, want)
		}
	}
	if !c.Policy("admins").Open(time.Now()) {
		t.Error("a policy without hours is closed")
	}
}

// Mistakes in blocks are told with their line, and each once.
func TestBrokenBlocks(t *testing.T) {
	const pool = "pool p\nnetwork 10.10.0.0/24\n"
	const policy = "policy q\nmatch any\npool p\n"
	for _, tt := range []struct {
		lines     string
		line      int
		directive string
		remedy    string
	}{
		{"end", 1, "end", "no block to end"},
		{pool, 1, "pool", "write `end` behind its last line"},
		{"pool p\nnetwork 10.10.0.0/24\n" + policy + "end", 1, "pool", "write `end` before /etc/openvpn/server.conf:"},
		{"pool P!\nnetwork 10.10.0.0/24\nend\npolicy q\nmatch any\nend", 1, "pool", "a-z, 0-9"},
		{"pool p\nend\n" + policy + "end", 1, "pool", "add `network"},
		{pool + "netwrok 1.2.3.4/32\nend\n" + policy + "end", 3, "netwrok", "do you mean network?"},
		{pool + "keepalive 10 60\nend\n" + policy + "end", 3, "keepalive", "goes before the block"},
		{pool + "<ca>\n</ca>\nend\n" + policy + "end", 3, "ca", "have no such line"},
		{"pool p\nnetwork 10.10.0.1/24\nend\n" + policy + "end", 2, "network", "write 10.10.0.0/24"},
		{"pool p\nnetwork 10.10.0.0/8\nend\n" + policy + "end", 2, "network", "write 10.0.0.0/8"},
		{"pool p\nnetwork 10.0.0.0/8\nend\n" + policy + "end", 2, "network", "between /16 and /29"},
		{"pool p\nnetwork fd00::/48\nend\n" + policy + "end", 2, "network", "between /64 and /124"},
		{"pool p\nnetwork 10.10.0.0/24 10.11.0.0/24\nend\n" + policy + "end", 2, "network", "one of each family"},
		{"pool p\nnetwork 10.9.0.128/25\nend\n" + policy + "end", 1, "pool", "overlaps 10.9.0.0/24 of pool default"},
		{pool + "behind 10.66.0.0/24\nend\npool r\nnetwork 10.12.0.0/24\nbehind 10.66.0.0/24\nend\n" + policy + "end", 5, "pool", "behind clients of pool p already"},
		{pool + "dev tun\nend\n" + policy + "end", 3, "dev", "stays the same"},
		{pool + "dev a/b\nend\n" + policy + "end", 3, "dev", "at most 15 bytes"},
		{"pool a-very-long-name\nnetwork 10.10.0.0/24\nend\npolicy q\nmatch any\nend", 1, "pool", "add a `dev` line"},
		{pool + "exclude 10.20.0.1\nend\n" + policy + "end", 3, "exclude", "not in the pool's network"},
		{pool + "exclude 10.10.0.9-10.10.0.1\nend\n" + policy + "end", 3, "exclude", "not a range"},
		{pool + "route example.org\nend\n" + policy + "end", 3, "route", "not looked up"},
		{pool + "dns example.org\nend\n" + policy + "end", 3, "dns", "address of a DNS server"},
		{pool + "push \"a,b\"\nend\n" + policy + "end", 3, "push", "one push line for each"},
		{pool + "nat maybe\nend\n" + policy + "end", 3, "nat", "neither yes nor no"},
		{pool + "limit 5mbit\nend\n" + policy + "end", 3, "limit", "write limit down|up RATE"},
		{pool + "limit down 5\nend\n" + policy + "end", 3, "limit", "50mbit"},
		{pool + "limit down 5kbit\nend\n" + policy + "end", 3, "limit", "from 64kbit"},
		{pool + "limit down 1mbit down 1mbit\nend\n" + policy + "end", 3, "limit", "limit down RATE up RATE"},
		{pool + "end\npool p\nnetwork 10.12.0.0/24\nend\n" + policy + "end", 4, "pool", "one of this name at"},
		{pool + "end", 1, "pool", "add a `policy` block"},
		{"pool default\nnetwork 10.10.0.0/24\nend\npolicy q\nmatch any\nend", 1, "pool", "`server` makes the pool"},
		{"policy q\nend", 1, "policy", "add `match any`"},
		{"policy q\nmatch\nend", 2, "match", "write match any"},
		{"policy q\nmatch any user x\nend", 2, "match", "or pairs"},
		{"policy q\nmatch group x\nend", 2, "match", "write ldap-group, cert-ou, user"},
		{"policy q\nmatch user \"\"\nend", 2, "match", "empty value"},
		{"policy q\nmatch ldap-group staff\nend", 2, "match", "not a distinguished name"},
		{"policy q\nmatch ldap-group cn=staff\nend", 2, "match", "add ldap-url"},
		{"policy q\nmatch any\npool nowhere\nend", 3, "pool", `no pool "nowhere"`},
		{"policy q\nmatch any\nallow\nend", 3, "allow", "write allow"},
		{"policy q\nmatch any\nallow tcp\nend", 3, "allow", "where to is missing"},
		{"policy q\nmatch any\nallow policy\nend", 3, "allow", "name is missing"},
		{"policy q\nmatch any\nallow policy staff\nend", 3, "allow", `no policy "staff"`},
		{"policy q\nmatch any\nallow 0.0.0.0/0\nend", 3, "allow", "write any"},
		{"policy q\nmatch any\nallow 10.0.0.0/8 80\nend", 3, "allow", "ports belong to tcp or udp"},
		{"policy q\nmatch any\nallow tcp 10.0.0.0/8 http\nend", 3, "allow", "not a number from 1 to 65535"},
		{"policy q\nmatch any\nallow tcp 10.0.0.0/8 90-80\nend", 3, "allow", "ends before it begins"},
		{"policy q\nmatch any\nallow tcp 10.0.0.0/8 80,80\nend", 3, "allow", "listed twice"},
		{"policy q\nmatch any\nallow tcp 10.0.0.0/8 80 81\nend", 3, "allow", "ports are one word"},
		{"policy q\nmatch any\nallow ::ffff:10.0.0.1\nend", 3, "allow", "write it as IPv4"},
		{"policy q\nmatch any\nsessions 0\nend", 3, "sessions", "not a number from 1"},
		{"policy q\nmatch any\nsessions 1 kill\nend", 3, "sessions", "replace, refuse"},
		{"policy q\nmatch any\nhours always 00:00-24:00\nend", 3, "hours", "mon-fri"},
		{"policy q\nmatch any\nhours mon 7-20\nend", 3, "hours", "not HH:MM"},
		{"policy q\nmatch any\nhours mon 07:00-07:00\nend", 3, "hours", "no time at all"},
		{"policy q\nmatch any\nhours mon 07:00-20:00 Mars/Olympus\nend", 3, "hours", "not a time zone"},
		{"policy q\nmatch any\nsession-timeout soon\nend", 3, "session-timeout", "90m"},
		{"policy q\nmatch any\nfactor sms\nend", 3, "factor", "not one of: totp"},
		{"policy q\nmatch any\nfactor totp\nend", 3, "factor", "add auth-totp-file"},
		{"client-to-client\npolicy q\nmatch any\nend", 1, "client-to-client", "allow policy NAME"},
		{"gateway-access all\npolicy q\nmatch any\nend", 1, "gateway-access", "allow tcp gateway PORTS"},
		{"dev tap\npolicy q\nmatch any\nend", 2, "policy", "write `dev tun`"},
		{"gateway-access tcp", 1, "gateway-access", "write all, none"},
		{"gateway-access icmp 3", 1, "gateway-access", "write all, none"},
	} {
		_, _, err := loadText(basic + tt.lines + "\n")
		var errs Errors
		if !errors.As(err, &errs) {
			t.Errorf("%q: error %v", tt.lines, err)
			continue
		}
		if p := errs[0]; len(errs) != 1 || p.Line != tt.line+strings.Count(basic, "\n") || p.Directive != tt.directive || !strings.Contains(p.Message, tt.remedy) {
			t.Errorf("%q: want line %d, %s, %q; got\n%v", tt.lines, tt.line+strings.Count(basic, "\n"), tt.directive, tt.remedy, err)
		}
	}
}

// What is shown of a rule reads back as the same rule.
func FuzzRule(f *testing.F) {
	for _, s := range []string{"tcp 10.0.0.0/8 1-2,4", "any", "icmp gateway", "policy a-b", "udp policy x 53", "fd00::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Fields(s)
		if len(words) == 0 {
			return
		}
		r, err := parseRule(true, words)
		if err != nil {
			return
		}
		again, err := parseRule(true, strings.Fields(r.String())[1:])
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%q is %+v, shown as %q: %+v, %v", s, r, r.String(), again, err)
		}
		if r.Net.IsValid() && r.Net != netip.PrefixFrom(r.Net.Masked().Addr(), r.Net.Bits()) {
			t.Errorf("%q: bits behind the prefix", s)
		}
	})
}

// Scripts about the device know of one only: with several pools check says of which.
func TestDeviceScriptsOfSeveralPools(t *testing.T) {
	const script = "script-security 2\nup hook.sh\nclient-connect hook.sh\n"
	_, r := mustLoad(t, script+pools)
	if got := why(r, "up"); !strings.Contains(got, "for the device tun1 of pool staff") {
		t.Errorf("of several pools: %s", got)
	}
	if got := why(r, "client-connect"); strings.Contains(got, "pool") {
		t.Errorf("a script about clients: %s", got)
	}
	_, r = mustLoad(t, basic+script)
	if got := why(r, "up"); strings.Contains(got, "pool") {
		t.Errorf("of one pool: %s", got)
	}
}
