package server

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func testSnapshot() *Snapshot {
	at := time.Date(2026, 11, 22, 14, 47, 30, 0, time.Local)
	return &Snapshot{Time: at, Clients: []ClientStatus{
		{ID: 7, Name: "client1", User: "alice", Real: netip.MustParseAddrPort("203.0.113.2:51271"), Addr4: netip.MustParseAddr("10.9.0.2"),
			Addr6: netip.MustParseAddr("fd00:9::1000"), Networks: []netip.Prefix{netip.MustParsePrefix("192.168.50.0/24")},
			Received: 2351, Sent: 2535, Since: at.Add(-3 * time.Second), LastSeen: at.Add(-time.Second), Cipher: "AES-256-GCM", Policy: "staff", Pool: "inner"}, // of which readers of OpenVPN's files see nothing
		{ID: 9, Name: "client2", Real: netip.MustParseAddrPort("[2001:db8:ffff::2]:51271"), Since: at, LastSeen: at, Peer: 1},
	}}
}

// The forms that status readers parse, as running OpenVPN 2.6 servers write them.
func TestStatusText(t *testing.T) {
	snap := testSnapshot()
	v1 := string(snap.StatusText(1))
	for _, want := range []string{
		"OpenVPN CLIENT LIST\nUpdated,2026-11-22 14:47:30\nCommon Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n",
		"client1,203.0.113.2:51271,2351,2535,2026-11-22 14:47:27\n",
		"ROUTING TABLE\nVirtual Address,Common Name,Real Address,Last Ref\n10.9.0.2,client1,203.0.113.2:51271,2026-11-22 14:47:29\n",
		"192.168.50.0/24,client1,203.0.113.2:51271,",
		"client2,2001:db8:ffff::2,0,0,",
		"GLOBAL STATS\nMax bcast/mcast queue length,0\nEND\n",
	} {
		if !strings.Contains(v1, want) {
			t.Errorf("version 1 lacks %q:\n%s", want, v1)
		}
	}
	v2, v3 := string(snap.StatusText(2)), string(snap.StatusText(3))
	for _, want := range []string{
		"TITLE,OpenVPN 2.6.14 ",
		"HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,Bytes Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel Cipher\n",
		"CLIENT_LIST,client1,203.0.113.2:51271,10.9.0.2,fd00:9::1000,2351,2535,2026-11-22 14:47:27,",
		",alice,7,0,AES-256-GCM\n",
		"CLIENT_LIST,client2,2001:db8:ffff::2,,,0,0,2026-11-22 14:47:30,",
		",UNDEF,9,1,\n",
		"GLOBAL_STATS,dco_enabled,0\nEND\n",
	} {
		if !strings.Contains(v2, want) {
			t.Errorf("version 2 lacks %q:\n%s", want, v2)
		}
	}
	if strings.ReplaceAll(v2, ",", "\t") != v3 {
		t.Errorf("version 3 is not version 2 with tabs:\n%s", v3)
	}
	for line := range strings.Lines(v2) {
		if f := strings.Split(strings.TrimSpace(line), ","); f[0] == "CLIENT_LIST" && len(f) != 13 {
			t.Errorf("%d fields in %q: the exporter wants as many as its header has", len(f), line)
		}
	}
}
