package hostnet_test

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"postern/server/hostnet"
)

const (
	v4        = "ipv4/ip_forward"
	v6        = "ipv6/conf/all/forwarding"
	ra0       = "ipv6/conf/pt0/accept_ra"
	ra1       = "ipv6/conf/pt1/accept_ra"
	raDefault = "ipv6/conf/default/accept_ra"
)

func get(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, name := range []string{v4, v6, ra0, ra1, raDefault} {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			t.Fatal(err)
		}
		values[name] = strings.TrimSpace(string(b))
	}
	return values
}

func set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func TestEnableForwarding(t *testing.T) {
	// off is the kernel's default, on another administrator's doing.
	off := map[string]string{v4: "0", v6: "0", ra0: "1", ra1: "0", raDefault: "1"}
	for _, c := range []struct {
		name   string
		v4, v6 bool
		before map[string]string // beside off
		want   map[string]string // beside before
	}{
		{"nothing", false, false, nil, nil},
		{"IPv4", true, false, nil, map[string]string{v4: "1"}},
		{"IPv6", false, true, nil, map[string]string{v6: "1", ra0: "2", raDefault: "2"}},
		{"both", true, true, nil, map[string]string{v4: "1", v6: "1", ra0: "2", raDefault: "2"}},
		{"both, on already", true, true, map[string]string{v4: "1", v6: "1"}, nil},
		{"both, IPv4 on already", true, true, map[string]string{v4: "1"}, map[string]string{v6: "1", ra0: "2", raDefault: "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			within := newHost(t, "pt0", "pt1")
			within(func() {
				before := maps.Clone(off)
				maps.Copy(before, c.before)
				for _, name := range []string{v4, v6, ra0, ra1, raDefault} {
					set(t, name, before[name])
				}
				want := maps.Clone(before)
				maps.Copy(want, c.want)
				restore, err := hostnet.EnableForwarding(c.v4, c.v6)
				if err != nil {
					t.Error(err)
					return
				}
				if got := get(t); !maps.Equal(got, want) {
					t.Errorf("enabled: %v, want %v", got, want)
				}
				for range 2 {
					if err := restore(); err != nil {
						t.Error(err)
					}
					if got := get(t); !maps.Equal(got, before) {
						t.Errorf("restored: %v, want %v", got, before)
					}
				}
			})
		})
	}
}

// A device that is gone when the server ends is no reason to leave the rest as it is.
func TestRestoreForwardingWithoutDevice(t *testing.T) {
	within := newHost(t, "pt0", "pt1")
	within(func() {
		set(t, ra1, "1")
		restore, err := hostnet.EnableForwarding(true, true)
		if err != nil {
			t.Error(err)
			return
		}
		run(t, "ip -n pthn-host link delete pt1")
		if err := restore(); err != nil {
			t.Error(err)
		}
		for _, name := range []string{v4, v6} {
			if b, err := os.ReadFile("/proc/sys/net/" + name); fmt.Sprintf("%s", b) != "0\n" {
				t.Errorf("%s is %q, error %v", name, b, err)
			}
		}
	})
}
