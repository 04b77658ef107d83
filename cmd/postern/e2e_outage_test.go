package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"postern/cmd/lab"
)

// outageTime is how long the directory is away in TestE2ELDAPOutage: OUTAGE, such as 5m (make outage), or 20 seconds.
func outageTime(t *testing.T) time.Duration {
	s := os.Getenv("OUTAGE")
	if s == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 20*time.Second {
		t.Fatalf("OUTAGE=%q: want a time of at least 20s, such as 5m", s)
	}
	return d
}

// The directory is away while clients renegotiate, with tokens and with passwords: nobody is dropped. Newcomers are told
// to come again, do so by themselves however long they have been at it, and are in within 35 s of its return (S062).
func TestE2ELDAPOutage(t *testing.T) {
	for name, tokens := range map[string][]string{"tokens": {"auth-gen-token"}, "passwords": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const renegotiates = 8 * time.Second
			long := outageTime(t)
			f := newField(t, "alice", "bob", "grace")
			d, ldap := f.directory("ldaps")
			srv := f.serve(append(append(ldap, "ldap-refresh 2", fmt.Sprintf("reneg-sec %.0f", renegotiates.Seconds()), "hand-window 5"), tokens...)...)
			a := f.connect("alice", f.credentials("alice-login", "alice", "alice-secret"), "reneg-sec 0")

			d.Stop()
			away := time.Now()
			keys := strings.Count(srv.Output(), "negotiated key=")
			pings := make(chan lab.Pings, 1)
			go func() {
				p, _ := a.host.Ping(f.ctx, lab.Lan4, int(long/(200*time.Millisecond)), 56, 200*time.Millisecond) // its answers are judged
				pings <- p
			}()
			newcomers := []*vpn{
				f.dial("bob", f.credentials("bob-login", "bob", "bob-secret")),
				f.dial("grace", f.credentials("grace-login", "grace", "grace-secret"), "connect-retry 1 300"), // what clients do unless told otherwise
			}
			for _, v := range newcomers {
				f.must(v.Expect("AUTH_FAILED,TEMP", 1, 30*time.Second))
			}
			// In 20 s there is time for two renegotiations, one of them in full view of the outage.
			f.must(srv.Expect("negotiated key=", keys+max(2, int(long/(2*renegotiates))), long+40*time.Second))
			if judged := grep(srv.Output(), "the session goes on"); (judged == "") != (tokens != nil) { // a token needs nobody's judgement
				t.Errorf("logins that nobody could judge: %q", judged)
			}
			f.must(srv.Expect("cannot be checked, and stay connected", 1, 10*time.Second))
			time.Sleep(time.Until(away.Add(long)))

			renegotiated := strings.Count(srv.Output(), "negotiated key=") - keys // nobody else got as far
			f.must(d.Restart())
			back := time.Now()
			for _, v := range newcomers {
				f.must(v.Expect(completed, 1, time.Until(back.Add(35*time.Second))))
				out := v.Output()
				const told = "AUTH: Received control message: AUTH_FAILED"
				refused, later := strings.Count(out, told), strings.Count(out, told+",TEMP")
				t.Logf("%s: in %v after the return, and told %d times before to come again", v.host.Name, time.Since(back).Round(time.Second), later)
				if refused != later {
					t.Errorf("%s was refused %d times, and told to come again %d times:\n%s", v.host.Name, refused, later, grep(out, told))
				}
			}
			p := <-pings
			t.Logf("%d renegotiations while the directory was away for %v; %d of %d pings lost", renegotiated, long, p.Lost(), p.Sent)
			if p.Lost() > p.Sent/200 {
				t.Errorf("%d of %d pings lost", p.Lost(), p.Sent)
			}
			a.ping(lab.Lan4, 5, 56)
			if out := grep(srv.Output(), "client disconnected"); out != "" {
				t.Errorf("somebody was dropped: %s", out)
			}
		})
	}
}
