package link

import (
	"testing"

	"golang.org/x/sys/unix"
)

// An Option is a socket option as TestSocketOptions wants it and as it is.
type Option struct {
	Name      string
	Got, Want int
}

// SocketOptionsOf looks at the socket of u, which is bound to [::].
func SocketOptionsOf(t *testing.T, u *UDP) (list []Option) {
	err := control(u.conn, func(fd int) error {
		for _, o := range []struct {
			name              string
			level, opt, value int
		}{
			{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, 77},
			{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
			{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
		} {
			n, err := unix.GetsockoptInt(fd, o.level, o.opt)
			if err != nil {
				return err
			}
			list = append(list, Option{o.name, n, o.value})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// WithoutGRO takes from the socket of u what merges datagrams as they come in.
func WithoutGRO(t testing.TB, u *UDP) {
	err := control(u.conn, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0) })
	if err != nil {
		t.Fatal(err)
	}
}

// WithoutSegmentation makes u one that has found no UDP_SEGMENT when it asked for it.
func WithoutSegmentation(u *UDP) {
	s := &u.moves.(*batch).sender
	s.mu.Lock()
	s.gso = false
	s.mu.Unlock()
}

// WithoutSelector has the kernel refuse programs that select a socket, until the test ends.
func WithoutSelector(t *testing.T) {
	attach := attachSelector
	t.Cleanup(func() { attachSelector = attach })
	attachSelector = func(int, []unix.SockFilter) error { return unix.ENOPROTOOPT }
}

// HasWriter reports whether s has a goroutine that writes.
func HasWriter(s *Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.written != nil
}
