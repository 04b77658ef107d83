package link

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxUnsent is how much the kernel takes of what a client has no window for. Without a limit it is megabytes, and what
// is queued there is seconds old when it arrives; with it the queue that drops is the stream's own. What is under way is
// not counted, so a fast client is not held up.
const maxUnsent = 128 << 10

// limitUnsent has the kernel take no more than maxUnsent. A kernel that cannot is no reason not to serve.
func limitUnsent(conn *net.TCPConn) {
	_ = control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}
