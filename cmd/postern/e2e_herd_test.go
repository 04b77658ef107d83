package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wantTemporary wants every refusal to ask the client to come again. It returns how many there were.
func (c *soakCrew) wantTemporary() (refused int) {
	t := c.f.t
	t.Helper()
	for why, n := range c.Errors {
		switch {
		case strings.HasPrefix(why, "AUTH_FAILED,TEMP"):
			refused += n
		case strings.HasPrefix(why, "AUTH_FAILED"), strings.Contains(why, "bad record MAC"):
			t.Errorf("%s: %d attempts ended with %q", c.name, n, why)
		}
	}
	return refused
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
	t.Logf("%d times told to come again", c.wantTemporary())
	if c.Left != crowd || c.Returns < uint64(crowd) {
		t.Errorf("%d of %d are in, having come back %d times", c.Left, crowd, c.Returns)
	}
	d.wantFew()
	if out := grep(srv.Output(), "logins refused"); out != "" {
		t.Errorf("somebody is locked out: %s", out)
	}
}
