package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server/config"
	"postern/server/hooks"
	"postern/server/link"
	"postern/server/link/linktest"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
	"postern/tun"
	"postern/tun/tuntest"
)

// The places of every story. The second address is another socket of the same listener: the other lane's.
var (
	hubAddr   = netip.MustParseAddrPort("192.0.2.1:1194")
	hubAddr2  = netip.MustParseAddrPort("192.0.2.1:11194")
	homeAddr  = netip.MustParseAddrPort("198.51.100.7:40000")
	otherAddr = netip.MustParseAddrPort("198.51.100.8:40000")
	thirdAddr = netip.MustParseAddrPort("203.0.113.9:40000")

	lanHost  = netip.MustParseAddr("172.16.0.9") // somebody behind the server
	lanHost6 = netip.MustParseAddr("fd00:16::9")
)

// A world is a whole server in memory: a network, a TUN device, an authority, and peers.
type world struct {
	t      *testing.T
	fatal  func(...any)   // of t, which may be a benchmark
	cfg    *config.Config // to be changed before start
	ca     *ctltest.Authority
	net    *linktest.Net
	dev    *tuntest.Device   // the first of devs
	devs   []*tuntest.Device // by zone
	filter Filter
	device tuntest.Options
	// wrapDevice, if not nil, goes between the server and the device.
	wrapDevice func(tun.Device) tun.Device
	lanes      int
	apart      bool // the second address is a listener of its own
	login      auth.Authenticator
	scripts    *hooks.Runner // nil: none
	local      auth.Watcher
	watcher    auth.Watcher
	tokens     *auth.Tokens
	pool       StateFile
	status     StateFile
	audit      Auditor
	srv        *Server
	log        *logBook
	pathMTU    func(netip.AddrPort, link.Local) (int, error) // what the kernel says of paths; nil: it is not asked
	doors      chan *link.Stream                             // streams to be accepted; closed with the server
	cancel     context.CancelFunc
	ended      chan error
	ctx        context.Context // of everything a peer waits for
	panics     uint64          // that are meant to be: those of earlier stories, and of this one
}

// inBubble runs a story in a bubble, with a world of its own. The server ends with it, without an error or a panic.
func inBubble(t *testing.T, story func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { story(t, newWorld(t)) })
}

func newWorld(t testing.TB) *world {
	t.Helper()
	tt, _ := t.(*testing.T)
	w := &world{log: new(logBook), lanes: 1, ended: make(chan error, 1), doors: make(chan *link.Stream), panics: tlsctl.Panics()}
	var err error
	if w.ca, err = ctltest.NewAuthority("Test CA"); err != nil {
		t.Fatal(err)
	}
	w.cfg = &config.Config{
		MaxClients: 100, MTU: 1500,
		Addr4: netip.MustParsePrefix("10.8.0.1/24"), Addr6: netip.MustParsePrefix("fd00:8::1/64"),
		Pool4:     config.Range{First: netip.MustParseAddr("10.8.0.2"), Last: netip.MustParseAddr("10.8.0.20")},
		Pool6:     config.Range{First: netip.MustParseAddr("fd00:8::1000"), Last: netip.MustParseAddr("fd00:8::1fff")},
		Pool6Bits: 64,
		CA:        inline("CERTIFICATE", w.ca.Cert.Raw),
		TLSMin:    tls.VersionTLS12, HandWindow: time.Minute, TranWindow: time.Hour, TLSTimeout: 2 * time.Second,
		DataCiphers: []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"}, ReplayWindow: 2048, MaxPacket: 1250,
		Push: []string{"topology subnet"},
	}
	w.t, w.fatal = tt, t.Fatal
	w.ownCertificate(365 * 24 * time.Hour)
	return w
}

func inline(kind string, der []byte) config.Material {
	return config.Material{Name: "[inline]", Bytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})}
}

