package server

import (
	"strings"

	"postern/server/config"
)

// What a packet costs outside its payload (data channel section 12).
const (
	ip4Head, ip6Head     = 20, 40
	udpHead, tcpHead     = 8, 20
	frameLen             = 2 // on a stream
	opV1, opV2           = 1, 4
	aeadCost             = 4 + 16
	innerHead4, tcpInner = 20, 20
)

// mss returns the largest TCP segment sizes for inner IPv4 and IPv6 that keep an encrypted packet within what mssfix
// allows; 0, 0 when it is off.
func mss(fix config.MSSFix, outer6, stream, v2 bool, cipher string) (mss4, mss6 uint16) {
	if fix.Max == 0 {
		return 0, 0
	}
	max := fix.Max
	if fix.Mode != config.MSSFixed {
		if fix.Mode == config.MSSMTU {
			max -= ip4Head
			if outer6 {
				max -= ip6Head - ip4Head
			}
			if stream {
				max -= tcpHead
			} else {
				max -= udpHead
			}
		}
		if stream {
			max -= frameLen
		}
		max -= opV1
		if v2 {
			max -= opV2 - opV1
		}
		if strings.HasSuffix(cipher, "-GCM") || cipher == "CHACHA20-POLY1305" {
			max -= aeadCost
		}
	}
	max -= innerHead4 + tcpInner
	if max < 100 {
		return 0, 0 // nonsense would stop all TCP
	}
	return uint16(max), uint16(max - (ip6Head - ip4Head))
}
