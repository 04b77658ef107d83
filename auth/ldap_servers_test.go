package auth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/auth"
)

// L09: the service account's connection is used again, each user's is not, and one that the directory has closed
// meanwhile harms nobody.
func TestPool(t *testing.T) {
	s := startStub(t, &stub{})
	l := newLDAP(t, stubOptions(s))
	for range 5 {
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.connections(); n != 6 {
		t.Errorf("%d connections for 5 logins, want 1 of the service account and 5 of the user", n)
	}
	of := make(map[int][]string) // whom each connection was bound as
	for _, r := range s.requests(ldap.ApplicationBindRequest) {
		of[r.conn] = append(of[r.conn], r.dn)
	}
	for conn, names := range of {
		if len(names) != 1 {
			t.Errorf("connection %d was bound as %q", conn, names)
		}
	}
	s.mu.Lock()
	for _, c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	for range 3 {
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatalf("after the directory closed its connections: %v", err)
		}
	}
}

// A directory that breaks off a connection that has waited, at the first question on it, is asked again on a new one.
func TestStaleConnection(t *testing.T) {
	s := &stub{}
	var mu sync.Mutex
	searches := make(map[net.Conn]int)
	s.intercept = func(c net.Conn, op ber.Tag, _ int64) bool {
		if op != ldap.ApplicationSearchRequest {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if searches[c]++; searches[c] > 1 {
			c.Close()
			return true
		}
		return false
	}
	startStub(t, s)
	l := newLDAP(t, stubOptions(s))
	for range 4 {
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatal(err)
		}
	}
}

// L07, S061: when the first server stalls, the second is asked after one step's time; the password goes to one of them.
func TestFailover(t *testing.T) {
	for name, step := range map[string]ber.Tag{"bind": ldap.ApplicationBindRequest, "search": ldap.ApplicationSearchRequest} {
		t.Run(name, func(t *testing.T) {
			stalls := startStub(t, &stub{intercept: func(_ net.Conn, op ber.Tag, _ int64) bool { return op == step }})
			second := startStub(t, &stub{})
			o := stubOptions(stalls, second)
			o.Timeout = 500 * time.Millisecond
			l := newLDAP(t, o)
			began := time.Now()
			if _, err := login(l, "alice", "secret"); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < o.Timeout || took > o.Timeout+4*time.Second {
				t.Errorf("took %v, want the %v of one step and little more", took, o.Timeout)
			}
			before := stalls.connections()
			if _, err := login(l, "alice", "secret"); err != nil {
				t.Fatal(err)
			}
			if n := stalls.connections() - before; n != 0 {
				t.Error("the server that stalls was asked again at once")
			}
			if n := len(stalls.userBinds()); n != 0 {
				t.Errorf("the first server saw %d passwords", n)
			}
		})
	}
}

