package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendControl is the control messages of one message: first the one that has the kernel split, then what else there is.
//
//	| cmsghdr, UDP_SEGMENT, 2 bytes | padding | [cmsghdr, PKTINFO] [cmsghdr, TOS] |
type sendControl struct {
	unix.Cmsghdr
	size uint16
	_    [6]byte
	rest [64]byte
}

// splitSpace is how far before rest the control message that has the kernel split begins.
const splitSpace = int(unsafe.Offsetof(sendControl{}.rest))

func (c *sendControl) init() {
	c.Level, c.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
}

// more fills in what else than to be split the packets of t need from a socket of this family: the address and
// interface to leave by, and the class. It returns how many bytes it takes.
func (c *sendControl) more(t *Train, family int) (n int) {
	if a := t.Local.Addr; a.IsValid() {
		if family == unix.AF_INET6 {
			p := (*unix.Inet6Pktinfo)(c.put(&n, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo))
			*p = unix.Inet6Pktinfo{Addr: a.As16(), Ifindex: uint32(t.Local.Interface)}
		} else if a.Is4() {
			p := (*unix.Inet4Pktinfo)(c.put(&n, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo))
			*p = unix.Inet4Pktinfo{Spec_dst: a.As4(), Ifindex: int32(t.Local.Interface)}
		}
	}
	if t.Class != 0 {
		level, kind := int32(unix.IPPROTO_IP), int32(unix.IP_TOS)
		if !t.Addr.Addr().Unmap().Is4() {
			level, kind = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		*(*int32)(c.put(&n, level, kind, 4)) = int32(t.Class)
	}
	return n
}

// put writes a header for a control message of size bytes at n, moves n behind it, and returns where its data goes.
func (c *sendControl) put(n *int, level, kind int32, size int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c.rest[*n]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	*n += unix.CmsgSpace(size)
	return unsafe.Add(unsafe.Pointer(h), unix.CmsgLen(0))
}
