package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// A roll is a watcher, and an authenticator with the same idea of who is in which group. Who has no entry may not come.
type roll struct {
	mu     sync.Mutex
	groups map[string][]string
	err    error
}

func (r *roll) set(name string, groups ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(groups) == 0 {
		delete(r.groups, name)
		return
	}
	r.groups[name] = groups
}

func (r *roll) Authenticate(ctx context.Context, req *auth.Request) (*auth.Identity, error) {
	id, err := passwords(ctx, req)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		id.Groups = slices.Clone(r.groups[id.Name])
	}
	return id, err
}

func (r *roll) Changes(_ context.Context, connected []*auth.Identity) (changes []auth.Change, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	for _, id := range connected {
		groups, in := r.groups[id.Name]
		switch {
		case !in:
			changes = append(changes, auth.Change{Name: id.Name, Reason: "in no required group"})
		case !slices.Equal(groups, id.Groups):
			changes = append(changes, auth.Change{Name: id.Name, Now: &auth.Identity{Name: id.Name, Groups: slices.Clone(groups)}})
		}
	}
	return changes, nil
}

// watching is a world whose directory is asked once a minute about these users, all in one group.
func (w *world) watching(names ...string) *roll {
	r := &roll{groups: make(map[string][]string)}
	for _, name := range names {
		r.set(name, "cn=vpn,dc=x")
	}
	w.cfg.LDAPRefresh, w.login, w.watcher = time.Minute, r, r
	w.start()
	return r
}

// A leaver's session ends within the time between two looks, with the reason in the log; nobody else's does.
func TestLeaverEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.watching("alice", "bob")
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		w.peer("bob", otherAddr, withLogin("bob", "secret")).connect()
		time.Sleep(3 * time.Minute)
		if got := w.clients(); len(got) != 2 {
			t.Fatalf("connected: %v", got)
		}
		r.set("bob")
		time.Sleep(62 * time.Second)
		if got, want := w.clients(), []string{"alice"}; !slices.Equal(got, want) {
			t.Errorf("connected: %v, want %v", got, want)
		}
		time.Sleep(time.Minute) // for its last words
		if w.log.count("client disconnected", "may not be connected any more: in no required group") != 1 {
			t.Errorf("no reason in the log:\n%s", w.log)
		}
		alice.mustReach()
	})
}

// What a user is in is taken over by a look, and by a renegotiation before one.
func TestGroupsFollow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.watching("alice")
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		groups := func() []string { return w.srv.table.all(nil)[0].decided().who.Groups }
		r.set("alice", "cn=admins,dc=x", "cn=vpn,dc=x")
		time.Sleep(62 * time.Second)
		if got := groups(); len(got) != 2 {
			t.Errorf("after a minute alice is in %v", got)
		}
		r.set("alice", "cn=admins,dc=x")
		alice.renegotiate()
		if got, want := groups(), []string{"cn=admins,dc=x"}; !slices.Equal(got, want) {
			t.Errorf("after a renegotiation alice is in %v, want %v", got, want)
		}
		if n := w.log.count("groups changed"); n != 2 {
			t.Errorf("%d lines about it, want 2", n)
		}
		alice.mustReach()
	})
}

// S062: that the directory cannot be asked ends no session; an alarm is raised.
func TestDirectoryAwayEndsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.watching("alice")
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		r.mu.Lock()
		r.err = errors.New("directory is away")
		r.mu.Unlock()
		r.set("alice")
		time.Sleep(time.Hour)
		alice.mustReach()
		if w.log.count(`"alarm":"directory"`, "stay connected: directory is away") == 0 {
			t.Errorf("no alarm:\n%s", w.log)
		}
		r.mu.Lock()
		r.err = nil
		r.mu.Unlock()
		time.Sleep(62 * time.Second)
		if got := w.clients(); len(got) != 0 {
			t.Errorf("connected when it is back: %v", got)
		}
	})
}

// When very many would be struck at once nothing is done and an alarm raised, until the directory says otherwise, or an
// administrator reloads.
func TestNoMassKick(t *testing.T) {
	for _, reload := range []bool{false, true} {
		t.Run(fmt.Sprint("reload ", reload), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				var names []string
				for i := range 12 {
					names = append(names, fmt.Sprintf("user%02d", i))
				}
				r := w.watching(names...)
				for i, name := range names {
					at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 10)}), 40000)
					w.peer(name, at, withLogin(name, "secret")).connect()
				}
				for _, name := range names[:5] {
					r.set(name)
				}
				time.Sleep(5 * time.Minute)
				if got := w.clients(); len(got) != len(names) {
					t.Fatalf("%d connected, want all of %d", len(got), len(names))
				}
				if w.log.count(`"alarm":"directory"`, "5 of 12 sessions") == 0 {
					t.Errorf("no alarm:\n%s", w.log)
				}
				want := names[5:]
				if reload {
					if _, err := w.srv.Reload(w.cfg, Login{Auth: r, Watcher: r}); err != nil {
						t.Fatal(err)
					}
				} else {
					r.set(names[4], "cn=vpn,dc=x")
					want = names[4:]
				}
				time.Sleep(62 * time.Second)
				if got := w.clients(); !slices.Equal(got, want) {
					t.Errorf("connected: %v, want %v", got, want)
				}
			})
		})
	}
}

