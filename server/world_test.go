package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"postern/auth"
	"postern/server/config"
	"postern/server/datachan"
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
		Devices: devices, Filter: w.filter, Lanes: w.lanes, Login: Login{Auth: w.login, Tokens: w.tokens, Watcher: w.watcher, Local: w.local}, Scripts: w.scripts, Log: zerolog.New(w.log).Level(zerolog.DebugLevel), Pool: w.pool, Status: w.status,
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

// A peer is a client: its socket or connection, control channel and data keys.
type peer struct {
	w    *world
	name string
	cert tls.Certificate
	cfg  ctltest.Config
	sock *linktest.Socket
	conn net.Conn    // over TCP instead
	out  chan []byte // on its way into conn
	ctl  *ctltest.Client

	mu      sync.Mutex
	to      netip.AddrPort // the server's address
	keys    map[tlsctl.KeyID]*datachan.Key
	made    map[tlsctl.KeyID][128]byte
	sendKey tlsctl.KeyID
	v1      bool
	scratch datachan.Scratch
	inside  [][]byte // payloads that came
	pings   int
	order   []uint64         // packet ids as they came
	under   []tlsctl.KeyID   // and their keys
	strange int              // data packets that did not open
	wait    func()           // before each data packet, if not nil
	control func(pkt []byte) // where control packets go, if not to ctl
	closed  chan struct{}
}

