package main

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"postern/auth/slapdtest"
)

// A farDirectory is a slapd with a crowd of users, behind a proxy through which its answers come late. It counts the
// gateway's connections.
type farDirectory struct {
	*slapdtest.Server
	f    *field
	late atomic.Int64 // what each answer takes, in nanoseconds

	open, most atomic.Int32 // connections, and how many there were at the same time
	total      atomic.Int64
}

// farDirectory starts one on the gateway's host, with so many users who are called name0, name1 and so on, with passwords
// such as name0-secret, beside those of slapdtest. It returns the lines that make the gateway ask it, too.
func (f *field) farDirectory(name string, users int) (*farDirectory, []string) {
	f.t.Helper()
	h := f.Host("router")
	d := &farDirectory{f: f, Server: slapdtest.Run(f.t, slapdtest.Options{Netns: h.NS})}
	const some = 500 // at a time
	for n := 0; n < users; n += some {
		var ldif strings.Builder
		for i := n; i < min(n+some, users); i++ {
			fmt.Fprintf(&ldif, "dn: uid=%[1]s%[2]d,%[3]s\nchangetype: add\nobjectClass: inetOrgPerson\nuid: %[1]s%[2]d\ncn: %[1]s%[2]d\nsn: %[1]s\nuserPassword: %[1]s%[2]d-secret\n\n",
				name, i, slapdtest.UserBase)
		}
		f.must(d.Modify(ldif.String()))
	}
	var l net.Listener
	f.must(h.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	f.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				var far net.Conn
				if err := h.Do(func() (err error) {
					far, err = net.Dial("tcp", strings.TrimPrefix(d.URL, "ldap://"))
					return err
				}); err != nil {
					near.Close()
					return
				}
				d.pass(near, far)
			}()
		}
	}()
	return d, []string{
		"ldap-url ldap://" + l.Addr().String(), "ldap-bind-dn " + slapdtest.BindDN,
		"ldap-bind-password-file " + f.write("bind-secret", slapdtest.BindPassword), "ldap-user-base " + slapdtest.UserBase,
	}
}

// pass carries a connection of the gateway's until either end closes it.
func (d *farDirectory) pass(near, far net.Conn) {
	d.total.Add(1)
	open := d.open.Add(1)
	for most := d.most.Load(); open > most && !d.most.CompareAndSwap(most, open); most = d.most.Load() {
	}
	type answer struct {
		bytes []byte
		due   time.Time
	}
	answers := make(chan answer, 64)
	go func() { // questions
		var b [4 << 10]byte
		for {
			n, err := near.Read(b[:])
			if err != nil {
				break
			}
			if _, err := far.Write(b[:n]); err != nil {
				break
			}
		}
		d.open.Add(-1)
		near.Close()
		far.Close()
	}()
	go func() {
		defer close(answers)
		for {
			b := make([]byte, 4<<10)
			n, err := far.Read(b)
			if err != nil {
				return
			}
			answers <- answer{b[:n], time.Now().Add(time.Duration(d.late.Load()))}
		}
	}()
	go func() {
		for a := range answers {
			time.Sleep(time.Until(a.due))
			near.Write(a.bytes) // who has gone wants none
		}
		near.Close()
	}()
}

// wantFew wants no more connections at a time than the gateway's 32. The proxy hears of a close when the next one may be
// open already, so that it has counted some twice; a herd that nobody holds back would show in hundreds.
func (d *farDirectory) wantFew() {
	d.f.t.Helper()
	if n := d.most.Load(); n > 2*32 {
		d.f.t.Errorf("%d connections to the directory at once", n)
	}
}
