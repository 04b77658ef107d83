package tun

import (
	"fmt"

	"github.com/songgao/water"
)

// Open opens a device with one queue of ordinary packets. Its name is utun and a number, whoever chooses it.
func Open(o Options) (Device, error) {
	c := water.Config{DeviceType: water.TUN}
	if !o.anyName() {
		c.Name = o.Name
	}
	w, err := water.New(c)
	if err != nil {
		return nil, fmt.Errorf("open tun device %q: %w", o.Name, err)
	}
	return &plainDevice{name: w.Name(), mtu: o.MTU, queues: []Queue{newPlainQueue(w)}}, nil
}
