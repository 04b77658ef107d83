package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/cmd/lab"
)

// nameServer answers questions on the lan host with a text.
func (f *field) nameServer(port int, text string) {
	f.t.Helper()
	var p net.PacketConn
	var l net.Listener
	f.must(f.Host("lan").Do(func() (err error) {
		at := fmt.Sprintf("%s:%d", lab.Lan4, port)
		if p, err = net.ListenPacket("udp", at); err == nil {
			l, err = net.Listen("tcp", at)
		}
		return err
	}))
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{text}})
		w.WriteMsg(a)
	})
	for _, s := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		f.t.Cleanup(func() { s.Shutdown() })
	}
}

// lookUp asks a server from a host for a name's text.
func (f *field) lookUp(host, network, server, name string) (text string, err error) {
	f.t.Helper()
	err = f.Host(host).Do(func() error {
		c := &dns.Client{Net: network, Timeout: 3 * time.Second}
		a, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeTXT), server)
		if err != nil {
			return err
		}
		if a.Rcode != dns.RcodeSuccess || len(a.Answer) != 1 {
			return fmt.Errorf("%s", dns.RcodeToString[a.Rcode])
		}
		text = a.Answer[0].(*dns.TXT).Txt[0]
		return nil
	})
	return text, err
}

// The gateway answers its clients' questions on its address inside, by asking whom the name belongs to, and nobody
// else's. It does so without privileges, and a reload changes whom it asks.
func TestE2EDNSForward(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	f.nameServer(5301, "everything")
	f.nameServer(5302, "corp")
	more := []string{"dns-forward " + lab.Lan4 + ":5301", "dns-forward " + lab.Lan4 + ":5302 corp.example", `push "dhcp-option DNS 10.83.0.1"`}
	conf := f.serverConf(more...)
	srv := f.serveConf(conf)
	f.connect("alice")
	ask := func(network, server, name, want string) {
		t.Helper()
		if got, err := f.lookUp("alice", network, server, name); err != nil || got != want {
			t.Errorf("%s at %s over %s: %q, %v; want %q", name, server, network, got, err, want)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		ask(network, "10.83.0.1:53", "www.example.org.", "everything")
		ask(network, "10.83.0.1:53", "mail.corp.example.", "corp")
	}
	ask("udp", "[fd00:83::1]:53", "mail.corp.example.", "corp")
	if got, err := f.lookUp("lan", "udp", "10.83.0.1:53", "www.example.org."); err == nil {
		t.Errorf("the lan was told %q", got)
	}
	text, err := os.ReadFile(conf)
	f.must(err)
	f.must(os.WriteFile(conf, append(text, "dns-forward "+lab.Lan4+":5302 example.org\n"...), 0o600))
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect(" reloaded", 1, 10*time.Second))
	ask("udp", "10.83.0.1:53", "www.example.org.", "corp")
	f.must(srv.Signal(syscall.SIGTERM))
	f.must(srv.Wait(10 * time.Second))
}
