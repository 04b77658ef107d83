package server

import (
	"fmt"
	"strings"

	"postern/server/config"
	"postern/tun"
)

// A zone is one pool as it runs: a device, and the leases of the pool's addresses. What a reload may change of a pool is
// in live.pools, at the same index. A plain configuration has one zone.
//
//	     UDP and TCP, all lanes                     one front for all zones
//	      |         |         |
//	   client    client    client                   each in the zone that its policy names
//	      |         |         |
//	+-----+---+ +---+-----+ +-+-------+
//	| zone 0  | | zone 1  | | zone 2  |             addresses, leases, who has which
//	|  tun0   | | tun-lab | | tun-ext |             a device each; lane i has queue i of every one
//	+----+----+ +----+----+ +----+----+
//	     |           |           |                  from zone to zone only through the kernel,
//	     +------ the kernel -----+                  whose packet filter holds the policies' rules
type zone struct {
	index  int
	name   string
	device tun.Device
	queues []tun.Queue // Run opens them
	leases *pool       // nil without a range of addresses
}

// newZones makes a zone of every pool. There is a device for each, or none at all in tests of parts.
func newZones(cfg *config.Config, devices []tun.Device) ([]*zone, error) {
	var zones []*zone
	for i, p := range cfg.AllPools() {
		z := &zone{index: i, name: p.Name, leases: newPool(cfg.For(&p, nil), p.Exclude...)}
		if len(devices) > 0 {
			if i >= len(devices) {
				return nil, fmt.Errorf("pool %s has no device: %d were given", p.Name, len(devices))
			}
			z.device = devices[i]
		}
		zones = append(zones, z)
	}
	return zones, nil
}

// zoneOf returns the zone of a pool's name, nil when there is none.
func (s *Server) zoneOf(pool string) *zone {
	for _, z := range s.zones {
		if z.name == pool {
			return z
		}
	}
	return nil
}

// deviceNames lists the devices.
func (s *Server) deviceNames() string {
	names := make([]string, len(s.zones))
	for i, z := range s.zones {
		names[i] = z.device.Name()
	}
	return strings.Join(names, ",")
}

// usage sums what is leased of all pools, and finds the fullest.
func (s *Server) usage() (leased, size int, fullest float64) {
	for _, z := range s.zones {
		l, n := z.leases.usage()
		leased, size = leased+l, size+n
		if n > 0 {
			fullest = max(fullest, float64(l)/float64(n))
		}
	}
	return leased, size, fullest
}

// readLeases gives each line of an ifconfig-pool-persist file to the pool that its address is of.
func readLeases(b []byte, zones []*zone) (warnings []string) {
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		known := false
		for _, z := range zones {
			known = known || z.leases.remember(line)
		}
		if !known {
			warnings = append(warnings, fmt.Sprintf("line %d: no name, or no address of a pool", n))
		}
	}
	return warnings
}
