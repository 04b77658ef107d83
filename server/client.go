package server

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server/config"
	"postern/server/datachan"
	"postern/server/hooks"
	"postern/server/link"
	"postern/server/management"
	"postern/tlsctl"
)

// outside is a client's address as the world sees it. It means something only together with the door it came to: a
// translator may give two clients one address and port when they talk to different ports of ours, or one over UDP and
// one over TCP. So it is with the address of ours that the client talks to, where a listener has several (multihome).
type outside struct {
	door  any // the *gatekeeper of a UDP listener, or the *link.Stream itself
	addr  netip.AddrPort
	local link.Local
}

// train is packets for this address.
func (o *outside) train(b []byte) link.Train {
	return link.Train{Addr: o.addr, Bytes: b, Size: len(b), Local: o.local}
}

// path is how a client is reached now. Immutable; a float publishes a new one, and so does what is learnt of the way.
type path struct {
	outside
	sock link.Socket
	home *sender // who keeps this client's packets in order
	way
}

// origin puts a session's name, and where it came from, on a log line. A logger that carries fields is half a kilobyte for
// each client; one that asks for them at the line is next to nothing.
type origin struct {
	session string
	addr    netip.AddrPort
}

// Run implements zerolog.Hook.
func (o origin) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str("session", o.session).Stringer("addr", o.addr)
}

// client is where a session, its keys and its addresses meet. It is the tlsctl.Owner of its session (admit.go).
type client struct {
	srv     *Server
	id      management.ClientID
	session *tlsctl.Session // set before Run, then immutable
	sid     tlsctl.SessionID
	opened  time.Time
	source  netip.Addr            // where it was opened from, counted in half
	stream  bool                  // over TCP
	settle  func(authorised bool) // tells the gate; once, however often it is called
	log     zerolog.Logger
	scripts *hooks.Session
	managed managed       // what management clients say of its login
	over    chan struct{} // closed when the session has ended, and the scripts that belong to its end

	path atomic.Pointer[path]
	ring datachan.Ring
	// unheard is the newest key until the client's first packet under it; nil mostly.
	unheard atomic.Pointer[datachan.Key]
	// outgrown is the key that the client has left behind: it opens packets still, but moves the client nowhere.
	outgrown atomic.Pointer[datachan.Key]
	// member is set at the first Install, when the client is published to the lanes. The table changes it.
	member atomic.Pointer[member]
	// established is when the first PUSH_REPLY went out.
	established atomic.Bool
	floated     atomic.Int64 // when it last changed its address, time since Server.started; 0: never
	gone        atomic.Bool
	judged      atomic.Bool // Admit has been asked

	attempt *Attempt // what postern why tells of it; immutable, what it holds is guarded by attempts.mu
	moved   bool     // the keeper's: its first packet from inside has been told

	activity activity  // the keeper's
	asked    asked     // the keeper's
	errors   perSecond // of what is answered to its packets: errors, and questions
	loads    loads
	renewed  int64             // the keeper's: Server.clock when tokens were renewed last; 0: not yet
	tokens   auth.TokenSession // of its logins
	rx, tx   traffic

	down, up bucket
	copies   bucket         // of packets for groups; only spent
	filtered []netip.Prefix // the enforcer's: what the filter knows of it

	place *list.Element // guarded by halfOpen.mu: among those that may be put out

	counted bool // guarded by halfOpen.mu

	mu     sync.Mutex
	grant  *granted // guarded by mu: what Admit decided; nil before
	proof  proof    // guarded by mu
	keys   keyTimes // guarded by mu
	why    error    // guarded by mu: what Leaving was told
	cipher string   // guarded by mu
	// visited is set when the scripts of a client that has logged in have run: those of one that is gone are due.
	visited bool // guarded by mu
}

// traffic is one direction's counters. Its own cache line: the two directions run on different cores.
type traffic struct {
	bytes   atomic.Uint64 // outer bytes
	inside  atomic.Uint64 // bytes of packets for or from the inside network: neither pings nor control packets
	packets atomic.Uint64
	last    atomic.Int64 // Server.clock of the last packet, seconds
	_       [32]byte
}

// granted is what Admit decided about a client.
type granted struct {
	name     string // certificate CN, or the user name with username-as-common-name
	user     string
	login    string         // user as it was typed, for scripts
	who      *auth.Identity // who the login was; nil without one. reidentify replaces it
	notAfter time.Time      // of the certificate; zero without
	chain    []certRef      // for revocation while connected
	leases   []*lease
	taken    []netip.Addr // addresses of no pool that another name had before
	addr4    netip.Addr
	peer4    netip.Addr // the server's end of addr4, in topology net30
	addr6    netip.Addr
	iroutes  []netip.Prefix
	// unlearned are those of the addresses and iroutes that learn-address has refused. iroutes has none of them.
	unlearned []netip.Prefix
	peer      datachan.PeerID
	peerInfo  tlsctl.PeerInfo
	file      *config.Client // what its client file said
	set       *config.Client // what it was let in with: the same, unless something else had a say
	cfg       *config.Config // under which pushed was compiled
	pushed    []string       // repush replaces it
	ruling    ruling
	sessions  int // how many its name may have; 0: any number
}

// member is what the lanes need to know of a client, gathered once. Immutable.
type member struct {
	name       string
	sessions   int // how many the name may have at once; 0: any number
	zone       int
	peer       datachan.PeerID
	addr4      netip.Addr
	addr6      netip.Addr
	routed     bool // has iroutes: other inside addresses are looked up
	mss4, mss6 uint16
	limited    bool // its buckets are to be asked
}

// owns reports whether the inside address a is this client's (S082).
func (c *client) owns(m *member, a netip.Addr) bool {
	if a == m.addr4 || a == m.addr6 {
		return true
	}
	if !m.routed || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsLoopback() {
		return false
	}
	return c.srv.table.zones[m.zone].find(a) == c
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
	one := [1]link.Train{p.train(pkt)}
	_ = p.sock.Send(one[:]) // a lost control packet is sent again by the reliability layer
}

// controlSender is a stream that keeps room for control packets when data crowds it.
type controlSender interface{ SendControl(pkt []byte) error }

// decided returns what Admit decided, nil before.
func (c *client) decided() *granted {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.grant
}
