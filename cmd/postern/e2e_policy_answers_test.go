package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"postern/auth/slapdtest"
	"postern/cmd/lab"
)

// A user who loses a group gets nothing more by the rights that went with it: a stream of UDP from a server that goes on
// sending stops, and so does an open TCP connection, while pings that stay allowed go on (F03).
func TestE2EPolicyLossStopsStreams(t *testing.T) {
	f := newField(t, "alice")
	d, ldap := f.directory("ldaps")
	srv := f.serveConf(f.policyConf(append(ldap, "ldap-refresh 1",
		"policy admins", "match ldap-group "+slapdtest.AdminsGroup, "pool staff", "allow icmp 172.29.7.0/24", "end",
		"policy users", "match ldap-group "+slapdtest.UsersGroup, "pool staff", "allow any", "end")...))
	alice := f.connect("alice", f.credentials("alice-login", "alice", "alice-secret"))
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	const rate = 2e6
	f.must(alice.pour(ctx, rate, 7101))
	source := f.source(ctx)
	stream, err := alice.download(ctx, source)
	f.must(err)
	inASecond := func() float64 {
		before, err := alice.received()
		f.must(err)
		time.Sleep(time.Second)
		after, err := alice.received()
		f.must(err)
		return after - before
	}
	f.must(lab.Until(20*time.Second, func() error {
		if n := inASecond(); n < rate/8/2 {
			return fmt.Errorf("%.0f bytes in a second", n)
		}
		return nil
	}))
	was := stream.Load()
	f.must(lab.Until(20*time.Second, func() error {
		if stream.Load() == was {
			return fmt.Errorf("nothing comes by TCP")
		}
		return nil
	}))

	entry := "uid=alice," + slapdtest.UserBase
	f.must(d.Modify(fmt.Sprintf("dn: %s\nchangetype: modify\ndelete: member\nmember: %s\n\ndn: %s\nchangetype: modify\nadd: uniqueMember\nuniqueMember: %s\n",
		slapdtest.UsersGroup, entry, slapdtest.AdminsGroup, entry)))
	f.must(srv.Expect("policy changed", 1, 10*time.Second))
	f.must(lab.Until(10*time.Second, func() error { // what is under way, and the kernel's transaction
		if n := inASecond(); n > 1000 {
			return fmt.Errorf("%.0f bytes in a second", n)
		}
		return nil
	}))
	was = stream.Load()
	for range 2 {
		if n := inASecond(); n > 1000 {
			t.Errorf("%.0f bytes came in a second without the right to any", n)
		}
	}
	if got := stream.Load(); got != was {
		t.Errorf("%d bytes came over the open TCP connection", got-was)
	}
	alice.ping(lab.Lan4, 5, 56)
}

// source serves bytes without end over TCP on the lan, until ctx is done.
func (f *field) source(ctx context.Context) *net.TCPAddr {
	f.t.Helper()
	var l net.Listener
	f.must(f.Host("lan").Do(func() (err error) {
		l, err = net.Listen("tcp4", lab.Lan4+":7100")
		return err
	}))
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			go func() {
				b := make([]byte, 1<<16)
				for {
					if _, err := conn.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr)
}

// Whoever gets an address that another user had gets nothing that is still sent to that one (S086).
func TestE2EAddressHandedOn(t *testing.T) {
	f := newField(t, "alice", "bob")
	srv := f.serveConf(f.policyConf("pool one", "network 10.84.0.0/29", "exclude 10.84.0.3-10.84.0.6", "dev tun-one", "route 172.29.7.0/24", "end",
		"policy all", "match any", "pool one", "allow any", "end"))
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	alice := f.connect("alice")
	f.must(alice.pour(ctx, 2e6, 7101))
	f.must(lab.Until(20*time.Second, func() error {
		if n, err := alice.received(); err != nil || n < 100_000 {
			return fmt.Errorf("%.0f bytes have come: %v", n, err)
		}
		return nil
	}))
	alice.stop()
	f.must(srv.Expect("client disconnected", 1, 10*time.Second))
	bob := f.connect("bob")
	if !strings.Contains(bob.Output(), "ifconfig 10.84.0.2 ") {
		t.Fatal("bob has not alice's address")
	}
	bob.ping(lab.Lan4, 20, 56)
	if n, err := bob.received(); err != nil || n > 20*84+5000 {
		t.Errorf("bob received %.0f bytes, with 20 pings of his own: %v", n, err)
	}
}
