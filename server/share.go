package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"postern/server/config"
	"postern/server/link"
)

// The bounds of port-share: connections handed on at a time, in all and from one source, and how long the other service
// may take to answer the call.
const (
	maxShared          = 1024
	maxSharedPerSource = 64
	shareDial          = 5 * time.Second
)

// sharer hands connections that are not OpenVPN's to the service that shares the port. One that cannot be handed on is
// closed.
type sharer struct {
	cfg config.PortShare

	mu       sync.Mutex
	open     int
	bySource map[netip.Prefix]int
}

var errShareFull = errors.New("too many connections for the service that shares the port")

func newSharer(cfg config.PortShare) *sharer {
	return &sharer{cfg: cfg, bySource: make(map[netip.Prefix]int)}
}

func (s *sharer) enter(source netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= maxShared || s.bySource[source] >= maxSharedPerSource {
		return false
	}
	s.open++
	s.bySource[source]++
	return true
}

func (s *sharer) leave(source netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.bySource[source]--; s.bySource[source] == 0 {
		delete(s.bySource, source)
	}
}

// carry connects st with the service, what st has said already first, until both sides are done or st is closed.
func (s *sharer) carry(ctx context.Context, st *link.Stream) error {
	from := st.RemoteAddr()
	source, _ := sourceOf(from.Addr())
	if !s.enter(source) {
		return errShareFull
	}
	defer s.leave(source)
	dialer := net.Dialer{Timeout: shareDial}
	service, err := dialer.DialContext(ctx, "tcp", s.cfg.Target())
	if err != nil {
		return fmt.Errorf("call it: %w", err)
	}
	defer service.Close()
	forget, err := s.note(from, service.LocalAddr())
	if err != nil {
		return fmt.Errorf("note the client's address: %w", err)
	}
	defer forget()
	client, said := st.Detach()
	if tcp, ok := client.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) // who vanishes must not keep its place
	}
	if _, err := service.Write(said); err != nil {
		return fmt.Errorf("pass on what was said: %w", err)
	}
	var both sync.WaitGroup
	both.Go(func() { pour(service, client) })
	both.Go(func() { pour(client, service) })
	both.Wait()
	return nil
}

// pour copies from one connection to the other until its end, and passes the end on.
func pour(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		half.CloseWrite()
		return
	}
	to.Close() // broken: the other way has no use either
	from.Close()
}

// note writes the file by which the service learns who a connection comes from: it is named after our end of the
// connection to the service, and holds the client's address.
func (s *sharer) note(from netip.AddrPort, ours net.Addr) (forget func(), err error) {
	if s.cfg.Dir == "" {
		return func() {}, nil
	}
	at, ok := ours.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%v is no address", ours)
	}
	name := filepath.Join(s.cfg.Dir, openVPNAddress(at.AddrPort()))
	if err := os.WriteFile(name, []byte(openVPNAddress(from)), 0o640); err != nil {
		os.Remove(name) // it may be there, and hold half an address
		return nil, err
	}
	return func() { os.Remove(name) }, nil
}

// openVPNAddress is an address as OpenVPN writes it.
func openVPNAddress(a netip.AddrPort) string {
	if addr := a.Addr().Unmap(); addr.Is4() {
		return fmt.Sprintf("[AF_INET]%v:%d", addr, a.Port())
	}
	return fmt.Sprintf("[AF_INET6]%v:%d", a.Addr(), a.Port())
}