// L09: while a directory that failed is being tried by one login the others are told at once; it is not flooded, and
// when it is back everybody gets in again.
func TestOneLoginTries(t *testing.T) {
	var mu sync.Mutex
	silent := true
	s := startStub(t, &stub{intercept: func(net.Conn, ber.Tag, int64) bool {
		mu.Lock()
		defer mu.Unlock()
		return silent
	}})
	o := stubOptions(s)
	o.Timeout = 400 * time.Millisecond
	l := newLDAP(t, o)
	_, err := login(l, "alice", "secret")
	wantBroken(t, err, "")
	time.Sleep(150 * time.Millisecond) // the first pause is 100 ms
	before := s.connections()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := login(l, "alice", "secret")
			if err == nil {
				t.Error("logged in at a silent directory")
			}
		})
	}
	wg.Wait()
	if n := s.connections() - before; n < 1 || n > 3 { // one at a time
		t.Errorf("%d connections of 50 logins to a directory that had failed, want 1", n)
	}
	mu.Lock()
	silent = false
	mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := login(l, "alice", "secret"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for range 20 {
		wg.Go(func() {
			if _, err := login(l, "alice", "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// S058: 200 logins at a directory that says nothing: at most 32 connections, goroutines within bounds, and none left.
func TestStalledDirectory(t *testing.T) {
	s := startStub(t, &stub{intercept: func(net.Conn, ber.Tag, int64) bool { return true }})
	o := stubOptions(s)
	o.Timeout = time.Second
	l := newLDAP(t, o)
	before := runtime.NumGoroutine()
	const logins = 200
	var wg sync.WaitGroup
	began := time.Now()
	for range logins {
		wg.Go(func() {
			_, err := login(l, "alice", "secret")
			var denied *auth.Denied
			if err == nil || errors.As(err, &denied) {
				t.Errorf("got %v, want an error that is no denial", err)
			}
		})
	}
	for s.connections() < 32 && time.Since(began) < 5*time.Second {
		time.Sleep(time.Millisecond)
	}
	if n := s.connections(); n != 32 {
		t.Errorf("%d connections at once, want 32", n)
	}
	// One of each login, two of each connection here, and two at the other end in this process.
	if n := runtime.NumGoroutine() - before; n > logins+32*4 {
		t.Errorf("%d goroutines more than before", n)
	}
	wg.Wait()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+32; time.Sleep(10 * time.Millisecond) { // the stub's may stay
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// A resolver knows the SRV records of some names.
type resolver struct {
	mu      sync.Mutex
	records map[string][]*net.SRV // by _service._proto.name
	broken  bool
	asked   int
}

func (r *resolver) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	records := r.records["_"+service+"._"+proto+"."+name]
	switch {
	case r.broken:
		return "", nil, &net.DNSError{Err: "server misbehaving", Name: name}
	case records == nil:
		return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return name, records, nil
}

// L08: servers come from DNS, with certificates for their own names and within the domain only; what DNS said last holds
// while it is silent.
func TestSRV(t *testing.T) {
	ca := newCA(t)
	host := func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"localhost"} }
	s := startStub(t, &stub{tls: ca.server(t, host)})
	_, text, _ := net.SplitHostPort(s.listener.Addr().String())
	port, _ := strconv.Atoi(text)
	at := func(target string) []*net.SRV { return []*net.SRV{{Target: target, Port: uint16(port)}} }

	r := &resolver{records: map[string][]*net.SRV{"_ldaps._tcp.localhost": at("LOCALHOST.")}}
	o := stubOptions()
	o.Domain, o.CA, o.Resolver = "localhost", ca.pem, r
	l := newLDAP(t, o)
	for range 3 {
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if r.asked != 1 {
		t.Errorf("DNS was asked %d times", r.asked)
	}
	for name, c := range map[string]struct {
		r    *resolver
		want string
	}{
		"elsewhere":  {&resolver{records: map[string][]*net.SRV{"_ldaps._tcp.localhost": at("ldap.evil.example.")}}, "not in that domain"},
		"look-alike": {&resolver{records: map[string][]*net.SRV{"_ldaps._tcp.localhost": at("evillocalhost.")}}, "not in that domain"},
		"nothing":    {&resolver{}, "no such host"},
		"silent":     {&resolver{broken: true}, "misbehaving"},
		"refused":    {&resolver{records: map[string][]*net.SRV{"_ldap._tcp.localhost": at("localhost.")}}, "636"}, // as ldaps at the usual port
	} {
		o.Resolver = c.r
		_, err := login(newLDAP(t, o), "alice", "secret")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	t.Run("StartTLS", func(t *testing.T) {
		s := &stub{}
		s.intercept = upgrade(s, ca.server(t, host), nil)
		startStub(t, s)
		_, text, _ := net.SplitHostPort(s.listener.Addr().String())
		port, _ := strconv.Atoi(text)
		o := o
		o.StartTLS, o.Resolver = true, &resolver{records: map[string][]*net.SRV{"_ldap._tcp.localhost": {{Target: "localhost.", Port: uint16(port)}}}}
		if _, err := login(newLDAP(t, o), "alice", "secret"); err != nil {
			t.Error(err)
		}
	})
	t.Run("after those of the configuration", func(t *testing.T) {
		o := o
		first := startStub(t, &stub{tls: ca.server(t, nil)})
		o.URLs, o.Resolver = []string{first.URL}, r
		if _, err := login(newLDAP(t, o), "alice", "secret"); err != nil || first.connections() == 0 {
			t.Errorf("%v, with %d connections to the first", err, first.connections())
		}
	})
}

// L06: a server that wants a certificate gets ours.
func TestClientCertificate(t *testing.T) {
	ca := newCA(t)
	ours := ca.server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(ours.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	config := ca.server(t, nil)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	config.ClientCAs.AddCert(ca.cert)
	s := startStub(t, &stub{tls: config})
	o := stubOptions(s)
	o.CA = ca.pem
	_, err = login(newLDAP(t, o), "alice", "secret")
	wantBroken(t, err, "certificate required")
	o.Cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.Certificate[0]})
	o.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	if _, err := login(newLDAP(t, o), "alice", "secret"); err != nil {
		t.Error(err)
	}
	o.Key = []byte("nothing")
	if _, err := auth.NewLDAP(o, nopLog); err == nil || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("without a key: %v", err)
	}
}

// S046: a wrong password that comes again goes nowhere for a while, another one does, and the right one clears it.
func TestWrongPasswordRemembered(t *testing.T) {
	var tried []string
	s := startStub(t, &stub{bind: func(dn, password string) *ber.Packet {
		if dn == serviceDN {
			return nil
		}
		tried = append(tried, password)
		if password == "right" {
			return nil
		}
		return bindResult(49, "")
	}})
	throttle := auth.NewThrottle(auth.ThrottleOptions{}, nopLog)
	a := throttle.Limit(throttle.Spare(newLDAP(t, stubOptions(s))))
	for _, password := range []string{"wrong", "wrong", "wrong", "other", "wrong", "other", "right", "wrong"} {
		_, err := login(a, "alice", password)
		if (password == "right") != (err == nil) {
			t.Errorf("%s: %v", password, err)
		}
		if err != nil {
			wantDenied(t, err, "wrong password", auth.PublicRefusal)
		}
	}
	if want := []string{"wrong", "other", "right", "wrong"}; !slices.Equal(tried, want) {
		t.Errorf("the directory saw %q, want %q", tried, want)
	}
	// Another user's same password is another one.
	if _, err := login(a, "bob", "wrong"); err == nil {
		t.Error("bob is in")
	}
	if n := len(tried); n != 5 {
		t.Errorf("%d passwords tried, want 5", n)
	}
}