// deliver has control packets taken by f from now on.
func (p *peer) deliver(f func(pkt []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.control = f
}

// turn has the client talk to another of the server's addresses.
func (p *peer) turn(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

// deliverData has f called before each data packet is taken.
func (p *peer) deliverData(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = f
}

// use makes another control channel the peer's.
func (p *peer) use(ctl *ctltest.Client) {
	p.ctl.Close()
	p.ctl = ctl
	p.deliver(ctl.Deliver)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendKey = 0
}

// peer makes a client with a certificate of its name; nothing is said yet.
func (w *world) peer(name string, at netip.AddrPort, change ...func(*ctltest.Config)) *peer {
	w.t.Helper()
	cert, err := w.ca.Issue(name, x509.ExtKeyUsageClientAuth, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.peerWith(cert, at, change...)
}

// peerWith makes a client with a certificate.
func (w *world) peerWith(cert tls.Certificate, at netip.AddrPort, change ...func(*ctltest.Config)) *peer {
	w.t.Helper()
	p := w.newPeer(cert, change)
	p.sock, p.to = w.net.Client(at), hubAddr
	p.ctl = ctltest.NewClient(p.sendRaw, p.cfg)
	go p.receive()
	w.t.Cleanup(p.close)
	return p
}

// streamPeer makes a client with a certificate of its name, over TCP.
func (w *world) streamPeer(name string, at netip.AddrPort, change ...func(*ctltest.Config)) *peer {
	w.t.Helper()
	cert, err := w.ca.Issue(name, x509.ExtKeyUsageClientAuth, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.streamPeerWith(cert, at, change...)
}

// streamPeerWith makes a client with a certificate, over TCP.
func (w *world) streamPeerWith(cert tls.Certificate, at netip.AddrPort, change ...func(*ctltest.Config)) *peer {
	w.t.Helper()
	ours, theirs := net.Pipe()
	w.doors <- link.NewStream(addressed{ours, at}, link.TCPOptions{})
	return w.speak(cert, theirs, change...)
}

// speak makes a client with a certificate on a connection.
func (w *world) speak(cert tls.Certificate, conn net.Conn, change ...func(*ctltest.Config)) *peer {
	p := w.newPeer(cert, append(change, func(c *ctltest.Config) { c.Stream = true }))
	p.conn, p.out = conn, make(chan []byte, 4096)
	p.ctl = ctltest.NewClient(p.sendRaw, p.cfg)
	go p.receiveStream()
	go p.write()
	w.t.Cleanup(p.close)
	return p
}

func (w *world) newPeer(cert tls.Certificate, change []func(*ctltest.Config)) *peer {
	p := &peer{w: w, name: cert.Leaf.Subject.CommonName, cert: cert, keys: make(map[tlsctl.KeyID]*datachan.Key),
		made: make(map[tlsctl.KeyID][128]byte), closed: make(chan struct{})}
	p.cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: w.ca.Pool(), InsecureSkipVerify: true}
	for _, f := range change {
		f(&p.cfg)
	}
	p.v1 = strings.Contains(p.cfg.PeerInfo, "IV_PROTO=0")
	return p
}

// withLogin has a client send a user name and password.
func withLogin(user, password string) func(*ctltest.Config) {
	return func(c *ctltest.Config) { c.Login, c.Username, c.Password = true, user, password }
}

// oldClient is one that knows no peer ids.
func oldClient(c *ctltest.Config) {
	c.PeerInfo = "IV_VER=2.4.12\nIV_PLAT=linux\nIV_PROTO=0\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM\n"
}

// connect goes the whole way, and must arrive.
func (p *peer) connect() *peer {
	p.w.t.Helper()
	if err := p.ctl.Connect(p.w.ctx); err != nil {
		p.w.t.Fatalf("%s: connect: %v; log:\n%s", p.name, err, p.w.log)
	}
	synctest.Wait()
	return p
}

// renegotiate begins a renegotiation, waits until both ends have the key, and sends with it from then on.
func (p *peer) renegotiate() {
	p.w.t.Helper()
	if err := p.ctl.Renegotiate(p.w.ctx); err != nil {
		p.w.t.Fatalf("%s: renegotiate: %v; log:\n%s", p.name, err, p.w.log)
	}
	time.Sleep(50 * time.Millisecond)
	ids := p.ctl.KeyIDs()
	p.sendKey = ids[len(ids)-1]
}

func (p *peer) close() {
	p.ctl.Close()
	if p.sock != nil {
		p.sock.Close()
	} else {
		p.conn.Close()
	}
	<-p.closed
}

// sendRaw sends a packet as it is.
func (p *peer) sendRaw(pkt []byte) {
	if p.sock != nil {
		p.mu.Lock()
		to := p.to
		p.mu.Unlock()
		p.sock.Send([]link.Train{{Addr: to, Bytes: pkt, Size: len(pkt)}})
		return
	}
	p.out <- append(binary.BigEndian.AppendUint16(nil, uint16(len(pkt))), pkt...)
}

// write puts what is sent into the connection. It is a goroutine of its own: the control channel sends with its lock held,
// and time would stand still in a bubble where one goroutine waits for a lock and its holder for a deadline.
func (p *peer) write() {
	for {
		select {
		case b := <-p.out:
			p.conn.Write(b)
		case <-p.closed:
			return
		}
	}
}

func (p *peer) receive() {
	defer close(p.closed)
	for {
		trains, err := p.sock.Receive()
		if err != nil {
			return
		}
		for _, t := range trains {
			for b := t.Bytes; len(b) > 0; {
				n := min(t.Size, len(b))
				p.take(b[:n])
				b = b[n:]
			}
		}
	}
}

func (p *peer) receiveStream() {
	defer close(p.closed)
	var head [2]byte
	for {
		if _, err := io.ReadFull(p.conn, head[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(head[:]), 70000)
		if _, err := io.ReadFull(p.conn, b); err != nil {
			return
		}
		p.take(b)
	}
}

// take takes one packet of the server.
func (p *peer) take(pkt []byte) {
	h, ok := datachan.ParseHeader(pkt)
	if !ok {
		p.mu.Lock()
		deliver := p.control
		p.mu.Unlock()
		if deliver == nil {
			deliver = p.ctl.Deliver
		}
		deliver(pkt)
		return
	}
	key := p.key(tlsctl.KeyID(h.Key))
	p.mu.Lock()
	wait := p.wait
	p.mu.Unlock()
	if wait != nil {
		wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if key == nil {
		p.strange++
		return
	}
	key.Lock()
	payload, id, err := key.Open(append(make([]byte, 0, len(pkt)+datachan.Room), pkt...), &p.scratch)
	key.Unlock()
	switch {
	case errors.Is(err, datachan.ErrReplay): // S073
		p.w.t.Errorf("%s got two packets of one id under key %d", p.name, h.Key)
	case err != nil:
		p.strange++
	case datachan.Classify(payload) == datachan.Ping:
		p.pings++
	default:
		p.inside = append(p.inside, bytes.Clone(payload))
		p.order = append(p.order, id)
		p.under = append(p.under, tlsctl.KeyID(h.Key))
	}
}

// key is the client's end of the data key with an id; nil when it has none yet.
func (p *peer) key(id tlsctl.KeyID) *datachan.Key {
	k, ok := p.ctl.Key(id)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[id] == nil || p.made[id] != k.ToServer {
		key, err := p.format(id).NewKey(k.ToServer[:], k.ToClient[:])
		if err != nil {
			p.w.t.Errorf("%s: %v", p.name, err)
			return nil
		}
		p.keys[id], p.made[id] = key, k.ToServer
	}
	return p.keys[id]
}

// format is what a client makes of the options it was pushed.
func (p *peer) format(id tlsctl.KeyID) datachan.Config {
	c := datachan.Config{ID: datachan.KeyID(id), Peer: p.peerID(), V2: !p.v1, Cipher: p.option("cipher"), Digest: p.w.cfg.Auth}
	if c.Cipher == "" {
		c.Cipher = p.w.cfg.CipherFallback
	}
	for _, o := range p.ctl.Options() {
		switch w := strings.Fields(o); {
		case w[0] == "protocol-flags":
			c.Epoch = slices.Contains(w, "aead-epoch")
		case o == "comp-lzo no":
			c.Framing = datachan.Stub
		case o == "compress stub-v2":
			c.Framing = datachan.StubV2
		}
	}
	return c
}

// option is the first word behind a pushed option's name.
func (p *peer) option(name string) string {
	for _, o := range p.ctl.Options() {
		if w := strings.Fields(o); len(w) > 1 && w[0] == name {
			return w[1]
		}
	}
	return ""
}

func (p *peer) peerID() datachan.PeerID {
	var id datachan.PeerID
	fmt.Sscan(p.option("peer-id"), &id)
	return id
}

// addr4 and addr6 are the client's own addresses, as they were pushed.
func (p *peer) addr4() netip.Addr { return netip.MustParseAddr(p.option("ifconfig")) }
func (p *peer) addr6() netip.Addr { return netip.MustParsePrefix(p.option("ifconfig-ipv6")).Addr() }

// seal makes a data packet under the key that the client sends with.
func (p *peer) seal(payload []byte) []byte { return p.sealUnder(p.sendKey, payload) }

func (p *peer) sealUnder(id tlsctl.KeyID, payload []byte) []byte {
	p.w.t.Helper()
	key := p.key(id)
	if key == nil {
		p.w.t.Fatalf("%s has no key %d", p.name, id)
	}
	n, _ := key.Reserve(1)
	b := make([]byte, len(payload)+datachan.Room)
	var s datachan.Scratch
	return b[:key.Seal(b, payload, n, &s)]
}

// send sends a payload through the tunnel.
func (p *peer) send(payload []byte) {
	p.w.t.Helper()
	p.sendRaw(p.seal(payload))
	synctest.Wait()
}

// got is the payloads that came since it was asked last.
func (p *peer) got() [][]byte {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.inside
	p.inside, p.order, p.under = nil, nil, nil
	return list
}

// mustReach sends a packet to the host behind the server and back.
func (p *peer) mustReach() {
	p.w.t.Helper()
	p.mustReachFrom(p.addr4(), lanHost)
}

func (p *peer) mustReachFrom(inside, behind netip.Addr) {
	p.w.t.Helper()
	p.w.written()
	p.got()
	ask, answer := udp(inside, behind, []byte("ask")), udp(behind, inside, []byte("answer"))
	p.send(ask)
	expect(p.w.t, p.name+" to "+behind.String(), p.w.written(), ask)
	p.w.inject(answer)
	expect(p.w.t, behind.String()+" to "+p.name, p.got(), answer)
}

// expect compares packets with what they should be.
func expect(t *testing.T, what string, got [][]byte, want ...[]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d packets, want %d", what, len(got), len(want))
		return
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("%s: packet %d is\n%x, want\n%x", what, i, got[i], want[i])
		}
	}
}

// refusal connects a client that must not get in, and returns what it was told and after how long.
func (p *peer) refusal() (text string, after time.Duration) {
	p.w.t.Helper()
	began := time.Now()
	err := p.ctl.Connect(p.w.ctx)
	refused := (*ctltest.Refused)(nil)
	if !errors.As(err, &refused) {
		p.w.t.Fatalf("%s: connect: %v, want a refusal; log:\n%s", p.name, err, p.w.log)
	}
	return refused.Text, time.Since(began)
}

// doorway is a listener for streams.
type doorway struct {
	streams chan *link.Stream
	once    sync.Once
	closed  chan struct{}
	mu      sync.Mutex
}

func (d *doorway) done() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed == nil {
		d.closed = make(chan struct{})
	}
	return d.closed
}

func (d *doorway) Accept() (*link.Stream, error) {
	select {
	case s := <-d.streams:
		return s, nil
	case <-d.done():
		return nil, net.ErrClosed
	}
}

func (d *doorway) Close() error {
	d.once.Do(func() { close(d.done()) })
	return nil
}

// addressed is a pipe's end that says where it comes from.
type addressed struct {
	net.Conn
	from netip.AddrPort
}

func (a addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(a.from) }

// logBook holds log lines.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

// count is how many lines contain all the texts.
func (l *logBook) count(texts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
line:
	for _, s := range l.lines {
		for _, want := range texts {
			if !strings.Contains(s, want) {
				continue line
			}
		}
		n++
	}
	return n
}

// loginFunc is an authenticator.
type loginFunc func(ctx context.Context, r *auth.Request) (*auth.Identity, error)

func (f loginFunc) Authenticate(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
	return f(ctx, r)
}

// passwords is an authenticator that knows one password for everybody.
var passwords = loginFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	if string(r.Password) != "secret" {
		return nil, &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}
	}
	return &auth.Identity{Name: r.Username}, nil
})
