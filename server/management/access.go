package management

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Access says who may use a listener, and for what. The zero value lets in whoever can connect to a unix socket.
type Access struct {
	// Password is asked of every connection; nil: of none.
	Password []byte
	// ReadOnly leaves commands that change nothing, and events that carry no login.
	ReadOnly bool
	// UID and GID, when set, must be the peer's, which takes a unix socket (management-client-user, -group).
	UID, GID *uint32
	// Insecure allows TCP beyond loopback or without a password (S096).
	Insecure bool
}

// check refuses an access that would be none.
func (a *Access) check(at net.Addr) error {
	if a.Password != nil && len(a.Password) == 0 {
		return errors.New("the password is empty")
	}
	_, unix := at.(*net.UnixAddr)
	if !unix && (a.UID != nil || a.GID != nil) {
		return errors.New("users and groups can be told apart on unix sockets only")
	}
	tcp, isTCP := at.(*net.TCPAddr)
	if !isTCP || a.Insecure {
		return nil
	}
	if !tcp.IP.IsLoopback() {
		return errors.New("TCP is for loopback addresses only")
	}
	if a.Password == nil {
		return errors.New("TCP takes a password, since any user and any web page of this host can connect")
	}
	return nil
}

// accepts compares a password in a time that tells nothing of it.
func (a *Access) accepts(line []byte) bool {
	got, want := sha256.Sum256(line), sha256.Sum256(a.Password)
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// peer is who is at the other end of a connection, as far as the kernel can tell.
type peer struct {
	addr     netip.AddrPort // over TCP
	pid      int32          // over a unix socket
	uid, gid uint32
	local    bool // over a unix socket: pid, uid and gid are known
}

func (p *peer) String() string {
	if p.local {
		return fmt.Sprintf("uid=%d gid=%d pid=%d", p.uid, p.gid, p.pid)
	}
	return p.addr.String()
}

// admits reports whether the access lets this peer in, its password aside.
func (a *Access) admits(p *peer) error {
	switch {
	case (a.UID != nil || a.GID != nil) && !p.local:
		return errors.New("it cannot be seen who that is")
	case a.UID != nil && p.uid != *a.UID:
		return fmt.Errorf("user %d is not management-client-user", p.uid)
	case a.GID != nil && p.gid != *a.GID:
		return fmt.Errorf("group %d is not management-client-group", p.gid)
	}
	return nil
}
