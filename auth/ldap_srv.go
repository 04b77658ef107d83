package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// srvTime is how long the servers that DNS has named are believed in.
	srvTime = 5 * time.Minute
	// maxSRV is how many of them are asked.
	maxSRV = 16
)

// A Resolver finds servers of a domain. *net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// A serverList is the servers of a directory: those of the configuration, then those that DNS names for a domain.
// Which server that is, a liar could decide; so it must be named within the domain, and have a certificate for its name.
type serverList struct {
	fixed  []*server
	domain string // "" without
	find   func(ctx context.Context) ([]string, error)
	open   func(url string) (*server, error)

	found *foundServers
}

type foundServers struct {
	mu      sync.Mutex
	servers []*server
	until   time.Time
	looking bool
}

func newServerList(o *LDAPOptions, t *trust, log zerolog.Logger) (serverList, error) {
	l := serverList{domain: strings.ToLower(strings.TrimSuffix(o.Domain, ".")), found: new(foundServers)}
	l.open = func(url string) (*server, error) {
		e, err := parseEndpoint(url, o, t)
		if err != nil {
			return nil, err
		}
		return &server{endpoint: e, log: log.With().Str("server", url).Logger()}, nil
	}
	if len(o.URLs) == 0 && o.Domain == "" {
		return l, errors.New("no ldap URL")
	}
	for _, u := range o.URLs {
		s, err := l.open(u)
		if err != nil {
			return l, err
		}
		l.fixed = append(l.fixed, s)
	}
	if l.domain != "" {
		resolver := o.Resolver
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		if !o.StartTLS {
			l.find = func(ctx context.Context) ([]string, error) { return findSecure(ctx, resolver, l.domain) }
		} else {
			l.find = func(ctx context.Context) ([]string, error) {
				return lookup(ctx, resolver, "ldap", l.domain, func(r *net.SRV) string {
					return "ldap://" + net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
				})
			}
		}
	}
	return l, nil
}

// findSecure finds servers for ldaps: as they say, or at its usual port on those that say ldap only, as domain
// controllers do.
func findSecure(ctx context.Context, resolver Resolver, domain string) ([]string, error) {
	urls, err := lookup(ctx, resolver, "ldaps", domain, func(r *net.SRV) string {
		return "ldaps://" + net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
	})
	var missing *net.DNSError
	if err == nil || !errors.As(err, &missing) || !missing.IsNotFound {
		return urls, err
	}
	return lookup(ctx, resolver, "ldap", domain, func(r *net.SRV) string { return "ldaps://" + strings.TrimSuffix(r.Target, ".") })
}

func lookup(ctx context.Context, resolver Resolver, service, domain string, url func(*net.SRV) string) ([]string, error) {
	_, records, err := resolver.LookupSRV(ctx, service, "tcp", domain)
	if err != nil {
		return nil, inStep(stepResolve, err)
	}
	var urls []string
	for _, r := range records[:min(len(records), maxSRV)] {
		target := strings.ToLower(strings.TrimSuffix(r.Target, "."))
		if target != domain && !strings.HasSuffix(target, "."+domain) {
			return nil, inStep(stepResolve, fmt.Errorf("_%s._tcp.%s names %q, which is not in that domain", service, domain, target))
		}
		urls = append(urls, url(&net.SRV{Target: target, Port: r.Port}))
	}
	if len(urls) == 0 {
		return nil, inStep(stepResolve, fmt.Errorf("_%s._tcp.%s names no server", service, domain))
	}
	return urls, nil
}

// candidates returns the servers to ask now, in order.
func (l *serverList) candidates(ctx context.Context) ([]*server, error) {
	all, err := l.all(ctx)
	if len(all) == 0 {
		return nil, err
	}
	return candidates(all)
}

// all returns the servers. What DNS has said last holds as long as it does not answer. An error is in the way of an
// empty list only.
func (l *serverList) all(ctx context.Context) ([]*server, error) {
	if l.find == nil {
		return l.fixed, nil
	}
	f := l.found
	f.mu.Lock()
	known, fresh := f.servers, time.Now().Before(f.until) || f.looking && len(f.servers) > 0
	if !fresh {
		f.looking = true
	}
	f.mu.Unlock()
	if fresh {
		return slices.Concat(l.fixed, known), nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	urls, err := l.find(ctx)
	var servers []*server
	for _, url := range urls {
		i := slices.IndexFunc(known, func(s *server) bool { return s.url == url })
		if i >= 0 {
			servers = append(servers, known[i]) // with what is known of its health
			continue
		}
		s, bad := l.open(url)
		if bad != nil {
			err = bad
			continue
		}
		servers = append(servers, s)
	}
	if len(servers) > 0 {
		trace(ctx, stepResolve, "%s names %s", l.domain, strings.Join(urls, ", "))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looking = false
	switch {
	case len(servers) > 0:
		f.servers, f.until = servers, time.Now().Add(srvTime)
	case len(f.servers) > 0:
		f.until = time.Now().Add(skipTime) // another attempt then
	}
	return slices.Concat(l.fixed, f.servers), err
}
