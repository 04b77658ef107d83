package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"postern/server/link"
	"postern/server/management"
	"postern/tlsctl"
)

// A Snapshot is what the server tells of itself.
type Snapshot struct {
	Time     time.Time         `json:"time"`
	Started  time.Time         `json:"started"`
	Device   string            `json:"device"`
	Clients  []ClientStatus    `json:"clients"`
	HalfOpen int               `json:"half_open"`
	Pool     PoolStatus        `json:"pool"`            // of all pools together
	Pools    []PoolStatus      `json:"pools,omitempty"` // each, where there are several
	Drops    map[string]uint64 `json:"drops"`
	Panics   uint64            `json:"panics"`
	// Goroutines of the whole process: what grows with time leaks.
	Goroutines int `json:"goroutines"`
	// AuditTrouble is why audit records cannot be written now.
	AuditTrouble string `json:"audit_trouble,omitempty"`
	// Unread is how many events were dropped because a management client did not read (S098).
	Unread uint64 `json:"management_events_dropped,omitempty"`
}

// PoolStatus is how full an address pool is.
type PoolStatus struct {
	Name   string `json:"name,omitempty"`
	Device string `json:"device,omitempty"`
	Leased int    `json:"leased"`
	Size   int    `json:"size"`
}

// ClientStatus is one client of a Snapshot. Byte counts are outer packets'.
type ClientStatus struct {
	ID       uint64         `json:"id"` // one for each session of this run, from 0
	Name     string         `json:"name"`
	User     string         `json:"user,omitempty"`
	Session  string         `json:"session"`
	Real     netip.AddrPort `json:"real_address"`
	Stream   bool           `json:"tcp"`
	Addr4    netip.Addr     `json:"address4,omitzero"`
	Addr6    netip.Addr     `json:"address6,omitzero"`
	Networks []netip.Prefix `json:"networks,omitempty"`
	Received uint64         `json:"received"`
	Sent     uint64         `json:"sent"`
	Since    time.Time      `json:"since"`
	LastSeen time.Time      `json:"last_seen"`
	Policy   string         `json:"policy,omitempty"` // where there are policies
	Pool     string         `json:"pool,omitempty"`   // where there are several pools
	Peer     int64          `json:"peer"`
	Cipher   string         `json:"cipher,omitempty"`
	Version  string         `json:"version,omitempty"`
	Platform string         `json:"platform,omitempty"`
	MACs     []string       `json:"hardware_addresses,omitempty"` // learned behind it, with a tap device
	PathMTU  int            `json:"path_mtu,omitempty"`           // as the kernel knows it; 0 over TCP
	Unsent   uint64         `json:"unsent,omitempty"`             // packets that found its queue full, over TCP
}

// Snapshot gathers the server's state. Any goroutine.
func (s *Server) Snapshot() Snapshot {
	snap := Snapshot{Time: time.Now(), Started: s.started, Device: s.deviceNames(), Drops: s.drops.snapshot(),
		Panics: tlsctl.Panics() + s.panics.Load(), Goroutines: runtime.NumGoroutine(), Clients: []ClientStatus{}}
	snap.Pool.Leased, snap.Pool.Size, _ = s.usage()
	if len(s.zones) > 1 {
		for _, z := range s.zones {
			p := PoolStatus{Name: z.name, Device: z.device.Name()}
			p.Leased, p.Size = z.leases.usage()
			snap.Pools = append(snap.Pools, p)
		}
	}
	if m := s.parts.Management; m != nil {
		snap.Unread = m.Dropped()
	}
	if err := s.auditTrouble(); err != nil {
		snap.AuditTrouble = err.Error()
	}
	for _, c := range s.table.all(nil) {
		if c.gone.Load() {
			continue // it only waits for its last words to arrive
		}
		if !c.established.Load() {
			snap.HalfOpen++
			continue
		}
		c.mu.Lock()
		g, cipher := c.grant, c.cipher
		c.mu.Unlock()
		p := c.path.Load()
		pool := ""
		if len(s.zones) > 1 {
			pool = g.ruling.zone.name
		}
		snap.Clients = append(snap.Clients, ClientStatus{
			ID: uint64(c.id), Name: g.name, User: g.user, Session: c.sid.String()[:8], Real: p.addr, Stream: c.stream,
			Addr4: g.addr4, Addr6: g.addr6, Networks: g.iroutes,
			Received: c.rx.bytes.Load(), Sent: c.tx.bytes.Load(), Since: c.opened,
			LastSeen: s.started.Add(time.Duration(c.rx.last.Load()) * time.Second),
			Policy:   g.ruling.terms().Name, Pool: pool,
			Peer: int64(g.peer), Cipher: cipher, Version: g.peerInfo.Version(), Platform: g.peerInfo.Platform(),
			PathMTU: p.mtu, Unsent: unsent(p.sock), MACs: s.bridge.stations(c),
		})
	}
	slices.SortFunc(snap.Clients, func(a, b ClientStatus) int {
		if d := strings.Compare(a.Name, b.Name); d != 0 {
			return d
		}
		return a.Since.Compare(b.Since)
	})
	return snap
}

