// Package hostnet prepares the host for a server, and the server for the host: it looks whether a tunnel can be
// made here and whom its networks would disturb, lets the host forward packets, and gives up privileges once
// everything that needs them is done.
package hostnet

import "errors"

var (
	// ErrNoTUN says that there is no usable /dev/net/tun.
	ErrNoTUN = errors.New("no TUN devices can be made")
	// ErrNoNetAdmin says that the process may not configure networks.
	ErrNoNetAdmin = errors.New("no CAP_NET_ADMIN")
)

// A Capability is a privilege that a process may keep when it gives up the others.
type Capability uint

// KeepNetAdmin keeps CAP_NET_ADMIN: devices, addresses, routes and packet filter can be changed at run time.
const KeepNetAdmin Capability = 12
