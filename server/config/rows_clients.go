package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

var clientRows = []row{
	use("push", "\"TEXT\"", "Send this option to every client: printable, at most 256 bytes, no comma. The order is kept; what `server-ipv6`, `server`, `keepalive` and `tcp-nodelay` push comes behind.", addPush).each(),
	use("ifconfig-pool", "START END [MASK]", "The addresses for clients, where no `server` line gives them. MASK is the one of `ifconfig`, in topology subnet only.", setPool),
	use("ifconfig-ipv6-pool", "NET/BITS", "The same for IPv6: addresses from NET on. Needs `ifconfig-ipv6`.", setPool6),
	use("ifconfig-pool-persist", "FILE [SECONDS]", "Remember which client had which address, in FILE, written every SECONDS (default 600); with 0 it is only read, and its entries are fixed.", setPersist),
	use("ifconfig-push-constraint", "NET MASK", "Warn of fixed addresses outside this network; default that of `server`, in topology subnet. They are given all the same.", setConstraint),
	use("client-config-dir", "DIR", "A directory with a file for each client, named as its certificate's common name (or as its login, with `username-as-common-name`); DEFAULT serves the others. Read at every login.", word(func(c *Config) *string { return &c.ClientConfigDir })),
	use("ccd-exclusive", "", "Let only clients in that have a file of their own.", switchOn(func(c *Config) *bool { return &c.CCDExclusive })),
	use("client-to-client", "", "Let clients reach each other. Without it they cannot. Multicast and broadcasts go to all of them, up to 16,384 copies a second of what one client sends.", switchOn(func(c *Config) *bool { return &c.ClientToClient })),
	use("duplicate-cn", "", "Let several clients with one name in at once. Addresses are then not remembered. Without it the newest one goes on, and older ones are told to stop.", switchOn(func(c *Config) *bool { return &c.DuplicateCN })),
	use("max-clients", "N", "How many clients at most; default 1024.", count(1, 1<<24-2, func(c *Config) *int { return &c.MaxClients })),
	use("max-routes-per-client", "N", "With a tap device how many hardware addresses are learned behind one client; default 256. With a tun device none are learned.", count(1, 1<<16, func(c *Config) *int { return &c.MaxMACs })),
	accept("hash-size", "REAL VIRTUAL", "tables grow by themselves"),
	use("stale-routes-check", "SECONDS [EVERY]", "With a tap device forget hardware addresses that were not heard from for so long; default never. When they are looked at is not for EVERY to say.", setStale),
	use("connect-freq", "N SECONDS", "Let at most N new sessions over UDP begin in so many seconds, of all clients together.", frequency(func(c *Config) *Frequency { return &c.ConnectFreq })),
	use("connect-freq-initial", "N SECONDS", "Answer at most N first packets in so many seconds that lead to no session. By default there is no limit: an answer is never longer than its question, and whoever forges packets could shut all new clients out.", frequency(func(c *Config) *Frequency { return &c.ConnectFreqInitial })),
	use("keepalive", "PING TIMEOUT", "Clients ping every PING seconds and start anew after TIMEOUT without an answer; the server pings as often and gives up after twice the TIMEOUT.", setKeepalive),
	use("ping", "SECONDS", "Ping clients that often, when nothing else is sent. `keepalive` is the better way to say it.", interval(0, func(c *Config) *time.Duration { return &c.Ping })),
	use("ping-restart", "SECONDS", "End a client's session when nothing comes from it for that long. If it hears us still, it connects again.", interval(0, func(c *Config) *time.Duration { return &c.PingRestart })),
	use("ping-exit", "SECONDS", "The same, for a server.", interval(0, func(c *Config) *time.Duration { return &c.PingExit })),
	accept("ping-timer-rem", "", "the timer always runs for connected clients only"),
	use("inactive", "SECONDS [BYTES]", "End a client's session when less than BYTES (default any) pass in SECONDS. It is told to stop.", setInactive),
	use("session-timeout", "SECONDS", "End a client's session after that long. It connects again, and a password that was typed is asked for again.", interval(0, func(c *Config) *time.Duration { return &c.SessionTimeout })),
	use("explicit-exit-notify", "[N]", "Tell clients when the server stops: 1 (or without the line) they come back to this server, with the password or token they have, 2 they try the next one. It is told over TCP, too.", setExitNotify),
	refuse("push-continuation", "the server adds it where it is needed: remove the line"),
	scriptUse("client-connect", "Run when a client has logged in, with the name of a file, in which the script writes lines as in a client file. Refuses the client when it fails."),
	scriptUse("client-disconnect", "Run when a client is gone."),
	scriptUse("learn-address", "Run for each address and network inside that becomes a client's, or nobody's any more. One that it refuses is not used. Not with a tap device, where hardware addresses are learned."),
	scriptUse("client-crresponse", "Run with the answer of a client that `auth-user-pass-verify` has asked a question."),
	use("tmp-dir", "DIR", "Where files for scripts are made; default $TMPDIR or /tmp.", word(func(c *Config) *string { return &c.Scripts.TempDir })),
	use("echo", "TEXT...", "Tell management clients this text (`echo`), and nobody else; to reach clients write `push \"echo ...\"`.", setEcho).each(),
	use("parameter", "TEXT...", "Another name of `echo`.", setEcho).each(),
	refuse("override-username", "it belongs into a client file, and is not supported there yet"),
}

