package server

import (
	"postern/server/config"
	"postern/server/datachan"
)

// What is around a sealed packet outside, and around TCP's data inside (data channel section 12).
const (
	ip4Head, ip6Head = 20, 40
	udpHead, tcpHead = 8, 20
	frameLen         = 2 // on a stream
)

// mss returns the largest TCP segment sizes for inner IPv4 and IPv6 that keep what key seals within what mssfix allows;
// 0, 0 when it is off.
func mss(fix config.MSSFix, outer6, stream bool, key *datachan.Key) (mss4, mss6 uint16) {
	if fix.Max == 0 {
		return 0, 0
	}
	n := fix.Max
	if fix.Mode == config.MSSMTU {
		n -= ip4Head
		if outer6 {
			n -= ip6Head - ip4Head
		}
		if stream {
			n -= tcpHead
		} else {
			n -= udpHead
		}
	}
	if fix.Mode != config.MSSFixed {
		if stream {
			n -= frameLen
		}
		n = key.Fit(n)
	}
	n -= ip4Head + tcpHead
	if n < 100 {
		return 0, 0 // nonsense would stop all TCP
	}
	return uint16(n), uint16(n - (ip6Head - ip4Head))
}
