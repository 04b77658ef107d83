package management

import (
	"net/netip"
	"time"
)

// ClientID numbers the clients of one run of the server: 0, 1, 2, ..., none used twice.
type ClientID uint64

// KeyID numbers the key negotiations. Each has its own, and an answer to an older one than the newest fails.
type KeyID uint64

// Owner is the server that an Interface stands for. Its methods are called from several goroutines at once, without a
// lock of this package held, so they may emit events. They should return at once: the tool that asked waits.
type Owner interface {
	Monitor
	Clients
	Logins
	Process
}

// Monitor tells what goes on.
type Monitor interface {
	// Status renders a status report of version 1, 2 or 3, as in the status file. nil: the server does not serve yet.
	Status(version int) []byte
	Load() Load
	// ByteCounts lists the counters of the established clients.
	ByteCounts() []ByteCount
}

// Load is how much the server has to do.
type Load struct {
	Clients        int // established
	Received, Sent uint64
}

// ByteCount is what one client sent and was sent.
type ByteCount struct {
	Client         ClientID
	Received, Sent uint64
}

// Clients acts on clients that are there.
type Clients interface {
	// Kill ends every client with that common name at once, as if it had vanished, and says how many there were.
	Kill(commonName string) int
	// KillAddress does the same by the address a client comes from. network is "udp", "tcp", or "" for either.
	KillAddress(network string, from netip.AddrPort) int
	// ClientKill sends a client message (RESTART, or HALT,reason) and ends it when it has had time to act.
	ClientKill(client ClientID, message string) error
	// PushUpdate sends new options to one client, PushUpdateAll to all of them; it says how many were sent to.
	PushUpdate(client ClientID, options string) error
	PushUpdateAll(options string) (clients int, err error)
}

// Logins answers what ClientConnect and ClientReauth have asked. An error means that nobody waits for this answer:
// the client is unknown, decided about, or has begun another negotiation.
type Logins interface {
	// ClientAuth lets a client in. lines are as in its file of client-config-dir; client-auth-nt has none.
	ClientAuth(client ClientID, key KeyID, lines []string) error
	// ClientDeny keeps a client out. reason is for the log; clientReason, "" for none, is what the client is told.
	ClientDeny(client ClientID, key KeyID, reason, clientReason string) error
	// ClientPending tells a client that its login is decided elsewhere: extra, such as WEB_AUTH::URL, and for how long.
	ClientPending(client ClientID, key KeyID, extra string, timeout time.Duration) error
}

// Process is the daemon as a whole.
type Process interface {
	// Signal does what the signal of that name would: SIGHUP, SIGINT, SIGTERM, SIGUSR1 or SIGUSR2. An error says that
	// it is ignored at present.
	Signal(name string) error
	Verb() int
	SetVerb(level int) error
	Mute() int
	SetMute(level int) error
}