// ownCertificate gives the server a certificate that is good for some time from now.
func (w *world) ownCertificate(life time.Duration) {
	server, err := w.ca.Issue("server", x509.ExtKeyUsageServerAuth, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(life) })
	if err != nil {
		w.fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		w.fatal(err)
	}
	w.cfg.Cert, w.cfg.Key = inline("CERTIFICATE", server.Leaf.Raw), inline("PRIVATE KEY", key)
}

// start opens and runs the server.
func (w *world) start() *world {
	w.t.Helper()
	w.net = linktest.New(hubAddr)
	w.devs = nil
	var devices []tun.Device
	for range w.cfg.AllPools() {
		dev := tuntest.New(w.device)
		w.devs = append(w.devs, dev)
		device := tun.Device(dev)
		if w.wrapDevice != nil {
			device = w.wrapDevice(device)
		}
		devices = append(devices, device)
	}
	w.dev = w.devs[0]
	sockets := []link.Socket{w.net.Server(), w.net.Client(hubAddr2)}
	listeners := []UDPListener{{Local: hubAddr, Sockets: sockets}}
	if w.apart {
		listeners = []UDPListener{{Local: hubAddr, Sockets: sockets[:1]}, {Local: hubAddr2, Sockets: sockets[1:]}}
	}
	srv, err := New(w.cfg, Parts{
		PathMTU: w.pathMTU, UDP: listeners, TCP: []StreamListener{&doorway{streams: w.doors}},
		Devices: devices, Filter: w.filter, Lanes: w.lanes, Login: Login{Auth: w.login, Tokens: w.tokens, Watcher: w.watcher, Local: w.local}, Scripts: w.scripts, Log: zerolog.New(w.log).Level(zerolog.DebugLevel), Pool: w.pool, Status: w.status, Audit: w.audit,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.srv = srv
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	var done context.CancelFunc
	w.ctx, done = context.WithTimeout(context.Background(), 24*time.Hour)
	go func() { w.ended <- srv.Run(ctx) }()
	w.t.Cleanup(func() {
		w.stop()
		done()
	})
	synctest.Wait()
	return w
}

// stop ends the server and returns how long that took. It may be called again.
func (w *world) stop() time.Duration {
	w.t.Helper()
	began := time.Now()
	w.cancel()
	if w.ended != nil {
		if err := <-w.ended; err != nil {
			w.t.Errorf("the server ended with %v", err)
		}
		w.ended = nil
	}
	if n := w.srv.Snapshot().Panics - w.panics; n != 0 && !w.t.Failed() {
		w.t.Errorf("%d panics:\n%s", n, w.log)
	}
	return time.Since(began)
}

// clients is the names of those who are connected.
func (w *world) clients() (names []string) {
	for _, c := range w.srv.Snapshot().Clients {
		names = append(names, c.Name)
	}
	return names
}

// find is the client of a name as status shows it.
func (w *world) find(name string) *ClientStatus {
	w.t.Helper()
	for _, c := range w.srv.Snapshot().Clients {
		if c.Name == name {
			return &c
		}
	}
	w.t.Fatalf("%s is not connected; log:\n%s", name, w.log)
	return nil
}

// drops is how many packets died for a reason.
func (w *world) drops(why drop) uint64 { return w.srv.drops[why].Load() }

// inject gives the server a packet from behind it.
func (w *world) inject(b []byte) { w.injectGSO(tun.Packet{Bytes: b}) }

func (w *world) injectGSO(p tun.Packet) {
	w.t.Helper()
	if !w.dev.Inject(0, p) {
		w.t.Error("the device is closed")
	}
	synctest.Wait()
}

// written is what the server has written to the device since it was asked last.
func (w *world) written() (packets [][]byte) {
	synctest.Wait()
	for {
		select {
		case p := <-w.dev.Written():
			n := p.Packet.Segments()
			for i := range n {
				b, err := p.Packet.Segment(i)
				if err != nil {
					w.t.Fatalf("written: %v", err)
				}
				packets = append(packets, bytes.Clone(b))
			}
		default:
			return packets
		}
	}
}
