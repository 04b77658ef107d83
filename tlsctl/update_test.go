package tlsctl

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestPushUpdates(t *testing.T) {
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("route 10.%d.0.0 255.255.0.0 vpn_gateway", i))
	}
	longest := "?" + strings.Repeat("x", 927)
	for _, test := range []struct {
		options []string
		parts   int // 0: an error
	}{
		{nil, 0},
		{[]string{"route 1.2.3.0 255.255.255.0"}, 1},
		{[]string{"-route", "-?dns", "?block-ipv4", "dhcp-option DNS 10.0.0.1"}, 1},
		{many, 3},
		{[]string{longest}, 1},
		{[]string{longest + "x"}, 0},
		{[]string{longest, longest}, 2},
		{[]string{"ping 10"}, 0}, // ends a client's connection
		{[]string{"?ping 10"}, 1},
		{[]string{"-?ping"}, 1},
		{[]string{"-ping"}, 0},
		{[]string{"?-route"}, 0},
		{[]string{"--route"}, 0},
		{[]string{"-route 10.0.0.0"}, 0},
		{[]string{""}, 0},
		{[]string{"?"}, 0},
		{[]string{"-"}, 0},
		{[]string{"push-continuation 2"}, 0},
		{[]string{"route 1.2.3.0,route 4.5.6.0"}, 0},
		{[]string{"route 1.2.3.0\n"}, 0},
	} {
		got, err := pushUpdates(test.options)
		if len(got) != test.parts || (err == nil) != (test.parts > 0) {
			t.Errorf("%.40q: %d parts, %v, want %d", test.options, len(got), err, test.parts)
		}
		var back []string
		for i, m := range got {
			items := strings.Split(string(m), ",")
			if items[0] != "PUSH_UPDATE" || len(m.record()) > maxMessage {
				t.Errorf("a message of %d bytes: %.40q", len(m.record()), m)
			}
			items = items[1:]
			if len(got) > 1 {
				want := "push-continuation 2"
				if i == len(got)-1 {
					want = "push-continuation 1"
				}
				if last := items[len(items)-1]; last != want {
					t.Errorf("part %d ends with %q, want %q", i, last, want)
				}
				items = items[:len(items)-1]
			}
			if n := len(strings.Join(items, ",")); n > 928 {
				t.Errorf("%d bytes of options in a message", n)
			}
			back = append(back, items...)
		}
		if err == nil && !slices.Equal(back, test.options) {
			t.Errorf("%.40q became %.40q", test.options, back)
		}
	}
}

func FuzzPushUpdates(f *testing.F) {
	f.Add("route 1.2.3.0 255.255.255.0,-dns,?x y")
	f.Add("-?a,?-b,,")
	f.Fuzz(func(t *testing.T, s string) {
		options := strings.Split(s, ",")
		parts, err := pushUpdates(options)
		if err != nil {
			return
		}
		for _, m := range parts {
			if !m.whole() {
				t.Errorf("message %q", m)
			}
		}
	})
}
