package link

// SocketOptions are settings of the kernel's that sockets of either transport have. The zero value sets none.
type SocketOptions struct {
	Device   string // the one interface that packets come and go by
	Mark     uint32 // for the host's routing rules and firewall
	Discover Discover
}

// Discover is what the kernel does about packets too large for the path.
type Discover uint8

const (
	DiscoverDefault Discover = iota // the system's setting: Linux learns of the path, and fragments
	DiscoverNo                      // fragment, and tell no router on the way not to
	DiscoverMaybe                   // Linux's default, whatever the system's setting
	DiscoverYes                     // never fragment: packets that are too large are dropped
)
