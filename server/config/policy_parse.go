package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxPools    = 64
	maxPolicies = 256
	maxRules    = 1000 // of one policy
	maxName     = 32   // of a pool or policy
)

// blockName reads the name of a pool or policy: it becomes part of names of sets in the kernel, of log lines and of JSON.
func blockName(s string) error {
	bad := func(c rune) bool { return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') }
	if s == "" || len(s) > maxName || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("%q is no name: a-z, 0-9, - and _, at most %d", s, maxName)
	}
	return nil
}

// parseMatch reads conditions: any, or pairs of a kind and a value that must hold together.
func parseMatch(words []string) (Match, error) {
	var m Match
	if len(words) == 1 && words[0] == "any" {
		m.Any = true
		return m, nil
	}
	if len(words)%2 != 0 {
		return m, errors.New("write `any`, or pairs such as ldap-group \"DN\", cert-ou OU and user NAME, which must then all hold")
	}
	for i := 0; i < len(words); i += 2 {
		value := words[i+1]
		if value == "" {
			return m, fmt.Errorf("%s has an empty value: it would match by accident", words[i])
		}
		switch words[i] {
		case "ldap-group":
			if !strings.Contains(value, "=") {
				return m, fmt.Errorf("%q is not a distinguished name such as cn=staff,ou=groups,dc=example,dc=org", value)
			}
			m.Groups = append(m.Groups, value)
		case "cert-ou":
			m.Units = append(m.Units, value)
		case "user":
			m.Users = append(m.Users, value)
		default:
			return m, fmt.Errorf("%q is nothing to match: write ldap-group, cert-ou, user, or any alone", words[i])
		}
	}
	return m, nil
}

// parseRule reads [tcp|udp|icmp] any|gateway|policy NAME|NET [PORTS].
func parseRule(allow bool, words []string) (Rule, error) {
	r := Rule{Allow: allow}
	if slices.Contains([]string{"tcp", "udp", "icmp"}, words[0]) {
		r.Proto, words = words[0], words[1:]
	}
	if len(words) == 0 {
		return r, errors.New("where to is missing: a network, any, gateway, or policy NAME")
	}
	switch to := words[0]; to {
	case "any":
		r.Any = true
	case "gateway":
		r.Gateway = true
	case "policy":
		if len(words) < 2 {
			return r, errors.New("the policy's name is missing")
		}
		if err := blockName(words[1]); err != nil {
			return r, err
		}
		r.Policy, words = words[1], words[1:]
	default:
		net, err := parseNet(to)
		if err != nil {
			return r, err
		}
		r.Net = net
		if net.Bits() == 0 {
			return r, fmt.Errorf("%s is everywhere: write any, which means both address families", net)
		}
	}
	words = words[1:]
	switch {
	case len(words) == 0:
		return r, nil
	case len(words) > 1:
		return r, fmt.Errorf("%q is too much: ports are one word, as in 80,443,8000-8080", words[1])
	case r.Proto != "tcp" && r.Proto != "udp":
		return r, errors.New("ports belong to tcp or udp: write it before the network")
	}
	ports, err := parsePorts(words[0])
	r.Ports = ports
	return r, err
}

// parseNet reads a network or an address of either family, without bits behind its prefix.
func parseNet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return p, fmt.Errorf("%q is not a network such as 10.1.0.0/16 or fd00:1::/64 (host names are not looked up)", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%q is an IPv4 address in IPv6's form: write it as IPv4", s)
	}
	if hostBits(p) {
		return p, fmt.Errorf("%s has bits behind its prefix: write %s", p, p.Masked())
	}
	return p, nil
}

// parsePorts reads 80,443,8000-8080.
func parsePorts(s string) ([]Ports, error) {
	var list []Ports
	for part := range strings.SplitSeq(s, ",") {
		first, last, spans := strings.Cut(part, "-")
		if !spans {
			last = first
		}
		a, err := number(first, 1, 65535)
		if err != nil {
			return nil, fmt.Errorf("port %w", err)
		}
		b, err := number(last, 1, 65535)
		if err != nil {
			return nil, fmt.Errorf("port %w", err)
		}
		if b < a {
			return nil, fmt.Errorf("%s ends before it begins", part)
		}
		list = append(list, Ports{uint16(a), uint16(b)})
	}
	slices.SortFunc(list, func(a, b Ports) int { return int(a.First) - int(b.First) })
	for i := 1; i < len(list); i++ {
		if list[i].First <= list[i-1].Last {
			return nil, fmt.Errorf("port %d is listed twice", list[i].First)
		}
	}
	return list, nil
}

