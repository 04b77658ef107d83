package auth

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// identity is who a person of that name is, with what the directory wants them to get.
func (l *LDAP) identity(name string, p *person) (*Identity, error) {
	id := &Identity{Name: name, By: "ldap", Groups: p.groups.names()}
	value := func(attribute string) string {
		if attribute == "" {
			return ""
		}
		return strings.TrimSpace(p.entry.GetEqualFoldAttributeValue(attribute))
	}
	bad := func(attribute string, err error) error {
		return &Denied{Reason: fmt.Sprintf("attribute %s of %q: %v", attribute, p.entry.DN, err), Public: PublicRefusal, Err: errAttribute}
	}
	var err error
	if v := value(l.o.Addr4); v != "" {
		if id.Addr4, err = parseAddr4(v); err != nil {
			return nil, bad(l.o.Addr4, err)
		}
	}
	if v := value(l.o.Addr6); v != "" {
		if id.Addr6, err = parseAddr6(v); err != nil {
			return nil, bad(l.o.Addr6, err)
		}
	}
	id.Pool = value(l.o.Pool)
	if l.o.Routes != "" {
		for _, v := range p.entry.GetEqualFoldAttributeValues(l.o.Routes) {
			route, err := parseRoute(v)
			if err != nil {
				return nil, bad(l.o.Routes, err)
			}
			id.Routes = append(id.Routes, route)
		}
	}
	return id, nil
}

// errAttribute is inside the *Denied of an entry whose attributes say what cannot be done: no other address is given
// instead, since rules elsewhere may stand on the one that was meant.
var errAttribute = fmt.Errorf("bad attribute: %w", errNotTried)

// parseAddr4 reads an IPv4 address, as text or as the signed number that Active Directory's dial-in page makes of it.
func parseAddr4(v string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Is4() {
		return a, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < math.MinInt32 || n > math.MaxUint32 {
		return netip.Addr{}, fmt.Errorf("%q is no IPv4 address", v)
	}
	u := uint32(n)
	return netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)}), nil
}

// parseAddr6 reads an IPv6 address, with or without the length of its network.
func parseAddr6(v string) (netip.Addr, error) {
	text, _, _ := strings.Cut(v, "/")
	if a, err := netip.ParseAddr(text); err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" {
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("%q is no IPv6 address", v)
}

// parseRoute reads a network, as RADIUS has it: 10.0.0.0/8, perhaps followed by a gateway and a metric, which mean
// nothing here.
func parseRoute(v string) (netip.Prefix, error) {
	fields := strings.Fields(v)
	if len(fields) == 0 {
		return netip.Prefix{}, errors.New("an empty value is no network")
	}
	p, err := netip.ParsePrefix(fields[0])
	if err != nil {
		a, err := netip.ParseAddr(fields[0])
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no network such as 10.0.0.0/8", v)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 network: write it as 10.0.0.0/8", v)
	}
	return p.Masked(), nil
}
