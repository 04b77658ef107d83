//go:build !linux

package link

import "net"

// limitUnsent does nothing: only on Linux it is known what comes of it.
func limitUnsent(*net.TCPConn) {}
