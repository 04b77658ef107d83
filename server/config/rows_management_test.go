package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestManagement(t *testing.T) {
	m := newMachine()
	m["/etc/openvpn/mgmt-password"] = "s3cret\r\na comment\n"
	for text, want := range map[string]Management{
		"":                             {},
		"management m.sock unix":       {Network: "unix", Path: "/etc/openvpn/m.sock"},
		"cd /etc\nmanagement a/b unix": {Network: "unix", Path: "/etc/a/b"},
		"management /run/m.sock unix\nmanagement-client-user alice\nmanagement-client-group ops": {Network: "unix", Path: "/run/m.sock", User: "alice", Group: "ops"},
		"management-hold\nmanagement-signal\nmanagement-log-cache 9\nmanagement m.sock unix mgmt-password": {
			Network: "unix", Path: "/etc/openvpn/m.sock", Password: []byte("s3cret"), LogCache: 9, Hold: true, Signal: true},
		"management localhost 7505 mgmt-password": {Network: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:7505"), Password: []byte("s3cret")},
		"management ::1 7505 mgmt-password":       {Network: "tcp", Addr: netip.MustParseAddrPort("[::1]:7505"), Password: []byte("s3cret")},
		"management m.sock unix\nmanagement 127.0.0.1 7505 mgmt-password": {
			Network: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:7505"), Password: []byte("s3cret")},
	} {
		c, _, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(basic+text), nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := c.Management; !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	c, _, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", []byte(basic+"management m.sock unix mgmt-password"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if shown := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(shown, "s3cret") { // S104
		t.Error("the password is shown")
	}
}
