package dnsforward

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
)

// upstream is a name server that answers by a function; nil from it: nothing is said.
func upstream(t *testing.T, answer func(q *dns.Msg) *dns.Msg) netip.AddrPort {
	t.Helper()
	var p net.PacketConn
	var l net.Listener
	var addr netip.AddrPort
	try(t, func() (err error) {
		if p, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			return err
		}
		addr = p.LocalAddr().(*net.UDPAddr).AddrPort()
		if l, err = net.Listen("tcp", addr.String()); err != nil {
			p.Close()
		}
		return err
	})
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if a := answer(q); a != nil {
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				a.Truncate(udpSize)
			}
			w.WriteMsg(a)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return addr
}

// try tries again what may fail because a number that is free for UDP is taken for TCP.
func try(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 20 {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// says answers every question with a text of its own.
func says(text string) func(q *dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		a := new(dns.Msg).SetReply(q)
		a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{text}})
		return a
	}
}

// closed is an address where nobody answers.
func closed(t *testing.T) netip.AddrPort {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return p.LocalAddr().(*net.UDPAddr).AddrPort()
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// run runs a forwarder and returns where it listens.
func run(t *testing.T, allow []netip.Prefix, zones ...Zone) (*Forwarder, string) {
	t.Helper()
	rules, err := NewRules(zones, allow)
	if err != nil {
		t.Fatal(err)
	}
	var f *Forwarder
	try(t, func() (err error) {
		f, err = Listen([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, rules, zerolog.Nop())
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("does not end")
		}
	})
	return f, f.packets[0].LocalAddr().String()
}

// question asks about a name's text.
func question(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeTXT) }

func ask(t *testing.T, network, addr string, q *dns.Msg) string {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 10 * time.Second}
	a, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s: %v", q.Question[0].Name, err)
	}
	if a.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[a.Rcode]
	}
	if len(a.Answer) != 1 {
		return fmt.Sprintf("%d answers, truncated %v", len(a.Answer), a.Truncated)
	}
	return a.Answer[0].(*dns.TXT).Txt[0]
}

// A name goes to the name servers of the longest zone it is in, over UDP and TCP, whatever its case; one that is in none
// is refused.
func TestZones(t *testing.T) {
	corp, lab, rest := upstream(t, says("corp")), upstream(t, says("lab")), upstream(t, says("rest"))
	zones := []Zone{{".", []netip.AddrPort{rest}}, {"corp.example", []netip.AddrPort{corp}}, {"lab.corp.example.", []netip.AddrPort{lab}}}
	f, addr := run(t, loopback, zones...)
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"www.example.org.": "rest", "corp.example.": "corp", "mail.CORP.example.": "corp", "a.b.lab.corp.example.": "lab",
			"notcorp.example.": "rest", ".": "rest",
		} {
			if got := ask(t, network, addr, question(name)); got != want {
				t.Errorf("%s %s: %q, want %q", network, name, got, want)
			}
		}
	}
	only, err := NewRules(zones[1:], loopback)
	if err != nil {
		t.Fatal(err)
	}
	f.Use(only)
	if got := ask(t, "udp", addr, question("www.example.org.")); got != "REFUSED" {
		t.Errorf("a name in no zone: %q", got)
	}
	if got := ask(t, "udp", addr, question("corp.example.")); got != "corp" {
		t.Errorf("after a reload: %q", got)
	}
}

func TestBadZones(t *testing.T) {
	at := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}
	for name, zones := range map[string][]Zone{
		"no name": {{"", at}}, "a bad name": {{"a..b", at}}, "nobody to ask": {{"a.", nil}}, "one twice": {{"a.", at}, {"A", at}},
	} {
		if _, err := NewRules(zones, nil); err == nil {
			t.Errorf("zones with %s were taken", name)
		}
	}
}

