package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// wantTemporary wants every refusal to ask the client to come again, and with answered no attempt to run out of its time. It
// returns how many refusals there were. A stream that was closed unanswered is neither: its client comes again at once.
func (c *soakCrew) wantTemporary(answered bool) (refused int) {
	t := c.f.t
	t.Helper()
	for why, n := range c.Errors {
		switch {
		case strings.HasPrefix(why, "AUTH_FAILED,TEMP"):
			refused += n
		case answered && strings.Contains(why, "deadline exceeded"), strings.HasPrefix(why, "AUTH_FAILED"), strings.Contains(why, "bad record MAC"):
			t.Errorf("%s: %d attempts ended with %q", c.name, n, why)
		}
	}
	return refused
}

// 500 users log in at once while each answer of the directory takes 3 s. Within a minute everybody is let in, or told to
// come again and does so by himself, nobody is refused for good, the herd is held back from the directory, and
// whoever is connected notices nothing (F21).
func TestE2ESlowDirectory(t *testing.T) {
	t.Parallel() // it mostly waits
	const crowd, slow = 500, 15 * time.Second
	f := newField(t, "bob")
	f.addHost("crowd")
	d, ldap := f.farDirectory("slow", crowd)
	srv := f.loadSoakServer(append(ldap, "keepalive 10 60")...)
	b := f.connect("bob", f.credentials("bob-login", "bob", "bob-secret"))

	d.late.Store(int64(3 * time.Second))
	c := f.soakCrewOn("crowd", "slow", time.Second, "-proto", "mixed", "-n", strconv.Itoa(crowd), "-from", f.sources("crowd", crowd),
		"-user", "slow%d", "-password", "slow%d-secret", "-connect-timeout", "60s", "-again")
	beside := make(chan lab.Pings, 1)
	go func() {
		p, _ := b.host.Ping(f.ctx, f.Host("router").Wan4.String(), int(slow/(20*time.Millisecond)), 56, 20*time.Millisecond) // its answers count, not its end
		beside <- p
	}()
	p, err := b.host.Ping(f.ctx, lab.Lan4, int(slow/(20*time.Millisecond)), 56, 20*time.Millisecond)
	f.must(err)
	out := <-beside
	// Beside the tunnel the same machine is as busy: what those pings wait for is nobody's doing.
	is, machine := percentile(p.RTTs, 99), percentile(out.RTTs, 99)
	t.Logf("p99 %v through the tunnel, %v beside it; %d and %d of %d pings lost", is, machine, p.Lost(), out.Lost(), p.Sent)
	if is > max(200*time.Millisecond, 3*machine) || p.Lost() > out.Lost()+p.Sent/100 {
		t.Errorf("p99 %v through the tunnel, %v beside it; %d and %d of %d pings lost", is, machine, p.Lost(), out.Lost(), p.Sent)
	}
	inAlready := len(srv.snapshot().Clients)

	d.late.Store(int64(10 * time.Millisecond))
	fast := time.Now()
	c.report(time.Minute)
	refused := c.wantTemporary(true)
	t.Logf("%d in while the directory was slow, all %v after it was not; %d times told to come again; %d connections to the directory, %d at once",
		inAlready, time.Since(fast).Round(time.Second), refused, d.total.Load(), d.most.Load())
	if c.Connected != crowd || c.Left != crowd {
		t.Errorf("%d of %d got in, %d stayed", c.Connected, crowd, c.Left)
	}
	if refused == 0 {
		t.Error("the directory was not slow: nobody had to come again")
	}
	d.wantFew()
	b.ping(lab.Lan4, 5, 56)
}

// All clients lose the server, which is killed and away for a while, and come back by themselves within two minutes of its
// return: nobody is locked out for it, and the directory has no more than 32 connections at a time (F41). LOADOUTAGE=5000
// has as many clients, and the server away for a minute.
func TestE2EServerLost(t *testing.T) {
	t.Parallel() // it mostly waits
	crowd, away, silence, storm := 500, 20*time.Second, 9, 100
	if s := os.Getenv("LOADOUTAGE"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("LOADOUTAGE=%q: want a number of clients", s)
		}
		crowd, away, silence, storm = n, time.Minute, 30, 60
	}
	f := newField(t)
	f.addHost("crowd")
	d, ldap := f.farDirectory("lost", crowd)
	d.late.Store(int64(5 * time.Millisecond))
	lines := append(ldap, fmt.Sprintf("keepalive %d %d", silence/3, silence), "max-clients 6000")
	srv := f.loadSoakServer(lines...)
	c := f.soakCrewOn("crowd", "lost", time.Hour, "-strict=false", "-proto", "mixed", "-n", strconv.Itoa(crowd), "-storm", strconv.Itoa(storm),
		"-from", f.sources("crowd", crowd), "-user", "lost%d", "-password", "lost%d-secret", "-silence", fmt.Sprintf("%ds", silence), "-again")
	srv.expectClients(time.Duration(crowd/storm)*time.Second+time.Minute, crowd)

	srv.Kill()
	d.most.Store(0)
	time.Sleep(away)
	srv = f.loadSoakServer(lines...)
	back := time.Now()
	srv.expectClients(2*time.Minute, crowd)
	t.Logf("%d clients are back %v after the server; %d connections to the directory, %d at once", crowd, time.Since(back).Round(100*time.Millisecond), d.total.Load(), d.most.Load())
	time.Sleep(time.Duration(silence) * time.Second) // who only seems to be in is lost again
	srv.expectClients(time.Second, crowd)
	f.must(c.Signal(syscall.SIGTERM))
	c.report(time.Minute)
	t.Logf("%d times told to come again", c.wantTemporary(false))
	if c.Left != crowd || c.Returns < uint64(crowd) {
		t.Errorf("%d of %d are in, having come back %d times", c.Left, crowd, c.Returns)
	}
	d.wantFew()
	if out := grep(srv.Output(), "logins refused"); out != "" {
		t.Errorf("somebody is locked out: %s", out)
	}
}
