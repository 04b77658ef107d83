package tun

import "net"

// Options say which device to open and how.
type Options struct {
	// Name is the device's name. "tun", "tap" for a TAP device, or nothing takes the next free one. A device of another name is used and left in
	// place if it exists and nobody has it open, as one made by "openvpn --mktun" or "ip tuntap add" does; otherwise it is
	// made, and removed by Close or with the process.
	Name string
	// MTU is set unless the device has it already. Zero leaves it alone.
	MTU int
	// Plain asks for ordinary packets, one to a system call, as everywhere but on Linux.
	Plain bool
	// Tap makes a TAP device, whose packets are Ethernet frames, one to a system call. Linux only.
	Tap bool
	// Hardware is the hardware address of a TAP device; nil lets the kernel choose.
	Hardware net.HardwareAddr
	// NoUDP keeps UDP out of superpackets.
	NoUDP bool
}

// anyName reports whether the kernel is to choose the name.
func (o *Options) anyName() bool { return o.Name == "" || o.Name == o.kind() }

// kind is what the device is, which is also how its name begins when the kernel chooses it.
func (o *Options) kind() string {
	if o.Tap {
		return "tap"
	}
	return "tun"
}
