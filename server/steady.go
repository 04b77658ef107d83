package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postern/auth"
	"postern/server/config"
	"postern/tlsctl"
)

// steadyTime is for how long a client that is in stays in by what has been right, while nobody can judge it anew. It is
// as long as a token would last.
const steadyTime = 12 * time.Hour

// proof is what a client's last good login consisted of, so that the same can be recognised without anybody being asked.
type proof struct {
	key [sha256.Size]byte // of this session, never shown to anybody
	sum proofSum
	at  time.Time // zero: there was none
}

type proofSum [sha256.Size]byte

// shown is what a login consists of. The password is overwritten once it has been judged.
func (c *client) shown(r *auth.Request) (sum proofSum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proof.key == [sha256.Size]byte{} {
		rand.Read(c.proof.key[:])
	}
	mac := hmac.New(sha256.New, c.proof.key[:])
	for _, part := range [][]byte{[]byte(r.CommonName), r.CertKey, []byte(r.Username), r.Password} {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write(part)
	}
	mac.Sum(sum[:0])
	return sum
}

// proved remembers that a login was good.
func (c *client) proved(shown proofSum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proof.sum, c.proof.at = shown, time.Now()
}

// stands returns who a client that is in still is, when at a renegotiation it shows what has been right before, or a good
// token, and err says that nobody can judge it: a directory that is away ends no session (S062). nil when it is to be
// refused: a back end that wants something else of the user, or has words for the client, has judged (S040); and a token
// that is over proves nothing, whatever it was worth when it was shown before (S048).
func (c *client) stands(h *tlsctl.Hello, token *auth.TokenReport, shown proofSum, err error) *auth.Identity {
	denied, denial := (*auth.Denied)(nil), (*tlsctl.Denial)(nil)
	if h.First || errors.As(err, &denied) || errors.As(err, &denial) && !denial.Temporary {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	good := !c.proof.at.IsZero() && time.Since(c.proof.at) < steadyTime && hmac.Equal(shown[:], c.proof.sum[:])
	if token != nil && token.State != auth.TokenInitial {
		good = token.State == auth.TokenAuthenticated
	}
	if c.grant == nil || !good {
		return nil
	}
	c.log.Warn().Err(err).Str("client", c.grant.name).Msg("the login cannot be judged at present; it is the one that was right before, and the session goes on")
	return c.grant.who
}

// withAttributes adds to a client's settings what its user's directory entry wants. What the client's file says goes
// before. That an address is not one of the network's is somebody's mistake, and no reason to give another one.
func withAttributes(cfg *config.Config, set *config.Client, who *auth.Identity) (*config.Client, error) {
	if who == nil || !who.Addr4.IsValid() && !who.Addr6.IsValid() && len(who.Routes) == 0 {
		return set, nil
	}
	merged := *set
	outside := func(a netip.Addr, net netip.Prefix) error {
		return &tlsctl.Denial{Public: auth.PublicRefusal, Err: fmt.Errorf("%q: the directory gives the address %v, which is not in %v", who.Name, a, net.Masked())}
	}
	reserved := func(a netip.Addr) error {
		return &tlsctl.Denial{Public: auth.PublicRefusal, Err: fmt.Errorf("%q: the directory gives the address %v, which is the server's or the whole network's", who.Name, a)}
	}
	if a := who.Addr4; a.IsValid() && !set.IfconfigPush4.IsValid() {
		switch {
		case !cfg.Addr4.Contains(a):
			return nil, outside(a, cfg.Addr4)
		case a == cfg.Addr4.Addr() || a == cfg.Peer4 || cfg.Topology == config.Subnet && (a == cfg.Addr4.Masked().Addr() || !cfg.Addr4.Contains(a.Next())):
			return nil, reserved(a)
		}
		merged.IfconfigPush4, merged.IfconfigMask = a, otherEnd(cfg, a)
	}
	if a := who.Addr6; a.IsValid() && !set.IfconfigPush6.IsValid() {
		switch {
		case !cfg.Addr6.Contains(a):
			return nil, outside(a, cfg.Addr6)
		case a == cfg.Addr6.Addr() || a == cfg.Addr6.Masked().Addr():
			return nil, reserved(a)
		}
		merged.IfconfigPush6 = netip.PrefixFrom(a, cfg.Pool6Bits)
	}
	merged.Push = slices.Clone(set.Push)
	for _, r := range who.Routes {
		if r.Addr().Is6() {
			merged.Push = append(merged.Push, "route-ipv6 "+r.String())
		} else {
			merged.Push = append(merged.Push, fmt.Sprintf("route %v %v", r.Addr(), maskOf(r)))
		}
	}
	return &merged, nil
}
