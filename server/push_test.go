package server

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/server/config"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// peerOf is what a version of a client says about itself, on another system if one is named.
func peerOf(p *ctltest.Profile, platform string) tlsctl.PeerInfo {
	var c ctltest.Config
	p.Apply(&c)
	text := c.PeerInfo
	if platform != "" {
		var lines []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "IV_PLAT=") {
				line = "IV_PLAT=" + platform + "\n"
			}
			lines = append(lines, line)
		}
		text = strings.Join(lines, "")
	}
	return tlsctl.ParsePeerInfo(text)
}

func subnetConfig() *config.Config {
	return &config.Config{Addr4: netip.MustParsePrefix("10.8.0.1/24"), Addr6: netip.MustParsePrefix("fd00:8::1/64"), Pool6Bits: 64}
}

// Each client is pushed what it takes, in the form that it takes.
func TestPushList(t *testing.T) {
	const both, only4 = "10.8.0.2 fd00:8::2", "10.8.0.2"
	const end4, end6 = "ifconfig 10.8.0.2 255.255.255.0", "ifconfig-ipv6 fd00:8::2/64 fd00:8::1"
	for _, c := range []struct {
		name, push string // options are separated by commas
		to         *ctltest.Profile
		platform   string
		addresses  string
		want       string
	}{
		{"nothing to do", "route 172.16.0.0 255.255.0.0,ping 10", ctltest.V26, "", both, "route 172.16.0.0 255.255.0.0,ping 10," + end6 + "," + end4},
		{"only IPv6", "ping 10", ctltest.V26, "", "fd00:8::2", "ping 10," + end6},

		// Name servers.
		{"dhcp-option, 2.4", "dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example", ctltest.V24, "", "", "dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example"},
		{"dhcp-option, 2.6", "dhcp-option DNS 10.8.0.1", ctltest.V26, "", "", "dhcp-option DNS 10.8.0.1"},
		{"dhcp-option, 2.7", "ping 10,dhcp-option DNS 10.8.0.1,ping-restart 60,dhcp-option DNS6 fd00::53", ctltest.V27, "", "", "ping 10,dns server 0 address 10.8.0.1 fd00::53,ping-restart 60"},
		{"dhcp-option, 3.8", "dhcp-option DNS 10.8.0.1", ctltest.V38, "", "", "dhcp-option DNS 10.8.0.1"},
		{"dhcp-option, 3.9", "dhcp-option DNS 10.8.0.1", ctltest.V39, "", "", "dns server 0 address 10.8.0.1"},
		{"nine addresses, 2.7", strings.Repeat("dhcp-option DNS 10.8.0.1,", 8) + "dhcp-option DNS 10.8.0.2", ctltest.V27, "", "",
			"dns server 0 address" + strings.Repeat(" 10.8.0.1", 8) + ",dns server 1 address 10.8.0.2"},
		{"other dhcp-options stay", "dhcp-option WINS 10.8.0.1,dhcp-option DISABLE-NBT", ctltest.V27, "", "", "dhcp-option WINS 10.8.0.1,dhcp-option DISABLE-NBT"},
		{"domains in a split tunnel", "dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example", ctltest.V311, "", "", "dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example"},
		{"domains in a full tunnel", "redirect-gateway def1 ipv6 block-local,dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example,dhcp-option DOMAIN-SEARCH b.example", ctltest.V311, "", both,
			"redirect-gateway def1 ipv6 block-local,dns server 0 address 10.8.0.1,dns search-domains a.example b.example," + end6 + "," + end4},
		{"dns, 2.7", "dns server 0 address 10.8.0.1,dns search-domains a.example", ctltest.V27, "", "", "dns server 0 address 10.8.0.1,dns search-domains a.example"},
		{"dns, 2.6", "ping 10,dns server 0 address 10.8.0.1 [fd00::53]:53,dns search-domains a.example b.example", ctltest.V26, "", "",
			"ping 10,dhcp-option DNS 10.8.0.1,dhcp-option DNS6 fd00::53,dhcp-option DOMAIN a.example,dhcp-option DOMAIN-SEARCH b.example"},
		{"dns, 2.4 knows one domain", "dns server 0 address 10.8.0.1,dns search-domains a.example b.example", ctltest.V24, "", "", "dhcp-option DNS 10.8.0.1,dhcp-option DOMAIN a.example"},
		{"dns by priority", "dns server 5 address 10.8.0.5,dns server 1 address 10.8.0.1 10.8.0.2:5353", ctltest.V25, "", "", "dhcp-option DNS 10.8.0.1,dhcp-option DNS 10.8.0.5"},
		{"dns for some domains goes behind dns for all", "dns server 0 address 10.8.0.1,dns server 0 resolve-domains a.example,dns server 1 address 10.8.0.2", ctltest.V25, "", "", "dhcp-option DNS 10.8.0.2"},
		{"dns for some domains only", "dns server 0 address 10.8.0.1,dns server 0 resolve-domains a.example", ctltest.V37, "", "", "dhcp-option DNS 10.8.0.1"},
		{"dns that cannot be said otherwise", "dns server 0 address 10.8.0.1,dns server 0 transport DoT,dns server 0 sni dns.example", ctltest.V26, "", "",
			"dns server 0 address 10.8.0.1,dns server 0 transport DoT,dns server 0 sni dns.example"},
		{"both, 2.6", "dns server 0 address 10.8.0.1,dhcp-option DNS 10.8.0.9,dns search-domains a.example", ctltest.V26, "", "", "dhcp-option DNS 10.8.0.9,dhcp-option DOMAIN a.example"},
		{"both, 2.7", "dns server 0 address 10.8.0.1,dhcp-option DNS 10.8.0.9,dhcp-option DOMAIN b.example,dns search-domains a.example", ctltest.V27, "", "", "dns server 0 address 10.8.0.1,dns search-domains a.example"},

		// What only some take.
		{"block-outside-dns, Linux", "block-outside-dns", ctltest.V26, "", "", ""},
		{"block-outside-dns, Windows", "block-outside-dns", ctltest.V26, "win", "", "block-outside-dns"},
		{"block-outside-dns, Windows, OpenVPN 3", "block-outside-dns", ctltest.V39, "", "", "block-outside-dns"},
		{"block-outside-dns, phone", "block-outside-dns", ctltest.V38, "", "", ""},
		{"block-ipv4, 2.7", "block-ipv4", ctltest.V27, "", "", ""},
		{"block-ipv4, 3", "block-ipv4", ctltest.V311, "", "", "block-ipv4"},
		{"tun-mtu is the session's", "tun-mtu 1400", ctltest.V26, "", "", ""},

		// A full tunnel (S080).
		{"guarded, 2.6", "redirect-gateway def1", ctltest.V26, "", both, "redirect-gateway def1 ipv6," + end6 + "," + end4},
		{"guarded, no IPv6, 2.6", "redirect-gateway def1", ctltest.V26, "", only4, "redirect-gateway def1 ipv6,block-ipv6," + end4},
		{"guarded, no IPv6, 2.4 cannot block", "redirect-gateway def1", ctltest.V24, "", only4, "redirect-gateway def1 ipv6," + end4},
		{"guarded, no IPv6, 3", "redirect-gateway def1", ctltest.V311, "", only4, "redirect-gateway def1,block-ipv6," + end4},
		{"guarded, with name servers, Linux 2.6 keeps its own", "redirect-gateway def1 ipv6,dhcp-option DNS 10.8.0.1", ctltest.V26, "", both, "redirect-gateway def1 ipv6,dhcp-option DNS 10.8.0.1," + end6 + "," + end4},
		{"guarded, with name servers, Windows", "redirect-gateway def1 ipv6,dhcp-option DNS 10.8.0.1", ctltest.V26, "win", both,
			"redirect-gateway def1 ipv6 block-local,block-outside-dns,dhcp-option DNS 10.8.0.1," + end6 + "," + end4},
		{"guarded, with name servers, 2.7", "redirect-gateway def1 ipv6,dhcp-option DNS 10.8.0.1", ctltest.V27, "", both, "redirect-gateway def1 ipv6 block-local,dns server 0 address 10.8.0.1," + end6 + "," + end4},
		{"guarded, server in the local network", "redirect-gateway local def1 ipv6,dhcp-option DNS 10.8.0.1", ctltest.V39, "mac", both, "redirect-gateway local def1 ipv6,dns server 0 address 10.8.0.1," + end6 + "," + end4},
		{"guarded already", "redirect-gateway def1 ipv6 block-local,block-outside-dns,dhcp-option DNS 10.8.0.1", ctltest.V25, "win", both,
			"redirect-gateway def1 ipv6 block-local,block-outside-dns,dhcp-option DNS 10.8.0.1," + end6 + "," + end4},
		{"in two lines", "redirect-gateway def1,redirect-gateway ipv6", ctltest.V26, "", both, "redirect-gateway def1,redirect-gateway ipv6," + end6 + "," + end4},
		{"full by routes", "route 0.0.0.0 128.0.0.0,route 128.0.0.0 128.0.0.0", ctltest.V26, "", both, "route 0.0.0.0 128.0.0.0,route 128.0.0.0 128.0.0.0," + end6 + "," + end4 + ",redirect-gateway !ipv4 ipv6"},
		{"full by routes, both families", "route 0.0.0.0 0.0.0.0,route-ipv6 2000::/3", ctltest.V26, "", both, "route 0.0.0.0 0.0.0.0,route-ipv6 2000::/3," + end6 + "," + end4},
		{"IPv6 alone is no full tunnel", "redirect-gateway ipv6 !ipv4", ctltest.V26, "", both, "redirect-gateway ipv6 !ipv4," + end6 + "," + end4},

		// Routes of OpenVPN 3.
		{"routes, 2.6", "route-gateway 10.8.0.1,route 10.1.2.3 255.255.255.0 10.8.0.1", ctltest.V26, "", "", "route-gateway 10.8.0.1,route 10.1.2.3 255.255.255.0 10.8.0.1"},
		{"routes, 3", "route-gateway 10.8.0.1,route 10.1.2.3 255.255.255.0 10.8.0.1,route 10.2.0.0 255.255.0.0 default 5,route 10.3.0.1,route-ipv6 fd00:2::1/48 fd00:8::1", ctltest.V36, "", "",
			"route-gateway 10.8.0.1,route 10.1.2.0 255.255.255.0 vpn_gateway,route 10.2.0.0 255.255.0.0 vpn_gateway 5,route 10.3.0.1,route-ipv6 fd00:2::/48 vpn_gateway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := subnetConfig()
			cfg.Push = strings.Split(c.push, ",")
			var a Addresses
			for s := range strings.FieldsSeq(c.addresses) {
				if addr := netip.MustParseAddr(s); addr.Is4() {
					a.V4 = addr
				} else {
					a.V6 = addr
				}
			}
			if got := strings.Join(PushList(cfg, &config.Client{}, a, peerOf(c.to, c.platform)), ","); got != c.want {
				t.Errorf("pushed\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// leak-guard no leaves a full tunnel as it was written.
func TestPushListUnguarded(t *testing.T) {
	cfg := subnetConfig()
	cfg.NoLeakGuard = true
	cfg.Push = []string{"redirect-gateway def1", "dhcp-option DNS 10.8.0.1"}
	got := PushList(cfg, &config.Client{}, Addresses{V4: netip.MustParseAddr("10.8.0.2")}, peerOf(ctltest.V26, "win"))
	if want := append(slices.Clone(cfg.Push), "ifconfig 10.8.0.2 255.255.255.0"); !slices.Equal(got, want) {
		t.Errorf("pushed %q, want %q", got, want)
	}
}

// In net30 and p2p the second word of ifconfig is the other end. Who has no p2p, by version or system, is told subnet.
func TestPushListTopologies(t *testing.T) {
	for _, c := range []struct {
		topology config.Topology
		push     string
		to       *ctltest.Profile
		platform string
		set      config.Client
		a        Addresses
		want     string
	}{
		{config.Net30, "route 10.8.0.1,topology net30", ctltest.V26, "", config.Client{}, addresses("10.8.0.6", "10.8.0.5"), "route 10.8.0.1,topology net30,ifconfig 10.8.0.6 10.8.0.5"},
		{config.Net30, "topology net30", ctltest.V311, "", config.Client{}, addresses("10.8.0.6", "10.8.0.5"), "topology net30,ifconfig 10.8.0.6 10.8.0.5"},
		{config.Net30, "topology net30", ctltest.V26, "", fixedTo("10.8.0.21", "10.8.0.22"), addresses("10.8.0.21", ""), "topology net30,ifconfig 10.8.0.21 10.8.0.22"},
		{config.P2P, "topology p2p", ctltest.V26, "", config.Client{}, addresses("10.8.0.4", ""), "topology p2p,ifconfig 10.8.0.4 10.8.0.1"},
		{config.P2P, "topology p2p", ctltest.V26, "", fixedTo("10.8.0.21", "10.8.0.1"), addresses("10.8.0.21", ""), "topology p2p,ifconfig 10.8.0.21 10.8.0.1"},
		{config.P2P, "topology p2p", ctltest.V26, "win", config.Client{}, addresses("10.8.0.4", ""), "route-gateway 10.8.0.1,topology subnet,ifconfig 10.8.0.4 255.255.255.0"},
		{config.P2P, "topology p2p", ctltest.V36, "", config.Client{}, addresses("10.8.0.4", ""), "route-gateway 10.8.0.1,topology subnet,ifconfig 10.8.0.4 255.255.255.0"},
		{config.P2P, "topology p2p,route-gateway 10.8.0.9", ctltest.V311, "", config.Client{}, addresses("10.8.4.4", ""), "topology subnet,route-gateway 10.8.0.9,ifconfig 10.8.4.4 255.255.248.0"},
		{config.P2P, "topology p2p", ctltest.V311, "", config.Client{PushReset: true}, addresses("10.8.0.4", ""), "ifconfig 10.8.0.4 10.8.0.1"},
		{config.P2P, "topology p2p", ctltest.V311, "", config.Client{PushRemove: []config.PushRemove{{Prefix: "ifconfig"}}}, addresses("10.8.0.4", ""), "route-gateway 10.8.0.1,topology subnet"},
	} {
		cfg := subnetConfig()
		cfg.Topology, cfg.Push = c.topology, strings.Split(c.push, ",")
		if got := strings.Join(PushList(cfg, &c.set, c.a, peerOf(c.to, c.platform)), ","); got != c.want {
			t.Errorf("%v, %s %s: pushed\n%s\nwant\n%s", c.topology, c.to.Name, c.platform, got, c.want)
		}
	}
}

func addresses(own, peer string) (a Addresses) {
	a.V4 = netip.MustParseAddr(own)
	if peer != "" {
		a.Peer4 = netip.MustParseAddr(peer)
	}
	return a
}

func fixedTo(own, second string) config.Client {
	return config.Client{IfconfigPush4: netip.MustParseAddr(own), IfconfigMask: netip.MustParseAddr(second)}
}

// What a client gets is, message for message, what a real server of the same configuration sent it, where nothing is
// done better on purpose.
func TestPushReplyAsRealServers(t *testing.T) {
	var v struct {
		Scenarios []struct {
			Name     string
			Server   []string `json:"server_conf"`
			Client   []string `json:"ccd_client1"`
			Version  string   `json:"client_version"`
			Messages []string `json:"control_messages"`
			Line     string   `json:"ipp_line"`
		}
	}
	b, err := os.ReadFile("../testdata/vectors/data-push.json")
	must(t, err)
	must(t, json.Unmarshal(b, &v))
	skip := map[string]bool{
		"dev tap": true, "server-bridge": true, // tap
		"compress migrate, client with comp-lzo": true, // held in tlsctl, by TestOwnOptions
	}
	better := map[string]string{"redirect-gateway def1": "redirect-gateway def1 ipv6"} // S080
	ran := 0
	for _, s := range v.Scenarios {
		if skip[s.Name] {
			continue
		}
		ran++
		t.Run(s.Name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				dir := t.TempDir()
				must(t, os.Mkdir(filepath.Join(dir, "ccd"), 0o700))
				if len(s.Client) > 0 {
					must(t, os.WriteFile(filepath.Join(dir, "ccd", "client1"), []byte(strings.Join(s.Client, "\n")), 0o600))
				}
				conf := filepath.Join(dir, "server.conf")
				for name, m := range map[string]config.Material{"ca": w.cfg.CA, "cert": w.cfg.Cert, "key": w.cfg.Key} {
					must(t, os.WriteFile(filepath.Join(dir, name), m.Bytes, 0o600))
				}
				text := "dev tun\ncd " + dir + "\nca ca\ncert cert\nkey key\n" + strings.Join(s.Server, "\n") + "\n"
				must(t, os.WriteFile(conf, []byte(text), 0o600))
				cfg, _, err := config.Load(conf)
				must(t, err)
				w.cfg = cfg
				pool := new(memoryFile)
				w.pool = pool
				w.start()
				profile := map[string]*ctltest.Profile{"2.6.14": ctltest.V26, "2.7.6": ctltest.V27}[s.Version]
				client := w.peer("client1", homeAddr, profile.Apply)
				client.connect()
				var got []string
				for _, m := range client.ctl.Messages() {
					if strings.HasPrefix(m, "PUSH_") {
						got = append(got, m)
					}
				}
				want := slices.Clone(s.Messages)
				for i := range want {
					for as, ours := range better {
						want[i] = strings.ReplaceAll(want[i], as, ours)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("pushed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				w.stop()
				if line := strings.TrimSpace(pool.String()); strings.HasPrefix(s.Line, "client1,") && line != s.Line {
					t.Errorf("pool file %q, want %q", line, s.Line)
				}
			})
		})
	}
	if ran < 10 {
		t.Errorf("%d scenarios: the test looks at the wrong file", ran)
	}
}

func FuzzPushList(f *testing.F) {
	f.Add("redirect-gateway def1,dhcp-option DNS 1.1.1.1,dns server 0 address 1.1.1.1", uint8(0), "win")
	f.Add("dns server 0 address,dns server x,dns search-domains,topology p2p,route 1.2.3.4 255.0.0.0 default", uint8(8), "")
	f.Add("dns,dhcp-option,route,route-ipv6,\"a b\",route 1.1.1.1 0.0.0.0 net_gateway", uint8(3), "linux")
	f.Fuzz(func(t *testing.T, push string, profile uint8, platform string) {
		cfg := subnetConfig()
		cfg.Topology = config.P2P
		cfg.Push = strings.Split(push, ",")
		p := ctltest.Profiles[int(profile)%len(ctltest.Profiles)]
		list := PushList(cfg, &config.Client{}, addresses("10.8.0.4", ""), peerOf(p, platform))
		for _, o := range list {
			if strings.Contains(o, ",") {
				t.Errorf("%q holds a comma", o)
			}
		}
	})
}