// S062, S040: a client that shows at a renegotiation what was right before stays in while nobody can judge it; another
// password, a no, and a question in place of a yes do not.
func TestOutageAtRenegotiation(t *testing.T) {
	for _, c := range []struct {
		name     string
		password string
		err      error
		in       bool
	}{
		{"the same password", "secret", errors.New("directory is away"), true},
		{"another password", "other", errors.New("directory is away"), false},
		{"the same, and it is wrong now", "secret", &auth.Denied{Reason: "wrong password", Public: auth.PublicRefusal}, false},
		{"the same, and a script wants an answer, too", "secret", &tlsctl.Denial{Challenge: "CRV1:R,E:state:YWxpY2U=:Code", Err: errors.New("not without a code")}, false},
		{"the same, and a script cannot say", "secret", comeAgain("later", errors.New("script crashed")), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				var away error
				w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
					if away != nil {
						return nil, away
					}
					return passwords(ctx, r)
				})
				w.start()
				password := "secret"
				alice := w.peer("alice", homeAddr, withLogin("alice", ""), func(to *ctltest.Config) {
					to.Credentials = func() (string, string) { return "alice", password }
				}).connect()
				away, password = c.err, c.password
				synctest.Wait()
				err := alice.ctl.Renegotiate(w.ctx)
				if c.in {
					must(t, err)
					time.Sleep(50 * time.Millisecond)
					ids := alice.ctl.KeyIDs()
					alice.sendKey = ids[len(ids)-1]
					alice.mustReach()
					if w.log.count("cannot be judged at present") != 1 {
						t.Errorf("nothing about it in the log:\n%s", w.log)
					}
					return
				}
				time.Sleep(time.Minute)
				if got := w.clients(); len(got) != 0 {
					t.Errorf("connected: %v, after %v", got, err)
				}
			})
		})
	}
}

// L15, S082: a directory cannot give away the server's own address, nor one that stands for the whole network.
func TestReservedAddressOfDirectory(t *testing.T) {
	for _, a := range []string{"10.8.0.1", "10.8.0.0", "10.8.0.255", "fd00:8::1", "fd00:8::"} {
		t.Run(a, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
					id, err := passwords(ctx, r)
					if addr := netip.MustParseAddr(a); err == nil && addr.Is4() {
						id.Addr4 = addr
					} else if err == nil {
						id.Addr6 = addr
					}
					return id, err
				})
				w.start()
				if text, _ := w.peer("alice", homeAddr, withLogin("alice", "secret")).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,"+auth.PublicRefusal) {
					t.Errorf("alice: %q", text)
				}
			})
		})
	}
}

// L15: a user's own address and routes come from the directory; one outside the network is a refusal.
func TestAddressOfDirectory(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.login = loginFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			id, err := passwords(ctx, r)
			if err != nil {
				return nil, err
			}
			switch id.Name {
			case "alice":
				id.Addr4, id.Addr6 = netip.MustParseAddr("10.8.0.77"), netip.MustParseAddr("fd00:8::77")
				id.Routes = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd01::/32")}
			case "bob":
				id.Addr4 = netip.MustParseAddr("192.0.2.200")
			}
			return id, nil
		})
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		alice.mustReach()
		if s := w.find("alice"); s.Addr4.String() != "10.8.0.77" || s.Addr6.String() != "fd00:8::77" {
			t.Errorf("alice has %v and %v", s.Addr4, s.Addr6)
		}
		push := fmt.Sprint(alice.ctl.Options())
		for _, want := range []string{"route 10.1.0.0 255.255.0.0", "route-ipv6 fd01::/32", "ifconfig 10.8.0.77 255.255.255.0"} {
			if !strings.Contains(push, want) {
				t.Errorf("pushed %s, want %q in it", push, want)
			}
		}
		if text, _ := w.peer("bob", otherAddr, withLogin("bob", "secret")).refusal(); !strings.HasPrefix(text, "AUTH_FAILED,"+auth.PublicRefusal) {
			t.Errorf("bob: %q", text)
		}
	})
}