// A name server that does not answer, or will not, is passed over, and asked last for a while.
func TestFailover(t *testing.T) {
	var asked atomic.Int64
	silent := upstream(t, func(*dns.Msg) *dns.Msg { asked.Add(1); return nil })
	broken := upstream(t, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) })
	_, addr := run(t, loopback, Zone{".", []netip.AddrPort{closed(t), silent, broken, upstream(t, says("last"))}})
	for range 5 {
		if got := ask(t, "udp", addr, question("a.example.")); got != "last" {
			t.Errorf("got %q", got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the silent one was asked %d times, want once", n)
	}
}

// When nobody answers the client hears so.
func TestNobodyAnswers(t *testing.T) {
	f, addr := run(t, loopback, Zone{".", []netip.AddrPort{closed(t), closed(t)}})
	if got := ask(t, "udp", addr, question("a.example.")); got != "SERVFAIL" {
		t.Errorf("got %q", got)
	}
	if c := f.Counts(); c.Failed != 1 || c.Answered != 0 {
		t.Errorf("counts %+v", c)
	}
	// The only one there is passes on what it says, even that it refuses.
	_, addr = run(t, loopback, Zone{".", []netip.AddrPort{upstream(t, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeRefused) })}})
	if got := ask(t, "udp", addr, question("a.example.")); got != "REFUSED" {
		t.Errorf("got %q", got)
	}
}

// An answer to another question is none.
func TestAnswerToAnotherQuestion(t *testing.T) {
	lying := upstream(t, func(q *dns.Msg) *dns.Msg {
		a := says("lie")(q)
		a.Question[0].Name = "bank.example."
		return a
	})
	_, addr := run(t, loopback, Zone{".", []netip.AddrPort{lying, upstream(t, says("truth"))}})
	if got := ask(t, "udp", addr, question("a.example.")); got != "truth" {
		t.Errorf("got %q", got)
	}
}

// An answer that does not fit is cut, and whole over TCP.
func TestLongAnswer(t *testing.T) {
	long := upstream(t, func(q *dns.Msg) *dns.Msg {
		a := new(dns.Msg).SetReply(q)
		for i := range 40 {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{fmt.Sprint(i, strings.Repeat("x", 100))}})
		}
		return a
	})
	_, addr := run(t, loopback, Zone{".", []netip.AddrPort{long}})
	a, _, err := (&dns.Client{}).Exchange(question("a.example."), addr)
	a.Compress = true // as it came
	if err != nil || !a.Truncated || a.Len() > dns.MinMsgSize {
		t.Errorf("over UDP: %v, %d bytes, truncated %v", err, a.Len(), a.Truncated)
	}
	a, _, err = (&dns.Client{Net: "tcp"}).Exchange(question("a.example."), addr)
	if err != nil || a.Truncated || len(a.Answer) != 40 {
		t.Errorf("over TCP: %v, %d answers, truncated %v", err, len(a.Answer), a.Truncated)
	}
}

// Strangers hear nothing; zone transfers and other oddities are refused.
func TestRefusals(t *testing.T) {
	var asked atomic.Int64
	up := upstream(t, func(q *dns.Msg) *dns.Msg { asked.Add(1); return says("x")(q) })
	f, addr := run(t, []netip.Prefix{netip.MustParsePrefix("10.8.0.0/24")}, Zone{".", []netip.AddrPort{up}})
	if a, _, err := (&dns.Client{Timeout: 300 * time.Millisecond}).Exchange(question("a.example."), addr); err == nil {
		t.Errorf("a stranger was told %v", a)
	}
	if c := f.Counts(); c.Refused != 1 {
		t.Errorf("counts %+v", c)
	}
	_, addr = run(t, loopback, Zone{".", []netip.AddrPort{up}})
	for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
		if got := ask(t, "tcp", addr, new(dns.Msg).SetQuestion("example.", qtype)); got != "REFUSED" {
			t.Errorf("%s: %q", dns.TypeToString[qtype], got)
		}
	}
	update := new(dns.Msg).SetUpdate("example.")
	if a, _, err := new(dns.Client).Exchange(update, addr); err != nil || a.Rcode != dns.RcodeNotImplemented {
		t.Errorf("an update: %v, %v", a, err)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d questions were passed on", n)
	}
}

// Questions that nobody answers are bounded for each client, and all end with the forwarder.
func TestBounds(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("hanging", func(t *testing.T) {
		hanging := upstream(t, func(*dns.Msg) *dns.Msg { return nil })
		f, addr := run(t, loopback, Zone{".", []netip.AddrPort{hanging, hanging, hanging}})
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		const n = maxOfClient + 20
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				b, _ := question(fmt.Sprintf("a%d.example.", i)).Pack()
				conn.Write(b)
			})
		}
		all.Wait()
		deadline := time.Now().Add(5 * time.Second)
		for f.Counts().Dropped != n-maxOfClient && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if got := f.Counts().Dropped; got != n-maxOfClient {
			t.Errorf("%d questions dropped, want %d", got, n-maxOfClient)
		}
	})
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}
