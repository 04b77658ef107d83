package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
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

	"postern/server/datachan"
	"postern/server/link"
	"postern/server/link/linktest"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

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
