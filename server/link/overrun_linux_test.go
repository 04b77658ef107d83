package link

import (
	"net"
	"net/netip"
	"testing"
)

// What the kernel drops because nobody reads is counted.
func TestUDPOverrun(t *testing.T) {
	socks, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), UDPOptions{RecvBuf: 4096})
	if err != nil {
		t.Fatal(err)
	}
	u := socks[0]
	defer u.Close()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 200 {
		if _, err := conn.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if n := u.Stats().Overrun; n < 100 || n > 200 {
		t.Errorf("%d datagrams counted as dropped, of 200 for a buffer of some few", n)
	}
	u.Close()
	if n := u.Stats().Overrun; n != 0 {
		t.Errorf("a closed socket tells of %d", n)
	}
}
