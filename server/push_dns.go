package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// OpenVPN has two languages for name servers: dhcp-option DNS, DNS6, DOMAIN, ..., which every client takes (some only
// for a script of the user's), and since 2.6 dns, which newer ones take in its place. An administrator writes either
// or both, and each client is told in its own.

// Bounds of what clients take.
const (
	maxDNSAddresses = 8   // of one dns server
	maxDNSDomains   = 10  // in all
	maxDNSLine      = 200 // bytes of an option, which may have 256
)

// suitDNS has the client told in its own language. Where only the other was written, that is translated. dhcp-option
// with domains is left to itself in a split tunnel: OpenVPN 3 asks the tunnel's name servers for these domains alone,
// which nothing among dns says as well.
func (l *pushList) suitDNS() {
	addresses, domains := l.filter(isDHCPAddress), l.filter(isDHCPDomain)
	servers, search := l.filter(isDNSServer), l.filter(isDNSSearch)
	if !l.to.dns {
		l.swap(isDNSServer, servers, addresses, serversAsDHCP)
		l.swap(isDNSSearch, search, domains, l.searchAsDHCP)
		return
	}
	if full := l.coverage(); len(servers) == 0 && len(domains) > 0 && !full.all4 && !full.all6 {
		return
	}
	l.swap(isDHCPAddress, addresses, servers, addressesAsDNS)
	l.swap(isDHCPDomain, domains, search, domainsAsDNS)
}

// swap takes out the options of the foreign language, and puts their translation in the place of the first unless the
// client's own language says something itself.
func (l *pushList) swap(is func(*pushOption) bool, foreign, own []pushOption, translate func([]pushOption) []string) {
	if len(foreign) == 0 {
		return
	}
	var said []string
	if len(own) == 0 {
		if said = translate(foreign); said == nil {
			return // it cannot be said otherwise
		}
	}
	at := slices.IndexFunc(l.options, func(o pushOption) bool { return is(&o) })
	l.remove(is)
	l.insert(at, said...)
}

func (l *pushList) filter(is func(*pushOption) bool) (list []pushOption) {
	for i := range l.options {
		if is(&l.options[i]) {
			list = append(list, l.options[i])
		}
	}
	return list
}

func isDHCP(o *pushOption, kinds ...string) bool {
	return o.name() == "dhcp-option" && len(o.words) == 3 && slices.Contains(kinds, o.words[1])
}

func isDHCPAddress(o *pushOption) bool { return isDHCP(o, "DNS", "DNS6") }
func isDHCPDomain(o *pushOption) bool {
	return isDHCP(o, "DOMAIN", "DOMAIN-SEARCH", "ADAPTER_DOMAIN_SUFFIX")
}
func isDNSServer(o *pushOption) bool { return o.name() == "dns" && o.arg(0) == "server" }
func isDNSSearch(o *pushOption) bool { return o.name() == "dns" && o.arg(0) == "search-domains" }

// addressesAsDNS translates dhcp-option DNS and DNS6.
func addressesAsDNS(list []pushOption) (said []string) {
	var all []string
	for i := range list {
		if _, err := netip.ParseAddr(list[i].arg(1)); err != nil {
			return nil
		}
		all = append(all, list[i].arg(1))
	}
	priority := 0
	for part := range slices.Chunk(all, maxDNSAddresses) {
		said = append(said, fmt.Sprintf("dns server %d address %s", priority, strings.Join(part, " ")))
		priority++
	}
	return said
}

// domainsAsDNS translates dhcp-option DOMAIN and its like. Lines of search-domains add up.
func domainsAsDNS(list []pushOption) (said []string) {
	const head = "dns search-domains"
	line := head
	for _, d := range dhcpDomains(list) {
		if line != head && len(line)+1+len(d) > maxDNSLine {
			said, line = append(said, line), head
		}
		line += " " + d
	}
	return append(said, line)
}

func dhcpDomains(list []pushOption) (domains []string) {
	for i := range list {
		if d := list[i].arg(1); !slices.Contains(domains, d) {
			domains = append(domains, d)
		}
	}
	return domains
}

// A dnsServer is what dns server lines of one priority say.
type dnsServer struct {
	priority  int
	addresses []string // that can be asked in the plain way, at port 53
	encrypted bool
	split     bool // for some domains only
}

func parseDNSServers(list []pushOption) []dnsServer {
	byPriority := make(map[int]*dnsServer)
	for i := range list {
		o := &list[i]
		n, err := strconv.Atoi(o.arg(1))
		if err != nil {
			continue
		}
		s := byPriority[n]
		if s == nil {
			s = &dnsServer{priority: n}
			byPriority[n] = s
		}
		switch o.arg(2) {
		case "address":
			for _, a := range o.words[4:] {
				if plain, ok := plainAddress(a); ok {
					s.addresses = append(s.addresses, plain)
				}
			}
		case "resolve-domains":
			s.split = true
		case "transport":
			s.encrypted = o.arg(3) != "plain"
		}
	}
	servers := make([]dnsServer, 0, len(byPriority))
	for _, s := range byPriority {
		servers = append(servers, *s)
	}
	slices.SortFunc(servers, func(a, b dnsServer) int { return a.priority - b.priority })
	return servers
}

// plainAddress takes the port from an address. It is not ok if the port is not that of DNS.
func plainAddress(s string) (string, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.String(), true
	}
	if p, err := netip.ParseAddrPort(s); err == nil && p.Port() == 53 {
		return p.Addr().String(), true
	}
	return "", false
}

// serversAsDHCP translates dns server: the servers for all names, or if all are for some domains only, all of them. What
// is encrypted, or at another port, cannot be said.
func serversAsDHCP(list []pushOption) (said []string) {
	servers := parseDNSServers(list)
	servers = slices.DeleteFunc(servers, func(s dnsServer) bool { return s.encrypted })
	if general := func(s dnsServer) bool { return !s.split }; slices.ContainsFunc(servers, general) {
		servers = slices.DeleteFunc(servers, func(s dnsServer) bool { return s.split })
	}
	for _, s := range servers {
		for _, a := range s.addresses {
			kind := "DNS"
			if netip.MustParseAddr(a).Is6() {
				kind = "DNS6"
			}
			said = append(said, fmt.Sprintf("dhcp-option %s %s", kind, a))
		}
	}
	return said
}

// searchAsDHCP translates dns search-domains. OpenVPN 2.4 knows one domain.
func (l *pushList) searchAsDHCP(list []pushOption) (said []string) {
	kind := "DOMAIN"
	for i := range list {
		for _, d := range list[i].words[2:] {
			if len(said) == maxDNSDomains || len(said) == 1 && !l.to.since(5) {
				return said
			}
			said = append(said, fmt.Sprintf("dhcp-option %s %s", kind, d))
			kind = "DOMAIN-SEARCH"
		}
	}
	return said
}
