package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	recvBatch = 16           // datagrams, or merged trains of them, per recvmmsg
	sendBatch = 64           // messages per sendmmsg
	maxSplit  = 64           // packets that older kernels split one message into
	stride    = readBuf + 64 // from one receive buffer to the next; the 64 hold Slack
)

// batch moves many datagrams per system call: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT.
type batch struct {
	receiver
	sender
}

// newBatch takes conn over, also when it fails.
func newBatch(u *UDP, conn *net.UDPConn, o UDPOptions) (*batch, error) {
	q, err := Quieten(conn)
	if err != nil {
		return nil, err
	}
	u.conn = q
	raw, err := q.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &batch{}
	var family int
	err = controlRaw(raw, func(fd int) (err error) {
		// Linux knows both since 5.0; without them trains are single packets.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, probe := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		b.gso = probe == nil
		if family, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || !o.Multihome {
			return err
		}
		if !u.local.Addr().IsUnspecified() && !o.SameInterface {
			return nil // it has one address, from which all leaves anyway
		}
		if family == unix.AF_INET6 {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
	if err != nil {
		return nil, err
	}
	b.receiver.init(u, q, o.SameInterface)
	b.sender.init(u, raw, family)
	return b, nil
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// sockaddr has room for an address of either family; Family tells which it is.
type sockaddr = unix.RawSockaddrInet6

// put writes addr in the form a socket of this family wants and returns its length, 0 when there is none.
func put(sa *sockaddr, addr netip.AddrPort, family int) uint32 {
	ip := addr.Addr()
	port := (*[2]byte)(unsafe.Pointer(&sa.Port)) // at the same place in both families
	switch {
	case !ip.IsValid():
		return 0
	case family == unix.AF_INET6:
		*sa = sockaddr{Family: unix.AF_INET6, Addr: ip.As16()}
		if zone := ip.Zone(); zone != "" {
			id, err := strconv.ParseUint(zone, 10, 32)
			if err != nil {
				return 0 // take gives zones as numbers
			}
			sa.Scope_id = uint32(id)
		}
		binary.BigEndian.PutUint16(port[:], addr.Port())
		return unix.SizeofSockaddrInet6
	case ip.Unmap().Is4():
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: ip.As4()}
		binary.BigEndian.PutUint16(port[:], addr.Port())
		return unix.SizeofSockaddrInet4
	}
	return 0
}

// take reads the address that the kernel left in sa. A link-local one keeps its interface as a numeric zone.
func take(sa *sockaddr) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	switch sa.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	case unix.AF_INET6:
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, port)
	}
	return netip.AddrPort{}
}
