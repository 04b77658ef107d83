package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// broken are lines that spoil a configuration, the line (of these) that is to blame, with the directive, and the part
// of the message that says what to do. Line 0 means that the directive is missing.
var broken = []struct {
	lines     string
	line      int
	directive string
	remedy    string
}{
	// Syntax.
	{"push \"route 10.0.0.0", 1, "push", `No closing quotation (")`},
	{"log C:\\vpn.log", 1, "log", `write \\ for one backslash`},
	{"# " + strings.Repeat("x", 300), 1, "line", "long contents go into a file"},
	{"verb\x00 3", 1, "line", "not a text file"},
	{"frobnicate", 1, "frobnicate", "there is no such directive; remove the line"},
	{"keepalvie 10 60", 1, "keepalvie", "do you mean keepalive?"},
	{"\nmax-client 3", 2, "max-client", "do you mean max-clients?"},
	{"verb", 1, "verb", "write verb N"},
	{"verb 3 4", 1, "verb", "write verb N"},
	{"push route 10.0.0.0 255.0.0.0", 1, "push", "with quotes around the whole text"},
	{"<ca>\nno end", 1, "ca", "Endtag </ca> missing"},
	{"<verb>\n3\n</verb>", 1, "verb", "write it on one line, verb N"},
	{"config loop.conf", 1, "config", "does a configuration file include itself?"},
	{"config none.conf", 1, "config", "Error opening configuration file"},
	{"cd nowhere", 1, "cd", "there is no directory /etc/openvpn/nowhere"},
	{"setenv opt", 1, "setenv", "needs a directive behind it"},
	{"setenv a-b c", 1, "setenv", "letters, digits and _"},
	// Role and transport.
	{"mode p2p", 1, "mode", "only `mode server` is possible"},
	{"client", 1, "client", "a client's file"},
	{"remote vpn.example.org 1194", 1, "remote", "remove the line"},
	{"nobind", 1, "nobind", "remove the line"},
	{"<connection>\nremote a\n</connection>", 1, "connection", "remove the block"},
	{"http-proxy 10.0.0.1 80", 1, "http-proxy", "remove the line"},
	{"proto tcp-client", 1, "proto", "write tcp-server"},
	{"proto sctp", 1, "proto", "write udp, udp6, tcp-server or tcp6-server"},
	{"port 0", 1, "port", "not a number from 1 to 65535"},
	{"port 65536", 1, "port", "not a number from 1 to 65535"},
	{"lport ssh", 1, "lport", "Bad port number"},
	{"local vpn.example.org", 1, "local", "write the IPv4 or IPv6 address"},
	{"local 10.0.0.1\nlocal 10.0.0.1", 2, "local", "give one of them another port"},
	{"local 10.0.0.1\nproto udp6", 1, "local", "different address families"},
	{"bind both", 1, "bind", "not one of: ipv6only"},
	{"socket-flags TCP_CORK", 1, "socket-flags", "only TCP_NODELAY"},
	{"multihome all", 1, "multihome", "not one of: same-interface"},
	{"bind-dev eth/1", 1, "bind-dev", "cannot be the name of a network device"},
	{"mark 0", 1, "mark", "not a number from 1"},
	{"mtu-disc perhaps", 1, "mtu-disc", "not one of: no, maybe, yes"},
	{"sndbuf -1", 1, "sndbuf", "not a number from 0"},
	{"port-share 127.0.0.1 443", 1, "port-share", "only makes sense over TCP"},
	{"proto tcp-server\nport-share 127.0.0.1 0", 2, "port-share", "Bad port number"},
	{"proto tcp-server\nport-share http://web 443", 2, "port-share", "is no host"},
	{"proto tcp-server\nport-share 127.0.0.1 443 nowhere", 2, "port-share", "create the directory"},
	{"proxy-protocol-from 192.0.2.1", 1, "proxy-protocol-from", "only makes sense over TCP"},
	{"proto tcp-server\nproxy-protocol-from balancer", 2, "proxy-protocol-from", "neither an address nor a network"},
	{"proto tcp-server\nproxy-protocol-from 192.0.2.1/24", 2, "proxy-protocol-from", "write 192.0.2.0/24"},
	{"proto tcp-server\nproxy-protocol-from 0.0.0.0/0", 2, "proxy-protocol-from", "let everybody choose"},
	// Device and addresses.
	{"dev null", 1, "dev", "write `dev tun`"},
	{"dev vpn0", 1, "dev", "add `dev-type tun`"},
	{"dev a/b", 1, "dev", "cannot be the name of a network device"},
	{"dev-type tub", 1, "dev-type", "write tun or tap"},
	{"lladdr 02:00:00:00:00:01", 1, "lladdr", "write `dev tap`"},
	{"dev tap\nlladdr 03:00:00:00:00:01", 2, "lladdr", "not the hardware address of one device"},
	{"dev tap\nlladdr 02:00:00:00:00:01:02:03", 2, "lladdr", "not the hardware address of one device"},
	{"dev tap\nscript-security 2\nlearn-address /bin/true", 3, "learn-address", "no script is asked about those"},
	{"dev tap\nvlan-tagging", 2, "vlan-tagging", "clients are all in one network"},
	{"dev-node unix:/bin/x", 1, "dev-node", "remove the line"},
	{"topology net30\nserver 10.8.0.0 255.255.255.0 nopool\nifconfig-pool 10.8.0.4 10.8.0.9 255.255.255.0", 3, "ifconfig-pool", "leave it out"},
	{"topology ring", 1, "topology", "write subnet"},
	{"server 10.8.0.1 255.255.255.0", 1, "server", "the network is 10.8.0.0"},
	{"server 10.8.0.0 255.0.255.0", 1, "server", "its ones must stand together"},
	{"server 10.0.0.0 255.254.0.0", 1, "server", "/16) or higher"},
	{"server 10.8.0.0 255.255.255.252", 1, "server", "(/29) or lower"},
	{"server vpn 255.255.255.0", 1, "server", "not an IPv4 address"},
	{"server 10.8.0.0 255.255.255.0 pool", 1, "server", "not one of: nopool"},
	{"server-ipv6 fd00::/48", 1, "server-ipv6", "between /64 and /124"},
	{"server-ipv6 10.0.0.0/24", 1, "server-ipv6", "not an IPv6 network such as fd00:1::/64"},
	{"server-ipv6 fd00::f/124", 1, "server-ipv6", "write the network's first address, fd00::/124"},
	{"server-bridge 10.8.0.4 255.255.255.0 10.8.0.50 10.8.0.60", 1, "server-bridge", "needs a tap device"},
	{"dev tap\nserver-bridge 10.8.0.4 255.255.255.0 10.8.0.50 10.8.0.60", 2, "server-bridge", "remove server"},
	{"dev tap\nserver-bridge 10.8.0.4 255.255.255.0", 2, "server-bridge", "write IP MASK START END"},
	{"dev tap\nserver-bridge gateway", 2, "server-bridge", "write IP MASK START END"},
	{"dev tap\nserver-bridge 10.8.0.4 255.255.255.0 10.8.1.50 10.8.1.60", 2, "server-bridge", "not in the bridge's network"},
	{"dev tap\nserver-bridge 10.8.0.4 255.255.255.0 10.8.0.60 10.8.0.50", 2, "server-bridge", "ends before it begins"},
	{"dev tap\nserver-bridge 10.8.0.4 255.255.255.0 10.8.0.2 10.8.0.50", 2, "server-bridge", "is among the clients'"},
	{"ifconfig-pool 10.9.0.4 10.9.0.9", -4, "server", "remove ifconfig-pool"},
	{"ifconfig 10.9.0.1 255.255.255.0", -4, "server", "remove that, or this line"},
	{"ifconfig-ipv6-pool fd00::/64", 1, "ifconfig-ipv6-pool", "write server-ipv6 in place of both"},
	{"server 10.9.0.0 255.255.255.0 nopool\nifconfig-pool-persist ipp.txt", 2, "ifconfig-pool-persist", "remove the line, or add `server`"},
	{"server 10.9.0.0 255.255.255.0 nopool\nifconfig-pool 10.9.0.1 10.9.0.9", 2, "ifconfig-pool", "leave it out"},
	{"server 10.9.0.0 255.255.255.0 nopool\nifconfig-pool 10.9.1.1 10.9.1.9", 2, "ifconfig-pool", "outside the server's network 10.9.0.0/24"},
	{"server 10.9.0.0 255.255.255.0 nopool\nifconfig-pool 10.9.0.9 10.9.0.8", 2, "ifconfig-pool", "write the lower address first"},
	{"ifconfig-push-constraint 10.9.0.1 255.255.255.0", 1, "ifconfig-push-constraint", "the network is 10.9.0.0"},
	{"tun-mtu 67", 1, "tun-mtu", "not a number from 68 to 65535"},
	{"tun-mtu 1279\nserver-ipv6 fd00::/64", 1, "tun-mtu", "no IPv6 on a device with an MTU below 1280"},
	{"tun-mtu 1400\nlink-mtu 1500", 1, "tun-mtu", "remove link-mtu"},
	{"mssfix 50", 1, "mssfix", "write 0 to switch it off"},
	{"mssfix 1400 sometimes", 1, "mssfix", "neither mtu nor fixed"},
	{"fragment 1300", 1, "fragment", "remove the line"}, // S079
	{"shaper 1000", 1, "shaper", "remove the line"},
	// Routes.
	{"route 10.0.0.0 255.255.255.0 net_gateway", 1, "route", "routes of a server lead into it"},
	{"route example.org", 1, "route", "host names are not looked up"},
	{"route-ipv6 fd00::1", 1, "route-ipv6", "not an IPv6 network"},
	{"redirect-gateway def1", 1, "redirect-gateway", "push \"redirect-gateway def1\""},
	{"iroute 10.0.0.0 255.255.255.0", 1, "iroute", "only in a file of client-config-dir"},
	{"ifconfig-push 10.9.0.9 255.255.255.0", 1, "ifconfig-push", "only in a file of client-config-dir"},
	// Clients.
	{"keepalive 10 12", 1, "keepalive", "keepalive 10 60 is a good choice"},
	{"ping 5", -5, "keepalive", "remove that line"},
	{"ccd-exclusive", 1, "ccd-exclusive", "needs client-config-dir"},
	{"client-config-dir none", 1, "client-config-dir", "create the directory"},
	{"client-config-dir ca.crt", 1, "client-config-dir", "is not a directory"},
	{"max-clients 0", 1, "max-clients", "not a number from 1"},
	{"explicit-exit-notify 3", 1, "explicit-exit-notify", "clients come back to it"},
	{"script-security 2\nclient-connect /bin/x", 2, "client-connect", "PATH is not searched, write its path"},
	{"script-security 2\nclient-connect junk", 2, "client-connect", "chmod 755"},
	{"script-security 2\nclient-connect ccd", 2, "client-connect", "arguments belong behind it, in the same quotes"},
	{"script-security 2\nclient-connect hook.sh arg", 2, "client-connect", "quotes around the whole command"},
	{"script-security 2\nclient-connect \"hook.sh 'arg\"", 2, "client-connect", "No closing quotation"},
	{"script-security 2\nclient-connect ''", 2, "client-connect", "there is no program in the command"},
	{"client-connect hook.sh", 1, "client-connect", "write `script-security 2`"},
	{"script-security 1\ntls-verify hook.sh", 2, "tls-verify", "write `script-security 2`"},
	{"script-security 2\ntmp-dir /none\nup hook.sh", 2, "tmp-dir", "create the directory"},
	{"script-security 4", 1, "script-security", "not a number from 0 to 3"},
	{"script-security 2 system", 1, "script-security", "remove the word"},
	{"status /no/such/status.log", 1, "status", "create /no/such"},
	// TLS.
	{"ca none.crt", 1, "ca", "create it, or correct the name"},
	{"ca junk", 1, "ca", "is it the right file?"},
	{"cert old.crt\nkey old.key", 1, "cert", "renew it"},
	{"key other.key", 1, "key", "does not go with cert at /etc/openvpn/server.conf:2"},
	{"askpass", 1, "askpass", "write it into a file of mode 0600"},
	{"x509-username-field shoeSize", 1, "x509-username-field", "take one of CN"},
	{"remote-cert-ku 80 zz", 1, "remote-cert-ku", "two hexadecimal digits"},
	{"remote-cert-eku clients", 1, "remote-cert-eku", "write its number"},
	{"remote-cert-eku serverAuth", 1, "remote-cert-eku", "write 1.3.6.1.5.5.7.3.2"},
	{"verify-hash 00:11", 1, "verify-hash", "not a fingerprint of 20 bytes"},
	{"capath nowhere", 1, "capath", "create the directory"},
	{"connect-freq 3", 1, "connect-freq", "write connect-freq N SECONDS"},
	{"connect-freq 0 10", 1, "connect-freq", "not a number from 1"},
	{"proto tcp\nconnect-freq 3 10", 2, "connect-freq", "only works over UDP"},
	{"tls-crypt-v2-max-age 0", 1, "tls-crypt-v2-max-age", "not a number from 1"},
	{"key encrypted.key", 1, "key", "decrypt the key with openssl pkey"},
	{"key ca.crt", 1, "key", "is it the right file?"},
	{"crl-verify ca.crt", 1, "crl-verify", "is it the right file?"},
	{"crl-verify none dir", 1, "crl-verify", "create the directory"},
	{"tls-auth ca.crt 0", 1, "tls-auth", "openvpn --genkey"},
	{"tls-auth ta.key 2", 1, "tls-auth", "the direction is 0 or 1"},
	{"tls-crypt-v2 tc.key", 1, "tls-crypt-v2", "openvpn --genkey tls-crypt-v2-server"},
	{"tls-auth ta.key\ntls-crypt tc.key", 2, "tls-crypt", "mutually exclusive: remove one"},
	{"tls-version-min 1.4", 1, "tls-version-min", "write 1.2 or 1.3"},
	{"tls-version-min 1.3\ntls-version-max 1.2", 1, "tls-version-min", "lower it, or remove tls-version-max"},
	{"tls-version-max 1.1", 1, "tls-version-max", "write 1.2 or 1.3"},
	{"tls-cipher AES256-SHA:DHE-RSA-AES256-SHA", 1, "tls-cipher", "take ECDHE with AES-GCM"},
	{"tls-ciphersuites TLS_AES_128_CCM_SHA256", 1, "tls-ciphersuites", "take of TLS_AES_128_GCM_SHA256"},
	{"tls-groups X448", 1, "tls-groups", "take of X25519MLKEM768"},
	{"remote-cert-tls server", 1, "remote-cert-tls", "write `remote-cert-tls client`"},
	{"ns-cert-type client", 1, "ns-cert-type", "write `remote-cert-tls client`"},
	{"peer-fingerprint 00:11", 1, "peer-fingerprint", "openssl x509 -fingerprint -sha256"},
	{"client-cert-not-required", 1, "client-cert-not-required", "write `verify-client-cert none`"},
	{"verify-client-cert none", 1, "verify-client-cert", "must be used with a login"},
	{"verify-client-cert never", 1, "verify-client-cert", "none, optional, require"},
	{"reneg-sec 10 20", 1, "reneg-sec", "must not be above the first"},
	{"pkcs12 server.p12", 1, "pkcs12", "already stands for cert and key"},
	// Data channel.
	{"auth MD5\ndata-ciphers AES-256-GCM:AES-256-CBC", 1, "auth", "write `auth SHA256`"},
	{"data-ciphers CAMELLIA-256-CBC:BF-CBC", 1, "data-ciphers", "add one of AES-256-GCM"},
	{"data-ciphers AES-256-GCM:ROT13", 1, "data-ciphers", "there is no such cipher"},
	{"data-ciphers " + strings.Repeat("AES-256-GCM:", 11), 1, "data-ciphers", "leave some out"},
	{"data-ciphers-fallback ROT13", 1, "data-ciphers-fallback", "or remove the line"},
	{"auth none", 1, "auth", "write `auth SHA256`"},
	{"auth CRC32", 1, "auth", "write SHA1, SHA224"},
	{"ncp-disable", 1, "ncp-disable", "data-ciphers-fallback"},
	{"comp-lzo maybe", 1, "comp-lzo", "not one of: no, yes, adaptive"},
	{"compress zip", 1, "compress", "not one of: migrate"},
	{"allow-compression maybe", 1, "allow-compression", "not one of: no"},
	{"secret static.key", 1, "secret", "use `ca`, `cert` and `key`"},
	{"compat-mode 2.3.6", 1, "compat-mode", "update those clients"},
	{"key-method 1", 1, "key-method", "remove the line here and in profiles"},
	// Logins.
	{"script-security 2\nauth-user-pass-verify hook.sh via-env", 2, "auth-user-pass-verify", "write `script-security 3`, or via-file"},
	{"script-security 2\nauth-user-pass-verify hook.sh", 2, "auth-user-pass-verify", "write auth-user-pass-verify COMMAND via-env|via-file"},
	{"script-security 2\nauth-user-pass-verify hook.sh via-mail", 2, "auth-user-pass-verify", "neither via-env nor via-file"},
	{"setenv opt auth-user-pass-verify /bin/x via-file", 1, "auth-user-pass-verify", "there is no program /bin/x"},
	{"setenv FORWARD_COMPATIBLE 1\nvlan-pvid 7", 2, "vlan-pvid", "not supported yet"},
	{"plugin openvpn-plugin-auth-pam.so login", 1, "plugin", "in place of PAM"},
	{"plugin mine.so", 1, "plugin", "plugins cannot be loaded"},
	{"plugin /usr/lib/openvpn/radiusplugin.so radius.cnf", 1, "plugin", "a script that asks it"},
	{"plugin openvpn-auth-ldap.so", 1, "plugin", "the plugin's file is missing"},
	{"plugin openvpn-auth-ldap.so none", 1, "plugin", "create it, or correct the name"},
	{"plugin openvpn-auth-ldap.so ccd", 1, "plugin", "is no file"},
	{"plugin openvpn-auth-ldap.so junk\nplugin openvpn-auth-ldap.so junk", 2, "plugin", "keep one line"},
	{"plugin openvpn-auth-ldap.so junk\nldap-url ldaps://a\nldap-user-base dc=a", 1, "plugin", "keep one of the two"},
	{"username-as-common-name", 1, "username-as-common-name", "must be used with a login"},
	{"auth-users-file none", 1, "auth-users-file", "postern user add"},
	{"auth-users-file users\nverify-client-cert none\nlogin-must-match-cert yes", 3, "login-must-match-cert", "write no"},
	{"login-must-match-cert maybe", 1, "login-must-match-cert", "neither yes nor no"},
	{"ldap-starttls", 1, "ldap-starttls", "add ldap-url"},
	{"ldap-refresh 30", 1, "ldap-refresh", "add ldap-url"},
	{"ldap-realm corp.example", 1, "ldap-realm", "add ldap-url below"},
	{"ldap-realm @corp", 1, "ldap-realm", "is not the end of a login"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-realm b.example\nldap-url ldaps://b.example", 4, "ldap-url", "ldap-user-base is missing"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-realm b\nldap-url ldaps://b.example\nldap-user-base dc=y\nldap-realm B", 6, "ldap-realm", "there is such a realm already"},
	{"ldap-domain corp\nldap-user-base dc=x", 1, "ldap-domain", "is not a domain such as corp.example"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-as alice@corp.example", 3, "ldap-bind-as", "put %u where the login belongs"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-as \"%u of corp\"", 3, "ldap-bind-as", "neither a distinguished name nor a name"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-tls-cert ca.crt", 1, "ldap-url", "ldap-tls-cert and ldap-tls-key belong together"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-address-attribute (ip)", 3, "ldap-address-attribute", "is not the name of an attribute"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-login code", 3, "ldap-login", "is not one of: password, certificate"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-login certificate\nauth-users-file users", 4, "auth-users-file", "nobody gives a password"},
	{"ldap-url ldaps://a.example", 1, "ldap-url", "ldap-user-base is missing"},
	{"ldap-url http://a.example\nldap-user-base dc=x", 1, "ldap-url", "write ldaps://HOST or ldap://HOST"},
	{"ldap-url ldap://a.example\nldap-user-base dc=x", 1, "ldap-url", "add ldap-starttls"},
	{"ldap-url ldaps://a.example/dc=x\nldap-user-base dc=x", 1, "ldap-url", "the base goes into ldap-user-base"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-starttls", 3, "ldap-starttls", "remove this line"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-dn cn=y", 1, "ldap-url", "write both"},
	{"ldap-url ldaps://a.example\nldap-user-base people", 2, "ldap-user-base", "such as ou=people,dc=example,dc=org"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-user-filter (uid=alice)", 3, "ldap-user-filter", "put %u where the login belongs"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-user-filter (uid=%u", 3, "ldap-user-filter", "balanced brackets"},
	{"dns-forward name.example", 1, "dns-forward", "not the address of a name server"},
	{"dns-forward 10.0.0.53:0", 1, "dns-forward", "not the address of a name server"},
	{"dns-forward 10.0.0.53 a..b", 1, "dns-forward", "not the name of a zone"},
	{"dns-forward 10.0.0.53 .", 1, "dns-forward", "not the name of a zone"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-user-filter (uid=%u)(a=b)", 3, "ldap-user-filter", "balanced brackets"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-dn cn=y\nldap-bind-password-file empty", 4, "ldap-bind-password-file", "write the password into it"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-dn cn=y\nldap-bind-password-file two-lines", 4, "ldap-bind-password-file", "only the password belongs into it"},
	{"auth-gen-token", 1, "auth-gen-token", "must be used with a login"},
	{"auth-user-pass-optional", 1, "auth-user-pass-optional", "must be used with a login"},
	{"auth-users-file users\nauth-gen-token soon", 2, "auth-gen-token", "not a number from 0"},
	{"auth-users-file users\nauth-gen-token 0 0", 2, "auth-gen-token", "not a number from 1"},
	{"auth-users-file users\nauth-gen-token 0 119", 2, "auth-gen-token", "at least twice hand-window, 120"},
	{"auth-users-file users\nauth-gen-token external-auth 0", 2, "auth-gen-token", "not `external-auth`"},
	{"auth-users-file users\nauth-gen-token 0 300 internal-auth", 2, "auth-gen-token", "not `external-auth`"},
	{"auth-users-file users\nauth-gen-token\nreneg-sec 0", 2, "auth-gen-token", "auth-gen-token 0 3600"},
	{"auth-users-file users\nauth-gen-token\nauth-gen-token-secret ta.key", 3, "auth-gen-token-secret", "postern key auth-token"},
	{"auth-users-file users\nauth-gen-token\nauth-gen-token-format openvpn", 3, "auth-gen-token-format", "add auth-gen-token-secret"},
	{"auth-users-file users\nauth-gen-token\nauth-gen-token-format jwt", 3, "auth-gen-token-format", "not one of: postern, openvpn"},
	{"auth-totp-file totp", 1, "auth-totp-file", "add a login"},
	{"auth-users-file users\nauth-totp-file none", 2, "auth-totp-file", "postern user totp"},
	{"auth-users-file users\nauth-totp required", 2, "auth-totp", "add auth-totp-file"},
	{"auth-users-file users\nauth-totp-used used", 2, "auth-totp-used", "add auth-totp-file"},
	{"auth-users-file users\nauth-totp-file totp\nauth-totp maybe", 3, "auth-totp", "not one of: required, optional"},
	{"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-user-filter (|(uid=%u)(mail=%u))\nlogin-must-match-cert no\nauth-totp-file totp\nauth-totp optional", 6, "auth-totp", "write required"},
	{"auth-users-file users\nauth-totp-file totp\nauth-totp-place middle", 3, "auth-totp-place", "not one of: last, first, apart"},
	{"auth-users-file users\nauth-totp-file totp\nauth-totp-text 'a \"code\"'", 3, "auth-totp-text", "leave them out"},
	{"auth-users-file users\nauth-totp-file totp\nauth-totp-used none/used", 3, "auth-totp-used", "the directory does not exist"},
	// Daemon.
	{"daemon my vpn", 1, "daemon", "write daemon [NAME]"},
	{"daemon \"my vpn\"", 1, "daemon", "no blank"},
	{"remap-usr1 SIGINT", 1, "remap-usr1", "not one of: SIGHUP, SIGTERM"},
	{"nice 20", 1, "nice", "from -20 to 19"},
	{"chroot /var/empty", 1, "chroot", "`user` and `group` drop privileges"},
	{"management localhost 7505", 1, "management", "any program of this host could manage the server"},
	{"management 10.8.0.1 7505 mgmt-password", 1, "management", "can be reached from elsewhere"},
	{"management :: 7505 mgmt-password", 1, "management", "can be reached from elsewhere"},
	{"management tunnel 7505 mgmt-password", 1, "management", "must not manage their server"},
	{"management 127.0.0.1 7505 stdin", 1, "management", "nobody is there to type the password"},
	{"management gateway.example 7505 two-lines", 1, "management", "host names are not looked up"},
	{"management 127.0.0.1 0 two-lines", 1, "management", "not a number from 1 to 65535"},
	{"management /run/m.sock 7505", 1, "management", "with unix behind it, a path"},
	{`management "" unix`, 1, "management", "must not be empty"},
	{"management m.sock unix empty", 1, "management", "write the password into its first line"},
	{"management m.sock unix nowhere", 1, "management", "cannot be read"},
	{"management-hold", 1, "management-hold", "says nothing without management"},
	{"management 127.0.0.1 7505 two-lines\nmanagement-client-user alice", 2, "management-client-user", "nobody can tell who connects"},
	{"management-client", 1, "management-client", "`management PATH unix`"},
	{"verb 12", 1, "verb", "not a number from 0 to 11"},
	{"status-version 4", 1, "status-version", "not a number from 1 to 3"},
	{"show-ciphers", 1, "show-ciphers", "remove the line"},
	{"nat on", 1, "nat", "neither yes nor no"},
}

// S095: every broken configuration is refused with file, line, directive and a remedy, and all its problems at once.
func TestS095BrokenConfigurations(t *testing.T) {
	if len(broken) < 100 {
		t.Errorf("only %d broken configurations", len(broken))
	}
	base := strings.Count(basic, "\n")
	for _, tt := range broken {
		line := tt.line + base
		if tt.line < 0 {
			line = -tt.line // one of basic's own lines
		}
		c, r, err := loadText(basic + tt.lines + "\n")
		var errs Errors
		if c != nil || !errors.As(err, &errs) {
			t.Errorf("%q: loaded %v, error %v", tt.lines, c != nil, err)
			continue
		}
		if !slices.ContainsFunc(errs, func(p Problem) bool {
			return (p.File == "/etc/openvpn/server.conf" || p.File == "/etc/openvpn/loop.conf") && (p.Line == line || p.File != "/etc/openvpn/server.conf") &&
				(p.Directive == tt.directive) && strings.Contains(p.Message, tt.remedy)
		}) {
			t.Errorf("%q: want line %d, %s, %q; got\n%v", tt.lines, line, tt.directive, tt.remedy, err)
		}
		if len(errs) > 1 {
			t.Errorf("%q: one mistake, but %d problems:\n%v", tt.lines, len(errs), err)
		}
		if r.Count(Refused) == 0 {
			t.Errorf("%q: the report refuses nothing", tt.lines)
		}
	}
}

func TestMissingDirectives(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "/etc/openvpn/server.conf: server: this is no server's configuration"},
		{"ca ca.crt\ncert server.crt\nserver 10.9.0.0 255.255.255.0\n", "/etc/openvpn/server.conf: key: the server has no private key of its own: add `key FILE`"},
		{"cert server.crt\nkey server.key\nserver 10.9.0.0 255.255.255.0\n", "/etc/openvpn/server.conf: ca: You must define CA file"},
		{minimal + "mode server\n", "/etc/openvpn/server.conf:4: mode: mode server requires tls-server"},
		{minimal + "mode server\ntls-server\n", "/etc/openvpn/server.conf: server: the network inside is missing"},
		{minimal + "client-config-dir ccd\n", "/etc/openvpn/server.conf: server: this is no server's configuration"},
		{minimal + "server 10.9.0.0 255.255.255.0\nkeepalive 10 12\n", "/etc/openvpn/server.conf:5: keepalive: the second parameter (restart timeout=12) must be at least twice"},
	} {
		_, _, err := loadText(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
}

// All problems are told at once, in the order of the lines.
func TestAllProblemsAtOnce(t *testing.T) {
	_, _, err := loadText("verb 99\nca none\nfrobnicate\ncert server.crt\nkey server.key\nproto sctp\nserver 10.9.0.0 255.255.255.0\ncomp-lzo maybe\nkeepalive 1 1\n")
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range errs {
		got = append(got, p.Directive)
	}
	if want := []string{"verb", "ca", "frobnicate", "proto", "comp-lzo", "keepalive"}; !slices.Equal(got, want) {
		t.Errorf("problems with %q, want %q", got, want)
	}
}

// S095: neither a report nor an error repeats what may be a secret.
func TestS095NoSecretsInReports(t *testing.T) {
	const secret = "hunter2"
	for _, lines := range []string{
		"setenv PASSWORD " + secret,
		"setenv-safe PASSWORD " + secret,
		"ldap-bind-password " + secret,
		"ldap-url ldaps://reader:" + secret + "@a.example\nldap-user-base dc=x",
		"ldap-url ldaps://reader:" + secret + "@a.example:x\nldap-user-base dc=x",
		"push \"auth-token " + secret + "\"",
		"<key>\n" + secret + "\n</key>",
		"<tls-crypt>\n" + secret + "\n</tls-crypt>",
		"<auth-user-pass>\nalice\n" + secret + "\n</auth-user-pass>",
		"password = " + secret,
		"ldap-bind-password \"" + secret,
	} {
		_, r, err := loadText(basic + lines + "\n")
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error tells it: %v", lines, err)
		}
		for _, e := range r.Entries {
			if strings.Contains(e.Text+e.Why, secret) {
				t.Errorf("%q: the report tells it: %+v", lines, e)
			}
		}
	}
}

// S108: what others can read or replace is refused for directory secrets and user files, and told for keys.
func TestS108FilePermissions(t *testing.T) {
	write := func(t *testing.T, name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		secret  os.FileMode
		dir     os.FileMode
		link    bool
		key     os.FileMode
		refused string
		noticed bool
	}{
		{name: "private", secret: 0o600, dir: 0o755, key: 0o600},
		{name: "for a group", secret: 0o640, dir: 0o750, key: 0o600},
		{name: "readable", secret: 0o604, dir: 0o755, key: 0o600, refused: "chmod 600"},
		{name: "writable", secret: 0o602, dir: 0o755, key: 0o600, refused: "chmod 600"},
		{name: "writable for a group", secret: 0o620, dir: 0o755, key: 0o600, refused: "chmod 600"},
		{name: "link", secret: 0o600, dir: 0o755, link: true, key: 0o600, refused: "symbolic link"},
		{name: "directory of all", secret: 0o600, dir: 0o777, key: 0o600, refused: "put it elsewhere"},
		{name: "readable key", secret: 0o600, dir: 0o755, key: 0o644, noticed: true},
	} {
		for _, directive := range []string{"ldap-bind-password-file", "auth-users-file", "auth-totp-file"} {
			t.Run(tt.name+" "+directive, func(t *testing.T) {
				top := t.TempDir()
				dir := filepath.Join(top, "d")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				id := serverIdentity()
				write(t, filepath.Join(top, "ca.crt"), id.cert, 0o644)
				write(t, filepath.Join(top, "server.crt"), id.cert, 0o644)
				write(t, filepath.Join(top, "server.key"), id.key, tt.key)
				secret := filepath.Join(dir, "secret")
				if tt.link {
					write(t, filepath.Join(dir, "other"), "open sesame\n", tt.secret)
					if err := os.Symlink("other", secret); err != nil {
						t.Fatal(err)
					}
				} else {
					write(t, secret, "open sesame\n", tt.secret)
				}
				if err := os.Chmod(dir, tt.dir); err != nil {
					t.Fatal(err)
				}
				conf := filepath.Join(top, "server.conf")
				write(t, conf, basic+"ldap-url ldaps://a.example\nldap-user-base dc=x\nldap-bind-dn cn=y\nldap-bind-password-file d/secret\nauth-users-file d/secret\nauth-totp-file d/secret\nauth-gen-token\n", 0o644)
				c, r, err := Load(conf)
				if tt.refused != "" {
					if err == nil || !strings.Contains(err.Error(), directive+": ") || !strings.Contains(err.Error(), tt.refused) {
						t.Fatalf("got %v, want a refusal of %s with %q", err, directive, tt.refused)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if c.LDAP.BindPassword != "open sesame" || c.Users != secret {
					t.Errorf("password %q, users %q", c.LDAP.BindPassword, c.Users)
				}
				if got := strings.Contains(why(r, "key"), "chmod 600"); got != tt.noticed {
					t.Errorf("of the key the report says %q", why(r, "key"))
				}
			})
		}
	}
}

// S048: whoever can read the key of tokens can be anybody.
func TestS048TokenSecretIsPrivate(t *testing.T) {
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o620: true} {
		dir := t.TempDir()
		id := serverIdentity()
		for name, text := range map[string]string{
			"ca.crt": id.cert, "server.crt": id.cert, "server.key": id.key, "users": "", "token.key": tokenKeyText,
			"server.conf": basic + "auth-users-file users\nauth-gen-token\nauth-gen-token-secret token.key\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(dir, "token.key"), mode); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(filepath.Join(dir, "server.conf")); (err != nil) != refused || refused && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
