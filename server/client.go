package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"postern/server/config"
	"postern/server/datachan"
	"postern/server/link"
	"postern/tlsctl"
)

// path is how a client is reached now. Immutable; a float publishes a new one.
type path struct {
	sock link.Socket
	addr netip.AddrPort
	home *sender // who keeps this client's packets in order
}

// client is where a session, its keys and its addresses meet. It is the tlsctl.Owner of its session (admit.go).
type client struct {
	srv     *Server
	session *tlsctl.Session // set before Run, then immutable
	sid     tlsctl.SessionID
	opened  time.Time
	source  netip.Addr            // where it was opened from, counted in half
	stream  bool                  // over TCP
	settle  func(authorised bool) // tells the gate, once
	log     zerolog.Logger

	path atomic.Pointer[path]
	ring datachan.Ring
	// confirm is the key that waits for a packet under it before we send with it; nil mostly.
	confirm atomic.Pointer[datachan.Key]
	// member is set at the first Install, when the client is published to the lanes.
	member atomic.Pointer[member]
	// established is when the first PUSH_REPLY went out.
	established atomic.Bool
	floated     atomic.Int64 // clock of the last float, seconds
	gone        atomic.Bool

	idleSince int64  // the keeper's
	idleBytes uint64 // the keeper's

	rx, tx traffic

	mu       sync.Mutex
	grant    *granted  // guarded by mu: what Admit decided; nil before
	useAt    time.Time // guarded by mu: when confirm is used even unconfirmed
	retireAt time.Time // guarded by mu: when keys but the sending one die
	cipher   string    // guarded by mu
	open     bool      // guarded by mu: still counted as half-open
	endedBy  string    // guarded by mu: why the server ended it
}

// traffic is one direction's counters. Its own cache line: the two directions run on different cores.
type traffic struct {
	bytes   atomic.Uint64 // outer bytes
	packets atomic.Uint64
	last    atomic.Int64 // Server.clock of the last packet, seconds
	_       [40]byte
}

// granted is what Admit decided about a client.
type granted struct {
	name     string // certificate CN, or the user name with username-as-common-name
	user     string
	certCN   string
	notAfter time.Time // of the certificate; zero without
	chain    []certRef // for revocation while connected
	lease    *lease
	addr4    netip.Addr
	addr6    netip.Addr
	iroutes  []netip.Prefix
	peer     datachan.PeerID
	push     []string
	settings *config.Client
	peerInfo tlsctl.PeerInfo
	groups   []string
}

// member is what the lanes need to know of a client, gathered once.
type member struct {
	peer       datachan.PeerID
	addr4      netip.Addr
	addr6      netip.Addr
	routed     bool // has iroutes: other inside addresses are looked up
	mss4, mss6 uint16
}

// owns reports whether the inside address a is this client's.
func (c *client) owns(m *member, a netip.Addr) bool {
	if a == m.addr4 || a == m.addr6 {
		return true
	}
	return m.routed && c.srv.table.inside(a) == c
}

// Send implements tlsctl.Owner: one control packet to where the client is now.
func (c *client) Send(pkt []byte) {
	p := c.path.Load()
	c.tx.bytes.Add(uint64(len(pkt)))
	c.tx.last.Store(c.srv.clock.Load())
	if s, ok := p.sock.(controlSender); ok {
		if err := s.SendControl(pkt); err != nil {
			p.sock.Close() // OpenVPN 3 sends nothing twice over TCP: a lost packet is the session's end, by its reader
		}
		return
	}
	one := [1]link.Train{{Addr: p.addr, Bytes: pkt, Size: len(pkt)}}
	_ = p.sock.Send(one[:]) // a lost control packet is sent again by the reliability layer
}

// controlSender is a stream that keeps room for control packets when data crowds it.
type controlSender interface{ SendControl(pkt []byte) error }

// identity names the client for logs and status: the common name, or "UNDEF" before login as OpenVPN has it.
func (c *client) identity() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.grant == nil {
		return "UNDEF"
	}
	return c.grant.name
}
