package server

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"postern/server/config"
	"postern/server/hooks"
)

// fixed names the settings that a running server cannot change, and the directives an administrator knows them by.
var fixed = []struct{ field, directive string }{
	{"Listen", "local, port or proto"}, {"SendBuf", "sndbuf"}, {"RecvBuf", "rcvbuf"}, {"MaxClients", "max-clients"}, {"TCPQueue", "tcp-queue-limit"},
	{"Multihome", "multihome"}, {"SameInterface", "multihome"}, {"BindDev", "bind-dev"}, {"Mark", "mark"}, {"MTUDisc", "mtu-disc"}, {"PassTOS", "passtos"}, {"BlockIPv6", "block-ipv6"},
	{"PortShare", "port-share"}, {"Balancers", "proxy-protocol-from"},
	{"Dev", "dev"}, {"MTU", "tun-mtu"}, {"TxQueue", "txqueuelen"}, {"Topology", "topology"},
	{"Tap", "dev-type"}, {"Bridge", "server-bridge"}, {"LLAddr", "lladdr"}, {"MaxMACs", "max-routes-per-client"},
	{"Addr4", "server"}, {"Addr6", "server-ipv6"}, {"Pool4", "ifconfig-pool"}, {"Pool6", "ifconfig-ipv6-pool"}, {"Pool6Bits", "server-ipv6"},
	{"PoolPersist", "ifconfig-pool-persist"}, {"Routes", "route"}, {"RouteTable", "route-table"}, {"ConnectFreqInitial", "connect-freq-initial"}, {"TLSCryptV2MaxAge", "tls-crypt-v2-max-age"}, {"NAT", "nat"}, {"NoOffload", "tun-offload"},
	{"ClientToClient", "client-to-client"}, {"GatewayAccess", "gateway-access"}, {"DuplicateCN", "duplicate-cn"},
	{"TLSAuth", "tls-auth"}, {"TLSAuthDirection", "key-direction"}, {"TLSCrypt", "tls-crypt"}, {"TLSCryptV2", "tls-crypt-v2"},
	{"ForceCookie", "tls-crypt-v2"}, {"Auth", "auth"}, {"Status", "status"}, {"Log", "log"}, {"User", "user"}, {"Group", "group"},
	{"WritePID", "writepid"}, {"Control", "control-socket"}, {"Audit", "audit"}, {"Management", "management"},
	{"Daemon", "daemon"}, {"Syslog", "syslog"}, {"NoTimestamps", "suppress-timestamps"}, {"MachineReadable", "machine-readable-output"}, {"Nice", "nice"},
	{"TOTPUsed", "auth-totp-used"},
}

// Reload makes cfg the configuration of new sessions, and of running ones as far as it can: certificates, revocation
// list, client files, pushes, logins, scripts, timers. kept names the directives that stay as they were. On error nothing has
// changed (S095).
func (s *Server) Reload(cfg *config.Config, login Login) (kept []string, err error) {
	merged := *cfg
	now, next := reflect.ValueOf(s.live.Load().cfg).Elem(), reflect.ValueOf(&merged).Elem()
	for _, f := range fixed {
		was, is := now.FieldByName(f.field), next.FieldByName(f.field)
		if !reflect.DeepEqual(was.Interface(), is.Interface()) {
			kept = append(kept, f.directive)
			is.Set(was)
		}
	}
	kept = append(kept, keepPools(s.live.Load().cfg, &merged)...)
	if (len(merged.Policies) > 0) != (len(s.live.Load().policies) > 0) {
		return nil, fmt.Errorf("reload: %w", errPolicies)
	}
	creds, err := loadCredentials(&merged)
	if err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	if now, next := s.live.Load().creds.crl.Load(), creds.crl.Load(); now != nil && next != nil && next.Updated().Before(now.Updated()) {
		return nil, fmt.Errorf("reload: crl-verify %s: older than the list in force", merged.CRL.Name) // F23
	}
	l, err := newLive(&merged, login, creds)
	if err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	if was := s.live.Load().cfg; !reflect.DeepEqual(was.Scripts, merged.Scripts) || was.Dir != merged.Dir {
		if err := s.parts.Scripts.Change(ScriptOptions(&merged, s.log), hooks.Up, hooks.RouteUp); err != nil {
			return nil, fmt.Errorf("reload: %w", err)
		}
	}
	if err := s.enforce(l); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	s.adopt(l)
	for _, c := range s.table.all(nil) {
		s.recheck(l, c)
		s.reevaluate(c)
	}
	s.repushAll(l)
	return kept, nil
}

var errPolicies = errors.New("that there are policies, or that there are none any more, takes a restart")

// keepPools gives next the pools of now, but what a running server can change of them: pushes and limits.
func keepPools(now, next *config.Config) (kept []string) {
	changed := *next
	next.Pools = slices.Clone(now.Pools)
	for i := range next.Pools {
		is := &next.Pools[i]
		at := slices.IndexFunc(changed.Pools, func(p config.Pool) bool { return p.Name == is.Name })
		if at < 0 {
			kept = append(kept, "pool "+is.Name)
			continue
		}
		want := changed.Pools[at]
		if is.Push, is.Down, is.Up, is.DNSForward = want.Push, want.Down, want.Up, want.DNSForward; !reflect.DeepEqual(*is, want) {
			kept = append(kept, "pool "+is.Name)
		}
	}
	for _, p := range changed.Pools {
		if !slices.ContainsFunc(next.Pools, func(is config.Pool) bool { return is.Name == p.Name }) {
			kept = append(kept, "pool "+p.Name)
		}
	}
	return kept
}

// reloadTime is how long a reload waits for the packet filter; confirmTime is for how long one that was held back may be
// asked for again.
const (
	reloadTime  = 10 * time.Second
	confirmTime = 10 * time.Minute
)

// enforce has the packet filter hold the policies of l, which is about to be adopted. When that would end very many
// sessions it is refused at first: whoever means it asks again.
func (s *Server) enforce(l *live) error {
	if len(l.policies) == 0 {
		return nil
	}
	ending, total := s.consequences(l)
	if tooMany(ending, total) {
		if last := s.heldBack.Swap(time.Now().Unix()); time.Since(time.Unix(last, 0)) > confirmTime {
			return fmt.Errorf("%d of %d sessions would end: if that is what you want, reload again", ending, total)
		}
	}
	s.heldBack.Store(0)
	assign := make(map[*client]string)
	for _, c := range s.table.all(nil) {
		if g := c.decided(); g != nil {
			if r, err := s.judge(l, g.subject()); err == nil && r.zone == g.ruling.zone {
				assign[c] = r.policy.Name
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadTime)
	defer cancel()
	if err := s.enforcer.replace(ctx, l.cfg, assign); err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	return nil
}
