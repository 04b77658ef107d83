package link

import "net/netip"

// NewListener lets tests accept from a listener of their own.
var NewListener = newListener

// ParseProxy lets the fuzzer at the parser.
func ParseProxy(b []byte) (size int, source netip.AddrPort, complete bool, err error) {
	h, complete, err := parseProxy(b)
	return h.size, h.source, complete, err
}