// parseLimit reads pairs of down or up and a rate.
func parseLimit(words []string, down, up *int64) error {
	if len(words) != 2 && len(words) != 4 || len(words) == 4 && words[0] == words[2] {
		return errors.New("write `limit down RATE up RATE`, or one of both")
	}
	for i := 0; i < len(words); i += 2 {
		n, err := parseRate(words[i+1])
		switch {
		case err != nil:
			return err
		case words[i] == "down":
			*down = n
		case words[i] == "up":
			*up = n
		default:
			return fmt.Errorf("%q is neither down (to clients) nor up (from them)", words[i])
		}
	}
	return nil
}

// parseRate reads bits a second: 64kbit, 50mbit, 1gbit, in powers of 1000.
func parseRate(s string) (int64, error) {
	for _, unit := range []struct {
		name   string
		factor int64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}} {
		if digits, ok := strings.CutSuffix(s, unit.name); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			if err != nil || n < 1 || n > 1e12/unit.factor || n*unit.factor < 64e3 {
				return 0, fmt.Errorf("%q is not a rate from 64kbit to 1000gbit", s)
			}
			return n * unit.factor, nil
		}
	}
	return 0, fmt.Errorf("%q is not a rate such as 500kbit, 50mbit or 1gbit", s)
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseHours reads DAYS HH:MM-HH:MM [ZONE].
func parseHours(words []string) (Hours, error) {
	h := Hours{Zone: time.Local}
	if words[0] == "daily" {
		h.Days = [7]bool{true, true, true, true, true, true, true}
	} else {
		for part := range strings.SplitSeq(words[0], ",") {
			first, last, spans := strings.Cut(part, "-")
			if !spans {
				last = first
			}
			a, b := slices.Index(weekdays, first), slices.Index(weekdays, last)
			if a < 0 || b < 0 {
				return h, fmt.Errorf("%q is not days such as mon-fri, sat,sun or daily", words[0])
			}
			for d := a; ; d = (d + 1) % 7 {
				h.Days[d] = true
				if d == b {
					break
				}
			}
		}
	}
	from, to, _ := strings.Cut(words[1], "-")
	var err error
	if h.From, err = clock(from); err == nil {
		h.To, err = clock(to)
	}
	if err == nil && h.From == h.To || h.From == 24*60 {
		err = errors.New("no time at all")
	}
	if err != nil {
		return h, fmt.Errorf("%q is not a time such as 07:00-20:00: %w", words[1], err)
	}
	if len(words) > 2 {
		if h.Zone, err = time.LoadLocation(words[2]); err != nil {
			return h, fmt.Errorf("%q is not a time zone such as Europe/Berlin or UTC", words[2])
		}
	}
	return h, nil
}

// clock reads a time of the day, 24:00 included.
func clock(s string) (int, error) {
	if s == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != 5 {
		return 0, fmt.Errorf("%q is not HH:MM", s)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// parseSpan reads seconds, or a number with m, h or d behind it.
func parseSpan(s string) (time.Duration, error) {
	unit := time.Second
	digits := s
	for suffix, u := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = d, u
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || time.Duration(n) > 10*365*24*time.Hour/unit {
		return 0, fmt.Errorf("%q is not a time such as 90m, 12h or 7d", s)
	}
	return time.Duration(n) * unit, nil
}

// parseExclude reads FIRST-LAST, a network or an address.
func parseExclude(s string) (Range, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		if err != nil || err2 != nil || a.BitLen() != b.BitLen() || b.Less(a) || a.Zone() != "" || b.Zone() != "" {
			return Range{}, fmt.Errorf("%q is not a range such as 10.8.0.10-10.8.0.20", s)
		}
		return Range{a, b}, nil
	}
	p, err := parseNet(s)
	if err != nil {
		return Range{}, err
	}
	if p.Addr().Is4() {
		return Range{p.Addr(), last4(p)}, nil
	}
	return Range{p.Addr(), last6(p)}, nil
}
