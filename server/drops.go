package server

import "sync/atomic"

// drop is why a packet died.
type drop int

const (
	dropMalformed  drop = iota // not an OpenVPN packet, or encrypted as no client of the format does
	dropNoClient               // data for a peer id or address that nobody has
	dropNoKey                  // key id without a live key
	dropAuth                   // failed to decrypt
	dropReplay                 // seen before, or too old
	dropInner                  // not a well-formed IP packet inside
	dropSource                 // inner source is not the client's (S082)
	dropNoRoute                // nobody has the destination
	dropKeySpent               // packet ids used up (S073)
	dropGateBusy               // a stranger's packet, and the queue was full
	dropStranger               // a stranger's packet that the gate did not answer
	dropNotUp                  // client not established yet
	dropLinkLocal              // fe80:: chatter, normal
	dropOversize               // longer than an arena
	dropCompressed             // not framed as agreed (S079)
	dropTooBig                 // too large for the way to its client; who sent it is told
	dropBlocked                // IPv6 with block-ipv6; who sent it is told
	dropCrowded                // a stranger's packet, while handshakes queue or memory is short (S011, S117)
	dropLimit                  // more than the client's limit
	dropGroup                  // copies of packets for groups, when there are too many
	dropKinds
)

var dropNames = [dropKinds]string{"malformed", "no-client", "no-key", "auth", "replay", "inner", "source", "no-route",
	"key-spent", "gate-busy", "stranger", "not-up", "link-local", "oversize", "compressed", "too-big", "blocked", "crowded", "limit", "group"}

func (d drop) String() string { return dropNames[d] }

// drops counts packets that died, by reason. Lanes add once a packet: death is rare, except in a flood, where the
// count is all it may cost.
type drops [dropKinds]atomic.Uint64

func (d *drops) add(why drop) { d[why].Add(1) }

// snapshot returns the reasons that happened.
func (d *drops) snapshot() map[string]uint64 {
	m := make(map[string]uint64)
	for i := range d {
		if n := d[i].Load(); n > 0 {
			m[drop(i).String()] = n
		}
	}
	return m
}