func setEcho(d *draft, l *directive) error {
	d.cfg.Management.Echo = append(d.cfg.Management.Echo, strings.Join(l.args, " "))
	return nil
}

func addPush(d *draft, l *directive) error {
	note, err := checkPush(l.args[0])
	if errors.Is(err, errCompression) {
		d.ignore(l, "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	if note != "" {
		d.notice(l, "%s", note)
	}
	if words, _ := Words(l.args[0]); words[0] == "redirect-gateway" {
		d.fullTunnel = l
	}
	d.cfg.Push = append(d.cfg.Push, l.args[0])
	return nil
}

func setPool(d *draft, l *directive) error {
	first, err := ipv4(l.args[0])
	if err != nil {
		return err
	}
	last, err := ipv4(l.args[1])
	if err != nil {
		return err
	}
	if last.Less(first) {
		return fmt.Errorf("the pool ends before it starts: write the lower address first")
	}
	if size(first, last, maxPool+1) > maxPool {
		return fmt.Errorf("more than %d addresses: take a smaller pool", maxPool)
	}
	if l.arg(2) != "" {
		if d.poolMask, err = maskBits(l.arg(2)); err != nil {
			return err
		}
	}
	d.cfg.Pool4 = Range{first, last}
	return nil
}

func setConstraint(d *draft, l *directive) error {
	p, err := network4(l.args[0], l.args[1])
	if err == nil && hostBits(p) {
		err = fmt.Errorf("with this mask the network is %s", p.Masked().Addr())
	}
	if err == nil {
		d.cfg.PushConstraint = p
	}
	return err
}

func setPool6(d *draft, l *directive) error {
	p, err := network6(l.args[0])
	if err != nil {
		return err
	}
	if p.Bits() < 64 || p.Bits() > 124 {
		return fmt.Errorf("the network must be between /64 and /124 (not /%d)", p.Bits())
	}
	d.cfg.Pool6 = pool6(p.Addr(), p)
	return nil
}

func setPersist(d *draft, l *directive) error {
	if s := l.arg(1); s != "" {
		every, err := seconds(s, 0)
		if err != nil {
			return err
		}
		d.cfg.PoolPersistEvery = every
	}
	return d.output(l, &d.cfg.PoolPersist)
}

func setKeepalive(d *draft, l *directive) error {
	ping, err := number(l.args[0], 1, maxSeconds)
	if err != nil {
		return err
	}
	timeout, err := number(l.args[1], 1, maxSeconds/2)
	if err != nil {
		return err
	}
	if timeout < 2*ping {
		return fmt.Errorf("the second parameter (restart timeout=%d) must be at least twice the first (ping interval=%d); keepalive 10 60 is a good choice", timeout, ping)
	}
	d.keepalive = [2]int{ping, timeout}
	return nil
}

func setInactive(d *draft, l *directive) error {
	if s := l.arg(1); s != "" {
		n, err := number(s, 0, 1<<62)
		if err != nil {
			return err
		}
		d.cfg.InactiveBytes = int64(n)
	}
	return interval(0, func(c *Config) *time.Duration { return &c.Inactive })(d, l)
}

func setExitNotify(d *draft, l *directive) error {
	d.cfg.ExitNotify = 1
	if len(l.args) == 0 {
		return nil
	}
	n, err := number(l.args[0], 0, 2)
	if err != nil {
		return errors.New("a server takes 1 (clients come back to it) or 2 (clients try the next remote)")
	}
	d.cfg.ExitNotify = n
	return nil
}

// maxPool is the most addresses a pool may hold.
const maxPool = 65536

// pool6 is the pool that starts at first in the network net: up to maxPool addresses, none behind the network's end.
func pool6(first netip.Addr, net netip.Prefix) Range {
	last := last6(net)
	if size(first, last, maxPool+1) > maxPool {
		last, _ = offset(first, maxPool-1)
	}
	return Range{first, last}
}

func setStale(d *draft, l *directive) error {
	if every := l.arg(1); every != "" {
		if _, err := number(every, 1, 1<<30); err != nil {
			return err
		}
	}
	return interval(1, func(c *Config) *time.Duration { return &c.StaleMAC })(d, l)
}
