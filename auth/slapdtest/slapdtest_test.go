package slapdtest

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

func TestStopRestartFreeze(t *testing.T) {
	if testing.Short() {
		t.Skip("starts slapd")
	}
	s := Run(t, Options{})
	asAlice := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return s.toolContext(ctx, "ldapwhoami", "-D", "uid=alice,"+UserBase, "-w", "alice-secret")
	}
	if err := asAlice(); err != nil {
		t.Fatalf("alice cannot bind: %v", err)
	}
	s.Freeze()
	if err := asAlice(); err == nil {
		t.Error("a frozen slapd answered")
	}
	s.Thaw()
	if err := asAlice(); err != nil {
		t.Errorf("after Thaw: %v", err)
	}
	s.Stop()
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(s.Addr, strconv.Itoa(s.Port)), time.Second); err == nil {
		c.Close()
		t.Error("a stopped slapd accepts connections")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := asAlice(); err != nil {
		t.Errorf("after Restart: %v", err)
	}
}

// The demo and the end-to-end tests run the directory where only the gateway reaches it.
func TestInNamespace(t *testing.T) {
	if testing.Short() {
		t.Skip("starts slapd")
	}
	const netns = "ptslapdtest"
	exec.Command("ip", "netns", "del", netns).Run() // of a run that was killed
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("netns", "add", netns)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", netns).Run() })
	ip("-n", netns, "link", "set", "lo", "up")
	ip("-n", netns, "addr", "add", "192.0.2.7/32", "dev", "lo")

	s := Run(t, Options{Netns: netns, Addr: "192.0.2.7"})
	if err := s.tool("ldapwhoami", "-D", BindDN, "-w", BindPassword); err != nil {
		t.Error(err)
	}
	if c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)), time.Second); err == nil {
		c.Close()
		t.Error("slapd listens outside its namespace")
	}
}
