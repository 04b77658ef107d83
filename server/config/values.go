package config

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"time"
)

// number reads a decimal number from low to high.
func number(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number from %d to %d", s, low, high)
	}
	return n, nil
}

const maxSeconds = 1<<31 - 1

// seconds reads a number of seconds of at least low.
func seconds(s string, low int) (time.Duration, error) {
	n, err := number(s, low, maxSeconds)
	return time.Duration(n) * time.Second, err
}

func yesNo(s string) (bool, error) {
	switch s {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", s)
}

func ipv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 address (host names are not looked up)", s)
	}
	return a, nil
}

func ipv6(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv6 address (host names are not looked up)", s)
	}
	return a, nil
}

// maskBits reads a netmask such as 255.255.255.0.
func maskBits(s string) (int, error) {
	a, err := ipv4(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a netmask such as 255.255.255.0", s)
	}
	m := word4(a)
	n := bits.LeadingZeros32(^m)
	if n < 32 && m<<n != 0 {
		return 0, fmt.Errorf("%q is not a netmask: its ones must stand together, as in 255.255.255.0", s)
	}
	return n, nil
}

// network4 reads a network and its mask, which may be "" for one host. Bits behind the mask stay as they are.
func network4(net, mask string) (netip.Prefix, error) {
	a, err := ipv4(net)
	if err != nil {
		return netip.Prefix{}, err
	}
	n := 32
	if mask != "" {
		if n, err = maskBits(mask); err != nil {
			return netip.Prefix{}, err
		}
	}
	return netip.PrefixFrom(a, n), nil
}

// network6 reads an address with its prefix length. Bits behind the prefix stay as they are.
func network6(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is6() || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not an IPv6 network such as fd00:1::/64", s)
	}
	return p, nil
}

// maskOf writes the netmask of an IPv4 prefix length, as pushed to clients.
func maskOf(bits int) netip.Addr { return addr4(^uint32(0) << (32 - bits)) }

func word4(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func addr4(w uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)})
}

// last4 is the last address of an IPv4 network: its broadcast address.
func last4(p netip.Prefix) netip.Addr {
	return addr4(word4(p.Masked().Addr()) | ^word4(maskOf(p.Bits())))
}

// offset adds n to an address. It fails when that leaves the address space.
func offset(a netip.Addr, n uint64) (netip.Addr, error) {
	b := a.AsSlice()
	carry := n
	for i := len(b) - 1; i >= 0 && carry > 0; i-- {
		carry += uint64(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	if carry > 0 {
		return netip.Addr{}, errors.New("the network ends before this address")
	}
	sum, _ := netip.AddrFromSlice(b)
	return sum, nil
}

// size counts the addresses from first to last, both included, up to limit.
func size(first, last netip.Addr, limit int) int {
	f, l := first.As16(), last.As16()
	var diff uint64
	for i := range f {
		if i < 8 && f[i] != l[i] {
			return limit
		}
	}
	for i := 8; i < 16; i++ {
		diff = diff<<8 | uint64(l[i])
	}
	var from uint64
	for i := 8; i < 16; i++ {
		from = from<<8 | uint64(f[i])
	}
	return int(min(diff-from, uint64(limit-1))) + 1
}

// last6 is the last address of an IPv6 network.
func last6(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As16()
	for i := p.Bits(); i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom16(b)
}
