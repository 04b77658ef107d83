package auth_test

import (
	"context"
	"errors"

	"net"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
	"github.com/rs/zerolog"

	"postern/auth"
)

// stubOptions ask the stubs in turn, without a required group.
func stubOptions(stubs ...*stub) auth.LDAPOptions {
	o := auth.LDAPOptions{
		BindDN:       serviceDN,
		BindPassword: "service-secret",
		UserBase:     "ou=people,dc=example,dc=net",
		Timeout:      5 * time.Second,
	}
	for _, s := range stubs {
		o.URLs = append(o.URLs, s.URL)
	}
	return o
}

func TestNewLDAPRefuses(t *testing.T) {
	good := func() auth.LDAPOptions {
		return auth.LDAPOptions{
			URLs:         []string{"ldaps://ldap.example.net"},
			BindDN:       serviceDN,
			BindPassword: "x",
			UserBase:     "ou=people,dc=example,dc=net",
		}
	}
	if _, err := auth.NewLDAP(good(), zerolog.Nop()); err != nil {
		t.Fatalf("good options: %v", err)
	}
	for _, c := range []struct {
		name, want string
		set        func(o *auth.LDAPOptions)
	}{
		{"no URL", "no ldap URL", func(o *auth.LDAPOptions) { o.URLs = nil }},
		{"clear text", "clear text", func(o *auth.LDAPOptions) { o.URLs = []string{"ldap://ldap.example.net"} }},
		{"clear text, second URL", "clear text", func(o *auth.LDAPOptions) { o.URLs = append(o.URLs, "ldap://10.0.0.1") }},
		{"clear text to a name like loopback", "clear text", func(o *auth.LDAPOptions) { o.URLs = []string{"ldap://127.0.0.1.example.net"} }},
		{"other scheme", "ldap://", func(o *auth.LDAPOptions) { o.URLs = []string{"http://ldap.example.net"} }},
		{"socket", "ldap://", func(o *auth.LDAPOptions) { o.URLs = []string{"ldapi:///"} }},
		{"no scheme", "ldap://", func(o *auth.LDAPOptions) { o.URLs = []string{"ldap.example.net"} }},
		{"no host", "no host", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://:636"} }},
		{"bad port", "port", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://h:65536"} }},
		{"a base in the URL", "only scheme", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://h/dc=example"} }},
		{"a user in the URL", "only scheme", func(o *auth.LDAPOptions) { o.URLs = []string{"ldaps://u:p@h"} }},
		{"CA without a certificate", "CA", func(o *auth.LDAPOptions) { o.CA = []byte("nothing") }},
		{"filter without a place", "no %u", func(o *auth.LDAPOptions) { o.UserFilter = "(uid=alice)" }},
		{"filter that does not parse", "filter", func(o *auth.LDAPOptions) { o.UserFilter = "(uid=%u" }},
		{"name as attribute", "values", func(o *auth.LDAPOptions) { o.UserFilter = "(%u=alice)" }},
		{"name as attribute and value", "values", func(o *auth.LDAPOptions) { o.UserFilter = "(&(%u=*)(uid=%u))" }},
		{"name as matching rule", "values", func(o *auth.LDAPOptions) { o.UserFilter = "(uid:%u:=alice)" }},
		{"no user base", "user base", func(o *auth.LDAPOptions) { o.UserBase = "" }},
		{"bad user base", "user base", func(o *auth.LDAPOptions) { o.UserBase = "people" }},
		{"bad bind DN", "bind DN", func(o *auth.LDAPOptions) { o.BindDN = "postern" }},
		{"bind without a password", "password", func(o *auth.LDAPOptions) { o.BindPassword = "" }},
		{"password without a DN", "without a bind DN", func(o *auth.LDAPOptions) { o.BindDN = "" }},
		{"bad group", "required group", func(o *auth.LDAPOptions) { o.RequireGroups = []string{"vpn-users"} }},
		{"empty group", "required group", func(o *auth.LDAPOptions) { o.RequireGroups = []string{" "} }},
		{"negative timeout", "timeout", func(o *auth.LDAPOptions) { o.Timeout = -1 }},
	} {
		o := good()
		c.set(&o)
		_, err := auth.NewLDAP(o, zerolog.Nop())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
	for _, u := range []string{"ldap://127.0.0.1:389", "ldap://[::1]", "ldap://localhost"} {
		o := good()
		o.URLs = []string{u}
		if _, err := auth.NewLDAP(o, zerolog.Nop()); err != nil {
			t.Errorf("clear text to %s: %v", u, err)
		}
	}
	o := good()
	o.URLs, o.AllowCleartext = []string{"ldap://10.0.0.1"}, true
	if _, err := auth.NewLDAP(o, zerolog.Nop()); err != nil {
		t.Errorf("clear text allowed: %v", err)
	}
}

// S061: a server that failed is left alone while another one answers.
func TestDeadServerSkipped(t *testing.T) {
	dead := startStub(t, &stub{intercept: func(c net.Conn, _ ber.Tag, _ int64) bool { c.Close(); return true }})
	alive := startStub(t, &stub{})
	l := newLDAP(t, stubOptions(dead, alive))
	for range 10 {
		if _, err := login(l, "alice", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if n := dead.connections(); n != 1 {
		t.Errorf("the dead server was asked %d times", n)
	}
}

// S058, F18: however many silent servers there are, a login ends after 10 s.
func TestLoginEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	silent := func() *stub {
		return startStub(t, &stub{intercept: func(net.Conn, ber.Tag, int64) bool { return true }})
	}
	l := newLDAP(t, stubOptions(silent(), silent(), silent(), silent()))
	began := time.Now()
	_, err := login(l, "alice", "secret")
	wantBroken(t, err, "") // the deadline's own error or the socket's, whichever timer ran first
	if took := time.Since(began); took < 9*time.Second || took > 15*time.Second {
		t.Errorf("took %v, want 10 s", took)
	}
}

// S058: however many log in at once, at most 32 connections are open, and waiting for one ends with the context.
func TestAtMost32Connections(t *testing.T) {
	var mu sync.Mutex
	open, most := 0, 0
	release := make(chan struct{})
	s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
		if op == ldap.ApplicationBindRequest {
			mu.Lock()
			open++
			most = max(most, open)
			mu.Unlock()
			<-release
			mu.Lock()
			open--
			mu.Unlock()
		}
		return false
	}})
	l := newLDAP(t, stubOptions(s))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := login(l, "alice", "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		n := open
		mu.Unlock()
		if n == 32 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d connections", n)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := l.Authenticate(ctx, &auth.Request{Username: "alice", Password: []byte("secret")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("login while all connections are in use: %v", err)
	}
	if n := s.connections(); n != 32 {
		t.Errorf("%d connections at once", n)
	}
	close(release)
	wg.Wait()
	if most != 32 {
		t.Errorf("at most %d connections at once, want 32", most)
	}
}
