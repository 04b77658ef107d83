package config

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What the lines say arrives in the fields that the server reads.
func TestValues(t *testing.T) {
	udp4 := Listen{Network: "udp", Proto: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:1194"), Any4: true}
	for _, tt := range []struct {
		lines string
		field func(*Config) any
		want  any
	}{
		// Transport.
		{"", func(c *Config) any { return c.Listen }, []Listen{udp4}},
		{"port 443\nproto tcp", func(c *Config) any { return c.Listen }, []Listen{{Network: "tcp", Proto: "tcp-server", Addr: netip.MustParseAddrPort("0.0.0.0:443"), Any4: true}}},
		{"lport 443\nproto tcp4-server", func(c *Config) any { return c.Listen }, []Listen{{Network: "tcp", Proto: "tcp4-server", Addr: netip.MustParseAddrPort("0.0.0.0:443"), Any4: true}}},
		{"proto udp6", func(c *Config) any { return c.Listen }, []Listen{{Network: "udp", Proto: "udp6", Addr: netip.MustParseAddrPort("[::]:1194")}}},
		{"proto tcp6-server\nbind ipv6only", func(c *Config) any { return c.Listen }, []Listen{{Network: "tcp", Proto: "tcp6-server", Addr: netip.MustParseAddrPort("[::]:1194"), V6Only: true}}},
		{"local 192.0.2.1\nport openvpn", func(c *Config) any { return c.Listen }, []Listen{{Network: "udp", Proto: "udp", Addr: netip.MustParseAddrPort("192.0.2.1:1194")}}},
		{"local 2001:db8::1", func(c *Config) any { return c.Listen }, []Listen{{Network: "udp", Proto: "udp", Addr: netip.MustParseAddrPort("[2001:db8::1]:1194")}}},
		{"local *\nlocal * 443 tcp-server\nlocal :: 53 udp6", func(c *Config) any { return c.Listen }, []Listen{udp4,
			{Network: "tcp", Proto: "tcp-server", Addr: netip.MustParseAddrPort("0.0.0.0:443"), Any4: true}, {Network: "udp", Proto: "udp6", Addr: netip.MustParseAddrPort("[::]:53")}}},
		{"local 192.0.2.1\nlocal 192.0.2.2 1195\nport 7", func(c *Config) any { return []string{c.Listen[0].Addr.String(), c.Listen[1].Addr.String()} },
			[]string{"192.0.2.1:7", "192.0.2.2:1195"}},
		{"sndbuf 1000\nrcvbuf 0", func(c *Config) any { return [2]int{c.SendBuf, c.RecvBuf} }, [2]int{1000, 0}},
		{"", func(c *Config) any { return []int{c.MaxClients, c.TCPQueue} }, []int{1024, 64}},
		{"multihome", func(c *Config) any { return [2]bool{c.Multihome, c.SameInterface} }, [2]bool{true, false}},
		{"multihome same-interface", func(c *Config) any { return [2]bool{c.Multihome, c.SameInterface} }, [2]bool{true, true}},
		{"bind-dev eth1\nmark 4294967295\nmtu-disc yes\npasstos", func(c *Config) any { return []any{c.BindDev, c.Mark, c.MTUDisc, c.PassTOS} }, []any{"eth1", uint32(1<<32 - 1), "yes", true}},
		{"proto tcp-server\nport-share 127.0.0.1 https", func(c *Config) any { return c.PortShare.Target() }, "127.0.0.1:443"},
		{"dns-forward 10.0.0.53\ndns-forward [fd00::53]:5353 corp.example Lab.example.", func(c *Config) any { return fmt.Sprint(c.DNSForward) },
			"[{10.0.0.53:53 []} {[fd00::53]:5353 [corp.example Lab.example.]}]"},
		{"proto tcp-server\nproxy-protocol-from 192.0.2.0/24 2001:db8::1\nproxy-protocol-from 198.51.100.1", func(c *Config) any { return fmt.Sprint(c.Balancers) },
			"[192.0.2.0/24 2001:db8::1/128 198.51.100.1/32]"},
		{"dev tap", func(c *Config) any { return []any{c.Dev, c.Tap, c.Bridge, c.MaxMACs, c.Push} }, []any{"tap", true, false, 256, []string{"route-gateway 10.9.0.1", "ping 10", "ping-restart 60"}}},
		{"dev vpn0\ndev-type tap\nlladdr 02:00:5e:00:00:01\nmax-routes-per-client 9\nstale-routes-check 300 60", func(c *Config) any { return fmt.Sprint(c.Tap, c.LLAddr, c.MaxMACs, c.StaleMAC) }, "true 02:00:5e:00:00:01 9 5m0s"},
		{"dev tap7\ntopology p2p\npasstos\nblock-ipv6", func(c *Config) any { return fmt.Sprint(c.Tap, c.Topology, c.PassTOS, c.BlockIPv6) }, "true subnet false false"},
		{"dev tap0\ndev-type tun", func(c *Config) any { return c.Tap }, false},
		{"max-clients 7\ntcp-queue-limit 9", func(c *Config) any { return []int{c.MaxClients, c.TCPQueue} }, []int{7, 9}},

		// Device and addresses.
		{"", func(c *Config) any { return []any{c.Dev, c.MTU, c.TxQueue, c.MSSFix} }, []any{"tun", 1500, 0, MSSFix{Max: 1450}}},
		{"dev tun7\ntun-mtu 1400\ntxqueuelen 500", func(c *Config) any { return []any{c.Dev, c.MTU, c.TxQueue, c.MSSFix} }, []any{"tun7", 1400, 500, MSSFix{1400, MSSFixed}}},
		{"dev vpn0\ndev-type tun", func(c *Config) any { return c.Dev }, "vpn0"},
		{"dev-type tun\ndev tapestry", func(c *Config) any { return c.Dev }, "tapestry"},
		{"max-packet-size 1200", func(c *Config) any { return []any{c.MaxPacket, c.MSSFix} }, []any{1200, MSSFix{1200, MSSMTU}}},
		{"mssfix 1400", func(c *Config) any { return c.MSSFix }, MSSFix{1400, MSSLink}},
		{"mssfix 1400 fixed\ntun-mtu 1300", func(c *Config) any { return c.MSSFix }, MSSFix{1400, MSSFixed}},
		{"mssfix", func(c *Config) any { return c.MSSFix }, MSSFix{Max: 1450}},
		{"mssfix 0", func(c *Config) any { return c.MSSFix }, MSSFix{}},
		{"", func(c *Config) any { return []string{c.Addr4.String(), c.Pool4.First.String(), c.Pool4.Last.String()} }, []string{"10.9.0.1/24", "10.9.0.2", "10.9.0.254"}},
		{"server 10.0.0.0 255.255.255.248", func(c *Config) any { return []string{c.Addr4.String(), c.Pool4.First.String(), c.Pool4.Last.String()} }, []string{"10.0.0.1/29", "10.0.0.2", "10.0.0.6"}},
		{"server 10.9.0.0 255.255.255.0 nopool", func(c *Config) any { return c.Pool4 }, Range{}},
		{"server 10.9.0.0 255.255.255.0 nopool\nifconfig-pool 10.9.0.8 10.9.0.9 255.255.255.0", func(c *Config) any { return c.Pool4.Last.String() }, "10.9.0.9"},
		{"server-ipv6 fd00::/64", func(c *Config) any {
			return []string{c.Addr6.String(), c.Pool6.First.String(), c.Pool6.Last.String(), fmt.Sprint(c.Pool6Bits)}
		}, []string{"fd00::1/64", "fd00::1000", "fd00::1:fff", "64"}},
		{"server-ipv6 fd00::/112", func(c *Config) any {
			return []string{c.Addr6.String(), c.Pool6.First.String(), c.Pool6.Last.String(), fmt.Sprint(c.Pool6Bits)}
		}, []string{"fd00::1/112", "fd00::2", "fd00::ffff", "112"}},
		{"server-ipv6 fd00::10/124", func(c *Config) any { return []string{c.Addr6.String(), c.Pool6.First.String(), c.Pool6.Last.String()} }, []string{"fd00::11/124", "fd00::12", "fd00::1f"}},
		{"server-ipv6 fd00::1/64", func(c *Config) any { return c.Addr6.String() }, "fd00::2/64"}, // as 2.6.14 does
		{"topology net30\nserver 10.9.0.0 255.255.255.0", func(c *Config) any { return fmt.Sprint(c.Topology, c.Addr4, c.Peer4, c.Pool4, c.Routes) }, "net30 10.9.0.1/24 10.9.0.2 {10.9.0.4 10.9.0.251} []"},
		{"server 10.9.0.0 255.255.255.248\ntopology p2p", func(c *Config) any { return fmt.Sprint(c.Topology, c.Addr4, c.Peer4, c.Pool4) }, "p2p 10.9.0.1/29 10.9.0.2 {10.9.0.4 10.9.0.7}"},
		{"topology net30\nserver 10.9.0.0 255.255.255.0 nopool\nifconfig-pool 10.9.0.8 10.9.0.19", func(c *Config) any { return fmt.Sprint(c.Pool4) }, "{10.9.0.8 10.9.0.19}"},
		{"", func(c *Config) any { return c.PushConstraint.String() }, "10.9.0.0/24"},
		{"topology p2p\nserver 10.9.0.0 255.255.255.0", func(c *Config) any { return c.PushConstraint.IsValid() }, false},
		{"ifconfig-push-constraint 10.0.0.0 255.0.0.0", func(c *Config) any { return c.PushConstraint.String() }, "10.0.0.0/8"},
		{"ifconfig-noexec\nroute-noexec", func(c *Config) any { return []bool{c.NoIfconfig, c.NoRouteExec} }, []bool{true, true}},
		{"route 192.168.9.0 255.255.255.0\nroute 192.168.7.1\nroute 172.16.0.0 255.240.0.0 10.9.0.2 5\nroute-metric 9\nroute-ipv6 fd01::/48 fd00::2",
			func(c *Config) any { return c.Routes }, []Route{
				{Net: netip.MustParsePrefix("192.168.9.0/24"), Metric: 9}, {Net: netip.MustParsePrefix("192.168.7.1/32"), Metric: 9},
				{Net: netip.MustParsePrefix("172.16.0.0/12"), Gateway: netip.MustParseAddr("10.9.0.2"), Metric: 5},
				{Net: netip.MustParsePrefix("fd01::/48"), Gateway: netip.MustParseAddr("fd00::2"), Metric: 9}}},
		{"route-gateway 10.9.0.5\nroute 192.168.9.0 255.255.255.0 vpn_gateway", func(c *Config) any { return c.Routes[0].Gateway.String() }, "10.9.0.5"},
		{"route 192.168.9.7 255.255.255.0", func(c *Config) any { return c.Routes[0].Net.String() }, "192.168.9.0/24"},

		// Clients.
		{"", func(c *Config) any { return []any{c.Ping, c.PingRestart} }, []any{10 * time.Second, 120 * time.Second}},
		{"ifconfig-pool-persist ipp.txt", func(c *Config) any { return []any{c.PoolPersist, c.PoolPersistEvery} }, []any{"/etc/openvpn/ipp.txt", 10 * time.Minute}},
		{"ifconfig-pool-persist ipp.txt 0", func(c *Config) any { return c.PoolPersistEvery }, time.Duration(0)},
		{"client-config-dir ccd\nccd-exclusive", func(c *Config) any { return []any{c.ClientConfigDir, c.CCDExclusive} }, []any{"/etc/openvpn/ccd", true}},
		{"client-to-client\nduplicate-cn", func(c *Config) any { return []bool{c.ClientToClient, c.DuplicateCN} }, []bool{true, true}},
		{"inactive 300 1000\nsession-timeout 60", func(c *Config) any { return []any{c.Inactive, c.InactiveBytes, c.SessionTimeout} }, []any{5 * time.Minute, int64(1000), time.Minute}},
		{"explicit-exit-notify", func(c *Config) any { return c.ExitNotify }, 1},
		{"explicit-exit-notify 2", func(c *Config) any { return c.ExitNotify }, 2},
		{"push \"route 1.2.3.0 255.255.255.0\"\ntcp-nodelay\nserver-ipv6 fd00::/64", func(c *Config) any { return c.Push },
			[]string{"route 1.2.3.0 255.255.255.0", "tun-ipv6", "route-gateway 10.9.0.1", "topology subnet", "ping 10", "ping-restart 60", "socket-flags TCP_NODELAY"}},

		// TLS.
		{"", func(c *Config) any {
			return []any{c.TLSMin, c.TLSMax, c.Auth, c.TLSAuthDirection, c.VerifyClientCert, c.CipherSuites, c.Curves}
		},
			[]any{uint16(tls.VersionTLS12), uint16(0), "SHA1", -1, CertRequire, []uint16(nil), []uint16(nil)}},
		{"tls-auth ta.key 0\nauth sha256", func(c *Config) any { return []any{c.TLSAuth.Name, c.TLSAuthDirection, c.Auth} }, []any{"/etc/openvpn/ta.key", 0, "SHA256"}},
		{"<tls-auth>\n" + staticKeyText + "</tls-auth>\nkey-direction 1", func(c *Config) any { return []any{c.TLSAuth.Name, string(c.TLSAuth.Bytes), c.TLSAuthDirection} }, []any{"[inline]", staticKeyText, 1}},
		{"tls-auth ta.key", func(c *Config) any { return c.TLSAuthDirection }, -1},
		{"tls-crypt tc.key", func(c *Config) any { return c.TLSCrypt.Set() }, true},
		{"tls-crypt-v2 v2.key force-cookie", func(c *Config) any { return []bool{c.TLSCryptV2.Set(), c.ForceCookie} }, []bool{true, true}},
		{"tls-crypt-v2 v2.key\ntls-crypt tc.key", func(c *Config) any { return []bool{c.TLSCryptV2.Set(), c.TLSCrypt.Set()} }, []bool{true, true}},
		{"crl-verify crl.pem", func(c *Config) any { return []any{c.CRL.Name, c.CRLDir, len(c.CRL.Bytes) > 0} }, []any{"/etc/openvpn/crl.pem", false, true}},
		{"crl-verify ccd dir", func(c *Config) any { return []any{c.CRL.Name, c.CRLDir} }, []any{"/etc/openvpn/ccd", true}},
		{"tls-version-min 1.3", func(c *Config) any { return c.TLSMin }, uint16(tls.VersionTLS13)},
		{"tls-version-min 1.0", func(c *Config) any { return c.TLSMin }, uint16(tls.VersionTLS12)},
		{"tls-version-max 1.2", func(c *Config) any { return c.TLSMax }, uint16(tls.VersionTLS12)},
		{"tls-version-min 9.9 or-highest", func(c *Config) any { return c.TLSMin }, uint16(tls.VersionTLS13)},
		{"tls-cipher TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:AES128-SHA:!aNULL", func(c *Config) any { return c.CipherSuites },
			[]uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}},
		{"tls-cipher TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256:ECDHE-RSA-CHACHA20-POLY1305", func(c *Config) any { return c.CipherSuites },
			[]uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}},
		{"tls-cipher DEFAULT:!EXP:!LOW", func(c *Config) any { return len(c.CipherSuites) }, 6},
		{"tls-groups X25519:secp384r1:X448", func(c *Config) any { return c.Curves }, []uint16{uint16(tls.X25519), uint16(tls.CurveP384)}},
		{"ecdh-curve prime256v1", func(c *Config) any { return c.Curves }, []uint16{uint16(tls.CurveP256)}},
		{"remote-cert-tls client\nverify-x509-name vpn- name-prefix", func(c *Config) any { return []any{c.RemoteCertTLS, c.VerifyX509Name, c.VerifyX509Type} }, []any{true, "vpn-", "name-prefix"}},
		{"verify-x509-name CN=a", func(c *Config) any { return c.VerifyX509Type }, "subject"},
		{"peer-fingerprint " + strings.Repeat("ab:", 31) + "ab", func(c *Config) any { return fmt.Sprintf("%x", c.PeerFingerprints) }, "[" + strings.Repeat("ab", 32) + "]"},
		{"hand-window 30\ntran-window 600\ntls-timeout 3\nreneg-sec 100 50\nreneg-bytes 7\nreneg-pkts 8", func(c *Config) any {
			return []any{c.HandWindow, c.TranWindow, c.TLSTimeout, c.Renegotiate, c.RenegotiateMin, c.RenegotiateBytes, c.RenegotiatePackets}
		}, []any{30 * time.Second, 10 * time.Minute, 3 * time.Second, 100 * time.Second, 50 * time.Second, int64(7), int64(8)}},
		{"reneg-sec 0", func(c *Config) any { return c.Renegotiate }, time.Duration(0)},

		// Data channel.
		{"", func(c *Config) any { return c.DataCiphers }, []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"}},
		{"data-ciphers aes-192-gcm:?ROT13:chacha20-poly1305:AES-256-CBC", func(c *Config) any { return c.DataCiphers }, []string{"AES-192-GCM", "CHACHA20-POLY1305", "AES-256-CBC"}},
		{"data-ciphers CHACHA20-POLY1305:DEFAULT", func(c *Config) any { return c.DataCiphers }, []string{"CHACHA20-POLY1305", "AES-256-GCM", "AES-128-GCM"}},
		{"data-ciphers AES-128-GCM\nncp-ciphers AES-256-GCM", func(c *Config) any { return c.DataCiphers }, []string{"AES-256-GCM"}},
		{"data-ciphers-fallback aes-256-gcm", func(c *Config) any { return c.CipherFallback }, "AES-256-GCM"},
		{"data-ciphers-fallback BF-CBC", func(c *Config) any { return c.CipherFallback }, ""},
		{"cipher AES-192-GCM", func(c *Config) any { return c.DataCiphers }, []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"}},
		{"cipher AES-192-GCM\ncompat-mode 2.4.0", func(c *Config) any { return c.DataCiphers }, []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305", "AES-192-GCM"}},
		{"auth RSA-SHA512", func(c *Config) any { return c.Auth }, "SHA512"},
		{"replay-window 128 30", func(c *Config) any { return c.ReplayWindow }, 128},
		{"", func(c *Config) any { return c.ReplayWindow }, 2048},

		// Daemon.
		{"log a.log\nlog-append b.log", func(c *Config) any { return []any{c.Log, c.LogAppend} }, []any{"/etc/openvpn/b.log", true}},
		{"log-append b.log\nlog a.log", func(c *Config) any { return []any{c.Log, c.LogAppend} }, []any{"/etc/openvpn/a.log", false}},
		{"status s.log 5\nstatus-version 3\nverb 4\nsuppress-timestamps", func(c *Config) any {
			return []any{c.Status, c.StatusEvery, c.StatusVersion, c.Verb, c.NoTimestamps}
		}, []any{"/etc/openvpn/s.log", 5 * time.Second, 3, 4, true}},
		{"user nobody\ngroup nogroup\nwritepid /run/openvpn/p.pid", func(c *Config) any { return []string{c.User, c.Group, c.WritePID} }, []string{"nobody", "nogroup", "/run/openvpn/p.pid"}},
		{"script-security 2\nup \"hook.sh 'a b' c # d\"", func(c *Config) any { return c.Scripts.Commands }, map[string][]string{"up": {"/etc/openvpn/hook.sh", "a b", "c"}}},
		{"script-security 3 execve", func(c *Config) any { return c.Scripts.Security }, 3},
		{"setenv a b\nsetenv-safe c \"d e\"\nsetenv f\nsetenv FORWARD_COMPATIBLE 1", func(c *Config) any { return c.SetEnv }, [][2]string{{"a", "b"}, {"OPENVPN_c", "d e"}, {"f", ""}}},

		// Postern's own.
		{"", func(c *Config) any {
			return []any{c.LDAP == nil, c.Users, c.LoginMustMatchCert, c.NAT, c.NoOffload, c.WantLogin()}
		}, []any{true, "", true, false, false, false}},
		{"nat yes\ntun-offload no\nlogin-must-match-cert no\ncontrol-socket /run/none/s", func(c *Config) any { return []any{c.NAT, c.NoOffload, c.LoginMustMatchCert, c.Control} }, []any{true, true, false, "/run/none/s"}},
		{"nat no\ntun-offload yes", func(c *Config) any { return []bool{c.NAT, c.NoOffload} }, []bool{false, false}},
		{"ldap-url ldaps://a.example\nldap-url ldaps://b.example:1636\nldap-user-base ou=people,dc=x\nldap-tls-ca ca.crt\nldap-bind-dn cn=reader,dc=x\nldap-bind-password-file password\nldap-user-filter (&(objectClass=person)(mail=%u))\nldap-require-group cn=vpn,dc=x\nldap-require-group cn=admins,dc=x\nldap-timeout 3",
			func(c *Config) any { l := *c.LDAP; l.CA.Bytes = nil; return l }, LDAP{
				URLs: []string{"ldaps://a.example", "ldaps://b.example:1636"}, CA: Material{Name: "/etc/openvpn/ca.crt"}, BindDN: "cn=reader,dc=x", BindPassword: "open sesame",
				UserBase: "ou=people,dc=x", UserFilter: "(&(objectClass=person)(mail=%u))", RequireGroups: []string{"cn=vpn,dc=x", "cn=admins,dc=x"}, Timeout: 3 * time.Second}},
		{"ldap-domain corp.example.\nldap-bind-dn reader@corp.example\nldap-bind-password-file password\nldap-bind-as %u@corp.example\nldap-user-base dc=x\nldap-group-base ou=g,dc=x\nldap-nested-groups no\nldap-address-attribute ip4 ip6\nldap-pool-attribute pool\nldap-route-attribute route\nldap-refresh 0\nldap-max-failures 8",
			func(c *Config) any { return []any{*c.LDAP, c.LDAPRefresh, c.LDAPMaxFailures, c.WantLogin()} }, []any{LDAP{
				Domain: "corp.example", BindDN: "reader@corp.example", BindPassword: "open sesame", BindAs: "%u@corp.example", UserBase: "dc=x", UserFilter: "(uid=%u)", Timeout: 5 * time.Second,
				GroupBase: "ou=g,dc=x", DirectGroups: true, Addr4Attr: "ip4", Addr6Attr: "ip6", PoolAttr: "pool", RouteAttr: "route"}, time.Duration(0), 8, true}},
		{"ldap-url ldaps://a.example\nldap-user-base dc=a\nldap-realm B.example\nldap-url ldaps://b.example\nldap-user-base dc=b\nldap-user-filter (mail=%u)\nldap-realm c\nldap-url ldaps://a.example\nldap-user-base dc=c",
			func(c *Config) any {
				var list []string
				for _, l := range c.Directories() {
					list = append(list, l.Realm+" "+l.URLs[0]+" "+l.UserBase+" "+l.UserFilter)
				}
				return list
			}, []string{" ldaps://a.example dc=a (uid=%u)", "b.example ldaps://b.example dc=b (mail=%u)", "c ldaps://a.example dc=c (uid=%u)"}},
		{"ldap-url ldaps://a.example\nldap-user-base dc=a\nldap-login certificate", func(c *Config) any { return []any{c.LoginByCert, c.WantLogin()} }, []any{true, false}},
		{"ldap-url ldap://a.example\nldap-starttls\nldap-user-base dc=x", func(c *Config) any { return *c.LDAP },
			LDAP{URLs: []string{"ldap://a.example"}, StartTLS: true, UserBase: "dc=x", UserFilter: "(uid=%u)", Timeout: 5 * time.Second}},
		{"ldap-url ldap://a.example\nldap-allow-cleartext\nldap-user-base dc=x", func(c *Config) any { return c.LDAP.AllowCleartext }, true},
		{"ldap-url ldap://[::1]:389\nldap-url ldap://localhost\nldap-url ldap://127.0.0.9/\nldap-user-base dc=x", func(c *Config) any { return c.LDAP.URLs }, []string{"ldap://[::1]:389", "ldap://localhost", "ldap://127.0.0.9"}},
		{"auth-users-file users\nverify-client-cert none\nusername-as-common-name", func(c *Config) any {
			return []any{c.Users, c.WantLogin(), c.LoginMustMatchCert, c.UsernameAsCN, c.VerifyClientCert}
		},
			[]any{"/etc/openvpn/users", true, false, true, CertNone}},
		{"auth-users-file users\nauth-gen-token", func(c *Config) any { return []any{c.GenToken, c.TokenLifetime, c.TokenRenewal, c.TokenExternal} },
			[]any{true, time.Duration(0), time.Hour, false}},
		{"auth-users-file users\nreneg-sec 7200\nauth-gen-token 600", func(c *Config) any { return []any{c.TokenLifetime, c.TokenRenewal} }, []any{10 * time.Minute, 2 * time.Hour}},
		{"auth-users-file users\nreneg-sec 0\nhand-window 30\nauth-gen-token 0 60 external-auth", func(c *Config) any { return []any{c.TokenRenewal, c.TokenExternal} }, []any{time.Minute, true}},
		{"auth-users-file users\nauth-gen-token external-auth", func(c *Config) any { return []any{c.TokenRenewal, c.TokenExternal} }, []any{time.Hour, true}},
		{"auth-users-file users\nauth-gen-token\nauth-gen-token-secret token.key\nauth-gen-token-format openvpn", func(c *Config) any { return []any{c.TokenSecret.Name, c.TokenOpenVPN} }, []any{"/etc/openvpn/token.key", true}},
		{"auth-users-file users\nauth-gen-token\n<auth-gen-token-secret>\n" + tokenKeyText + "</auth-gen-token-secret>", func(c *Config) any { return c.TokenSecret.Name }, "[inline]"},
		{"auth-users-file users\nauth-user-pass-optional", func(c *Config) any { return c.LoginOptional }, true},
		{"auth-users-file users\nauth-totp-file totp", func(c *Config) any { return []any{c.TOTPFile, c.TOTPOptional, c.TOTPPlace, c.TOTPText, c.TOTPUsed} },
			[]any{"/etc/openvpn/totp", false, TOTPLast, "", ""}},
		{"auth-users-file users\nauth-totp-file totp\nauth-totp optional\nauth-totp-place first\nauth-totp-text 'Your code:'\nauth-totp-used used",
			func(c *Config) any { return []any{c.TOTPOptional, c.TOTPPlace, c.TOTPText, c.TOTPUsed} }, []any{true, TOTPFirst, "Your code:", "/etc/openvpn/used"}},
		{"auth-users-file users\nverify-client-cert optional", func(c *Config) any { return []any{c.LoginMustMatchCert, c.VerifyClientCert} }, []any{true, CertOptional}},
	} {
		c, _, err := loadText(basic + tt.lines + "\n")
		if err != nil {
			t.Errorf("%s\nrefused: %v", tt.lines, err)
			continue
		}
		if got := tt.field(c); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s\ngives %v, want %v", tt.lines, got, tt.want)
		}
	}
}

// Addresses can be given one by one, without the macros.
func TestWithoutMacros(t *testing.T) {
	c, _ := mustLoad(t, minimal+"mode server\ntls-server\ntopology subnet\nifconfig 10.0.0.1 255.255.0.0\nifconfig-pool 10.0.1.0 10.0.1.99\n"+
		"ifconfig-ipv6 fd00::1/64 fd00::2\nifconfig-ipv6-pool fd00::1000/64\nping 10\nping-restart 50\npush \"topology subnet\"\n")
	if got, want := fmt.Sprint(c.Addr4, c.Pool4, c.Addr6, c.Pool6, c.Pool6Bits, c.Ping, c.PingRestart, c.Push),
		"10.0.0.1/16 {10.0.1.0 10.0.1.99} fd00::1/64 {fd00::1000 fd00::1:fff} 64 10s 50s [topology subnet]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// In net30 and p2p the second address of ifconfig is the other end, wherever the topology line stands.
func TestWithoutMacrosPointToPoint(t *testing.T) {
	const lines = minimal + "mode server\ntls-server\nifconfig 10.0.0.1 10.0.0.2\nifconfig-pool 10.0.1.4 10.0.1.99\nroute 10.0.1.0 255.255.255.0\nping 10\nping-restart 50\n"
	for _, topology := range []string{"net30", "p2p"} {
		c, _ := mustLoad(t, lines+"topology "+topology+"\n")
		if got, want := fmt.Sprint(c.Addr4, c.Peer4, c.Pool4, c.Routes[0].Net), "10.0.0.1/32 10.0.0.2 {10.0.1.4 10.0.1.99} 10.0.1.0/24"; got != want {
			t.Errorf("%s: got %s, want %s", topology, got, want)
		}
	}
	for line, want := range map[string]string{"topology p2p": "255.255.0.0 is a mask", "topology subnet": "10.0.0.1"} {
		second := "255.255.0.0"
		if line == "topology subnet" {
			second = "10.0.0.2"
		}
		_, _, err := loadText(minimal + "mode server\ntls-server\nifconfig 10.0.0.1 " + second + "\nkeepalive 10 60\n" + line + "\n")
		if err == nil || !strings.Contains(err.Error(), "ifconfig: ") || line == "topology p2p" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// The report tells what is different here, or worth knowing, of lines that are taken.
func TestNotices(t *testing.T) {
	for _, tt := range []struct{ lines, directive, want string }{
		{"cipher BF-CBC", "cipher", "ignored ciphers are negotiated from data-ciphers (AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305); BF-CBC is not available"},
		{"cipher AES-256-GCM", "cipher", "ignored ciphers are negotiated, and data-ciphers has it"},
		{"data-ciphers AES-256-GCM:AES-256-CBC:BF-CBC", "data-ciphers", "notice left out, since they are not available: BF-CBC"},
		{"tls-cipher ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA", "tls-cipher", "notice left out, since only ECDHE with AES-GCM or CHACHA20-POLY1305 is offered: AES128-SHA"},
		{"tls-ciphersuites TLS_AES_256_GCM_SHA384", "tls-ciphersuites", "notice all three suites"},
		{"comp-lzo no", "comp-lzo", "notice nothing is compressed"},
		{"compress migrate", "compress", "notice nothing is compressed"},
		{"key-direction 1", "key-direction", "notice it says nothing without tls-auth"},
		{"login-must-match-cert yes", "login-must-match-cert", "notice it says nothing without a login"},
		{"setenv opt frobnicate 1", "frobnicate", "ignored unknown directive; setenv opt makes it optional"},
		{"setenv opt vlan-pvid 7", "vlan-pvid", "ignored not supported yet; setenv opt makes it optional"},
		{"client-disconnect hook.sh", "client-disconnect", "notice it will not run: script-security is 1"},
		{"tmp-dir ccd", "tmp-dir", "ignored it is for scripts, and none run"},
		{"script-security 2\nclient-connect hook.sh\nuser nobody", "client-connect", "notice it runs as the user and group that the server becomes"},
		{"script-security 2\nauth-user-pass-verify hook.sh via-file", "auth-user-pass-verify", "notice only logins whose name is that of the certificate are asked about"},
		{"script-security 2\nauth-user-pass-verify hook.sh via-file\nlogin-must-match-cert no", "auth-user-pass-verify", "used "},
		{"ignore-unknown-option frobnicate\nfrobnicate 1", "frobnicate", "ignored unknown directive; ignore-unknown-option at /etc/openvpn/server.conf:7 allows it to be unknown"},
		{"ignore-unknown-option vlan-tagging\nvlan-tagging", "vlan-tagging", "ignored not supported yet; ignore-unknown-option at"},
		{"setenv FORWARD_COMPATIBLE 1\nfrobnicate 1", "frobnicate", "ignored unknown directive; setenv FORWARD_COMPATIBLE at /etc/openvpn/server.conf:7"},
		{"verb 3\nverb 4\nverb 5", "verb", "used "},
		{"ifconfig-pool-persist ipp.txt\nduplicate-cn", "ifconfig-pool-persist", "notice with duplicate-cn nothing is remembered"},
		{"route 10.1.2.3 255.255.255.0", "route", "notice taken as 10.1.2.0/24"},
		{"auth-users-file users\nauth-gen-token 43201", "auth-gen-token", "notice a password is good for 12 hours at most"},
		{"auth-gen-token-secret token.key", "auth-gen-token-secret", "notice it says nothing without auth-gen-token"},
		{"auth-users-file users\nauth-gen-token\nauth-gen-token-secret token.key\nauth-gen-token-format openvpn", "auth-gen-token-format", "notice such a token is not bound"},
		{"auth-users-file users\nauth-totp-file totp", "auth-totp-file", "notice at each renegotiation"},
		{"auth-users-file users\nverify-client-cert none", "verify-client-cert", "notice clients without a certificate have no name"},
		{"replay-window 8", "replay-window", "notice a window that small"},
		{"topology subnet", "topology", "used "},
	} {
		_, r := mustLoad(t, basic+tt.lines+"\n")
		if got := why(r, tt.directive); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%q: %s", tt.lines, got)
		}
	}
	_, r := mustLoad(t, minimal+"server 10.9.0.0 255.255.255.0\n")
	for directive, want := range map[string]string{
		"keepalive": "notice clients that vanish are never noticed: add `keepalive 10 60`",
		"topology":  "notice subnet is used, as in OpenVPN 2.7",
	} {
		if got := why(r, directive); !strings.HasPrefix(got, want) {
			t.Errorf("without %s: %s", directive, got)
		}
	}
}

// S095: a Config that is printed, on purpose or not, shows no secret.
func TestS095DumpsShowNoSecrets(t *testing.T) {
	c, _ := mustLoad(t, basic+"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-dn cn=y\nldap-bind-password-file password\n")
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	key := serverIdentity().key
	for _, dump := range []string{fmt.Sprintf("%v", c), fmt.Sprintf("%+v", *c), fmt.Sprintf("%#v", *c), fmt.Sprintf("%+v", *c.LDAP), fmt.Sprintf("%#v", *c.LDAP), fmt.Sprint(c.Key), fmt.Sprintf("%#v", c.Key), string(asJSON)} {
		for _, secret := range []string{"open sesame", key[60:100], fmt.Sprint([]byte(key)[:20]), "0x2d, 0x2d", base64.StdEncoding.EncodeToString([]byte(key))[:40]} {
			if strings.Contains(dump, strings.Trim(secret, "[]")) {
				t.Errorf("%q is in %.300s...", secret, dump)
			}
		}
	}
}

// A file that is not there is one plain error.
func TestLoadNoFile(t *testing.T) {
	c, r, err := Load(t.TempDir() + "/none.conf")
	var errs Errors
	if c != nil || r == nil || !errors.As(err, &errs) || len(errs) != 1 || !strings.Contains(err.Error(), "Error opening configuration file") {
		t.Errorf("got %v, %v, %v", c, r, err)
	}
	var p Problem
	if !errors.As(err, &p) || !strings.HasSuffix(p.File, "/none.conf") {
		t.Errorf("the first problem is %+v", p)
	}
}
