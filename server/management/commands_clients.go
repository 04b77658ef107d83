package management

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// kill ends clients by common name or by address. A word with a colon is an address: IP:PORT, PROTO:IP:PORT as
// OpenVPN 2.7 wants it, or the same with an IPv6 address in brackets.
func (c *conn) kill(r *reply, args []string) {
	victim := args[0]
	if victim == "" {
		r.fail("kill parse")
		return
	}
	if !strings.Contains(victim, ":") {
		if n := c.owner.Kill(victim); n > 0 {
			r.succeed("common name '%s' found, %d client(s) killed", victim, n)
		} else {
			r.fail("common name '%s' not found", victim)
		}
		return
	}
	network, from, err := parseVictim(victim)
	if err != nil {
		r.fail("%v", err)
		return
	}
	text := from.String()
	if network != "" {
		text = network + ":" + text
	}
	if n := c.owner.KillAddress(network, from); n > 0 {
		r.succeed("%d client(s) at address %s killed", n, text)
	} else {
		r.fail("client at address %s not found", text)
	}
}

// parseVictim reads [PROTO:]IP:PORT. The protocols are those of status reports, too: udp4, tcp6-server and so on.
func parseVictim(s string) (network string, from netip.AddrPort, err error) {
	if proto, rest, _ := strings.Cut(s, ":"); strings.Contains(rest, ":") {
		switch strings.TrimRight(strings.TrimSuffix(proto, "-server"), "46") {
		case "udp":
			network, s = "udp", rest
		case "tcp":
			network, s = "tcp", rest
		}
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	}
	if host == "" || host == ":" {
		return "", from, errors.New("kill parse")
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return "", from, fmt.Errorf("error parsing IP address: %s", host)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", from, fmt.Errorf("port number is out of range: %s", port)
	}
	return network, netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

// clientID reads a word that numbers a client.
func clientID(r *reply, word string) (ClientID, bool) {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		r.fail("cannot parse CID")
	}
	return ClientID(n), err == nil
}

// clientAndKey reads the words that number a client and a negotiation.
func clientAndKey(r *reply, args []string) (ClientID, KeyID, bool) {
	client, ok := clientID(r, args[0])
	if !ok {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		r.fail("cannot parse KID")
	}
	return client, KeyID(n), err == nil
}

func (c *conn) clientKill(r *reply, args []string) {
	client, ok := clientID(r, args[0])
	if !ok {
		return
	}
	message := "RESTART"
	if len(args) > 1 {
		message = args[1]
	}
	r.outcome(c, "client-kill", c.owner.ClientKill(client, message))
}

func (c *conn) clientAuth(r *reply, args []string) {
	client, key, ok := clientAndKey(r, args)
	if !ok {
		return
	}
	c.block = &block{run: func(c *conn, r *reply, lines []string) {
		r.outcome(c, "client-auth", c.owner.ClientAuth(client, key, lines))
	}}
}

func (c *conn) clientAuthNT(r *reply, args []string) {
	if client, key, ok := clientAndKey(r, args); ok {
		r.outcome(c, "client-auth", c.owner.ClientAuth(client, key, nil))
	}
}

func (c *conn) clientDeny(r *reply, args []string) {
	client, key, ok := clientAndKey(r, args)
	if !ok {
		return
	}
	clientReason := ""
	if len(args) > 3 {
		clientReason = args[3]
	}
	r.outcome(c, "client-deny", c.owner.ClientDeny(client, key, args[2], clientReason))
}

// maxPending bounds the time of client-pending-auth, so that it fits a time.Duration. The Owner has its own idea.
const maxPending = 1 << 31

func (c *conn) clientPendingAuth(r *reply, args []string) {
	client, key, ok := clientAndKey(r, args)
	if !ok {
		return
	}
	seconds, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		r.fail("cannot parse TIMEOUT")
		return
	}
	timeout := time.Duration(min(seconds, maxPending)) * time.Second
	if err := c.owner.ClientPending(client, key, args[2], timeout); err != nil {
		c.log.Debug().Err(err).Msg("client-pending-auth command failed")
		r.fail("client-pending-auth command failed. Extra parameter might be too long")
		return
	}
	r.succeed("client-pending-auth command succeeded")
}

func (c *conn) pushUpdateBroad(r *reply, args []string) {
	n, err := c.owner.PushUpdateAll(args[0])
	c.pushUpdated(r, n, err)
}

func (c *conn) pushUpdateCID(r *reply, args []string) {
	client, ok := clientID(r, args[0])
	if !ok {
		return
	}
	c.pushUpdated(r, 1, c.owner.PushUpdate(client, args[1]))
}

func (c *conn) pushUpdated(r *reply, n int, err error) {
	if err != nil || n == 0 {
		c.log.Debug().Err(err).Msg("push-update command failed")
		r.fail("no client updated")
		r.fail("push-update command failed")
		return
	}
	r.succeed("%d client(s) updated", n)
	r.succeed("push-update command succeeded")
}