// unsent is how many packets a stream has dropped. A socket of many clients is in the lanes' report.
func unsent(sock link.Socket) uint64 {
	if s, ok := sock.(*link.Stream); ok {
		return s.Stats().Dropped
	}
	return 0
}

// statusTitle is the TITLE line: tools want its first two words to be OpenVPN and a version of it.
const statusTitle = management.DefaultTitle

const timeForm = "2006-01-02 15:04:05"

// realAddress is an outside address as OpenVPN 2.4 to 2.6 write it: IPv6 without its port.
func realAddress(a netip.AddrPort) string {
	if a.Addr().Is6() {
		return a.Addr().String()
	}
	return a.String()
}

// StatusText renders a snapshot as an OpenVPN status file of the given version, 1 to 3.
func (snap *Snapshot) StatusText(version int) []byte {
	var b bytes.Buffer
	if version <= 1 {
		fmt.Fprintf(&b, "OpenVPN CLIENT LIST\nUpdated,%s\nCommon Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n", snap.Time.Format(timeForm))
		for _, c := range snap.Clients {
			fmt.Fprintf(&b, "%s,%s,%d,%d,%s\n", c.Name, realAddress(c.Real), c.Received, c.Sent, c.Since.Format(timeForm))
		}
		b.WriteString("ROUTING TABLE\nVirtual Address,Common Name,Real Address,Last Ref\n")
		for _, c := range snap.Clients {
			for _, v := range c.inside() {
				fmt.Fprintf(&b, "%s,%s,%s,%s\n", v, c.Name, realAddress(c.Real), c.LastSeen.Format(timeForm))
			}
		}
		b.WriteString("GLOBAL STATS\nMax bcast/mcast queue length,0\nEND\n")
		return b.Bytes()
	}
	sep := ","
	if version == 3 {
		sep = "\t"
	}
	line := func(fields ...any) {
		for i, f := range fields {
			if i > 0 {
				b.WriteString(sep)
			}
			if text, ok := f.(string); ok {
				f = oneField(text)
			}
			fmt.Fprint(&b, f)
		}
		b.WriteByte('\n')
	}
	shown := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	line("TITLE", statusTitle)
	line("TIME", snap.Time.Format(timeForm), snap.Time.Unix())
	line("HEADER", "CLIENT_LIST", "Common Name", "Real Address", "Virtual Address", "Virtual IPv6 Address", "Bytes Received",
		"Bytes Sent", "Connected Since", "Connected Since (time_t)", "Username", "Client ID", "Peer ID", "Data Channel Cipher")
	for _, c := range snap.Clients {
		user := c.User
		if user == "" {
			user = "UNDEF"
		}
		line("CLIENT_LIST", c.Name, realAddress(c.Real), shown(c.Addr4), shown(c.Addr6), c.Received, c.Sent,
			c.Since.Format(timeForm), c.Since.Unix(), user, c.ID, c.Peer, c.Cipher)
	}
	line("HEADER", "ROUTING_TABLE", "Virtual Address", "Common Name", "Real Address", "Last Ref", "Last Ref (time_t)")
	for _, c := range snap.Clients {
		for _, v := range c.inside() {
			line("ROUTING_TABLE", v, c.Name, realAddress(c.Real), c.LastSeen.Format(timeForm), c.LastSeen.Unix())
		}
	}
	line("GLOBAL_STATS", "Max bcast/mcast queue length", 0)
	line("GLOBAL_STATS", "dco_enabled", 0)
	b.WriteString("END\n")
	return b.Bytes()
}

// oneField writes what could end a field or a line as \xNN: a login may hold commas (S089).
func oneField(s string) string {
	special := func(r rune) bool { return r < ' ' || r == 0x7f || r == ',' || r == '"' }
	if !strings.ContainsFunc(s, special) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if special(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// inside lists a client's inside addresses and networks.
func (c *ClientStatus) inside() (list []string) {
	for _, a := range []netip.Addr{c.Addr4, c.Addr6} {
		if a.IsValid() {
			list = append(list, a.String())
		}
	}
	for _, n := range c.Networks {
		list = append(list, n.String())
	}
	for _, a := range c.MACs {
		list = append(list, a+"@0") // as OpenVPN writes them, with the number of the VLAN
	}
	return list
}

// writeStatus rewrites the status file.
func (s *Server) writeStatus(l *live) {
	snap := s.Snapshot()
	if err := s.parts.Status.Save(snap.StatusText(l.cfg.StatusVersion)); err != nil {
		s.alarmOnce("status file", err)
	}
}

// serveStatus answers postern status on a local socket, and postern why, as HTTP: GET /status gives a Snapshot.
func (s *Server) serveStatus(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /why", s.serveWhy)
	mux.HandleFunc("GET /lanes", s.serveLanes)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Snapshot()) // a reader that has gone needs no answer
	})
	hs := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { hs.Close() })
	defer stop()
	if err := hs.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		s.log.Error().Err(err).Msg("status socket")
	}
}

// LogStatus writes the status to the log, as SIGUSR2 asks.
func (s *Server) LogStatus(log zerolog.Logger) {
	snap := s.Snapshot()
	for line := range strings.Lines(string(snap.StatusText(s.live.Load().cfg.StatusVersion))) {
		log.Info().Msg(strings.TrimRight(line, "\n"))
	}
}
