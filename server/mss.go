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
	target := fix.Max // what the encrypted packet may have, then what the segment may
	if fix.Mode != config.MSSFixed {
		if fix.Mode == config.MSSMTU {
			target -= ip4Head
			if outer6 {
				target -= ip6Head - ip4Head
			}
			if stream {
				target -= tcpHead
			} else {
				target -= udpHead
			}
		}
		if stream {
			target -= frameLen
		}
		target -= opV1
		if v2 {
			target -= opV2 - opV1
		}
		if strings.HasSuffix(cipher, "-GCM") || cipher == "CHACHA20-POLY1305" {
			target -= aeadCost
		}
	}
	target -= innerHead4 + tcpInner
	if target < 100 {
		return 0, 0 // nonsense would stop all TCP
	}
	return uint16(target), uint16(target - (ip6Head - ip4Head))
}
