package server

import (
	"fmt"
	"reflect"

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
	{"ClientToClient", "client-to-client"}, {"DuplicateCN", "duplicate-cn"},
	{"TLSAuth", "tls-auth"}, {"TLSAuthDirection", "key-direction"}, {"TLSCrypt", "tls-crypt"}, {"TLSCryptV2", "tls-crypt-v2"},
	{"ForceCookie", "tls-crypt-v2"}, {"Auth", "auth"}, {"Status", "status"}, {"Log", "log"}, {"User", "user"}, {"Group", "group"},
	{"WritePID", "writepid"}, {"Control", "control-socket"}, {"Management", "management"},
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
	creds, err := loadCredentials(&merged)
	if err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	if now, next := s.live.Load().creds.crl.Load(), creds.crl.Load(); now != nil && next != nil && next.Updated().Before(now.Updated()) {
		return nil, fmt.Errorf("reload: crl-verify %s: older than the list in force", merged.CRL.Name) // F23
	}
	if was := s.live.Load().cfg; !reflect.DeepEqual(was.Scripts, merged.Scripts) || was.Dir != merged.Dir {
		if err := s.parts.Scripts.Change(ScriptOptions(&merged, s.log), hooks.Up, hooks.RouteUp); err != nil {
			return nil, fmt.Errorf("reload: %w", err)
		}
	}
	l := &live{cfg: &merged, login: login, creds: creds}
	s.adopt(l)
	for _, c := range s.table.all(nil) {
		s.recheck(l, c)
	}
	s.repushAll(l)
	return kept, nil
}
