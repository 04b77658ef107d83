package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// A client behind a router with a narrow link: the router tells the server's kernel, the kernel the server, and the server
// who sends too much. A download that was under way before goes on, also where nothing may be fragmented (F39).
func TestE2ENarrowPath(t *testing.T) {
	for _, disc := range []string{"maybe", "yes"} {
		t.Run("mtu-disc "+disc, func(t *testing.T) {
			f := newField(t, "alice", "hop")
			narrow(f, "alice", "hop")
			srv := f.serve("mtu-disc "+disc, "mssfix 0")
			v := f.connect("alice")
			f.must(lab.Until(time.Minute, func() error { // one download may be over before anybody was told
				v.move(3_000_000)
				return srv.Expect("path MTU", 1, 5*time.Second)
			}))
			v.move(3_000_000)
			// What the host behind the server now knows of the way to the client.
			out, err := f.Host("lan").Run(f.ctx, "ip", "route", "get", lab.RouterLan4)
			f.must(err)
			if want := fmt.Sprintf("mtu %d", 1300-20-8-24); !strings.Contains(out, want) {
				t.Errorf("the host behind the server knows %q, want %q", out, want)
			}
			v.ping(lab.Lan4, 3, 56)
		})
	}
}

// narrow moves a host behind another one, by a link that takes no more than 1300 bytes.
func narrow(f *field, name, hop string) {
	f.t.Helper()
	h, r := f.Host(name), f.Host(hop)
	for _, args := range [][]string{
		{"-n", h.NS, "link", "del", "eth0"},
		{"-n", r.NS, "link", "add", "deep0", "mtu", "1300", "type", "veth", "peer", "name", "eth0", "netns", h.NS},
		{"-n", r.NS, "addr", "add", "198.19.0.1/24", "dev", "deep0"},
		{"-n", r.NS, "link", "set", "deep0", "up"},
		{"-n", h.NS, "addr", "add", "198.19.0.2/24", "dev", "eth0"},
		{"-n", h.NS, "link", "set", "eth0", "mtu", "1300", "up"},
		{"-n", h.NS, "route", "add", "default", "via", "198.19.0.1"},
		{"-n", f.Host("router").NS, "route", "add", "198.19.0.0/24", "via", r.Wan4.String()},
		{"netns", "exec", r.NS, "sysctl", "-qw", "net.ipv4.ip_forward=1"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			f.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}
