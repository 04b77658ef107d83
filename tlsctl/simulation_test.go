package tlsctl_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/tlsctl"
	"postern/tlsctl/ctltest"
)

// Whatever version comes over whatever wire, its logins slow or quick, its renegotiation begun by either end or both:
// each negotiation makes one key, the same at both ends; nothing is said and no key is made before its login was agreed
// to; and what was begun ends (the bubble fails if a goroutine outlives it).
//
// Both ends give up when they should, and then the client begins again, as clients do. So all come through (S119).
func TestSimulation(t *testing.T) {
	seeds := 10000
	switch {
	case testing.Short():
		seeds = 200
	case raceEnabled:
		seeds = 500
	}
	var attempts atomic.Int64
	workers := runtime.GOMAXPROCS(0)
	t.Run("seeds", func(t *testing.T) {
		for w := range workers {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				for seed := w; seed < seeds && !t.Failed(); seed += workers {
					synctest.Test(t, func(t *testing.T) {
						s := newSimulation(t, uint64(seed))
						attempts.Add(int64(s.run()))
						if t.Failed() {
							t.Logf("seed %d: %s, lost up %.2f, down %.2f", seed, s.name, s.up.Loss, s.down.Loss)
						}
					})
				}
			})
		}
	})
	t.Logf("%d clients, %d attempts", seeds, attempts.Load())
}

// A simulation is one user's way through a session, in as many attempts as it takes.
type simulation struct {
	*setup
	name    string
	chance  *rand.Rand
	clients []*ctltest.Client

	mu     sync.Mutex
	owners []*ctltest.Owner
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{setup: newSharedSetup(t), chance: rand.New(rand.NewPCG(seed, 1))}
	p := ctltest.Profiles[s.chance.IntN(len(ctltest.Profiles))]
	wraps := wrapsOf(p)
	wrap := wraps[s.chance.IntN(len(wraps))]
	wrap.set(t, s.setup)
	p.Apply(&s.client)
	s.name = p.Name + ", " + wrap.name
	s.cfg.Epoch = s.chance.IntN(2) == 0
	if s.chance.IntN(2) == 0 {
		s.cfg.TLS.MaxVersion = 0x0303
	}
	for i, w := range []*ctltest.Wire{&s.up, &s.down} {
		w.Loss, w.Double = 0.25*s.chance.Float64(), 0.25*s.chance.Float64()
		w.Delay = time.Duration(s.chance.IntN(100)) * time.Millisecond
		w.Jitter = time.Duration(s.chance.IntN(300)) * time.Millisecond
		w.Seed(2*seed + uint64(i))
	}
	slow := time.Duration(s.chance.IntN(4000)) * time.Millisecond
	s.newOwner = func() *ctltest.Owner {
		o := new(ctltest.Owner)
		o.OnAdmit = func(ctx context.Context, h *tlsctl.Hello) (*tlsctl.Grant, error) {
			if h.First == (seed%2 == 0) {
				select {
				case <-time.After(slow):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			o.Note(fmt.Sprintf("granted %d", h.KeyID))
			return &ctltest.DefaultGrant, nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.owners = append(s.owners, o)
		return o
	}
	return s
}

// run returns how many attempts it took.
func (s *simulation) run() int {
	var err error
	for attempt := range 20 {
		c := s.dial()
		s.clients = append(s.clients, c)
		err = s.attempt(c)
		c.Close()
		if err == nil {
			s.server.Close(errTestOver)
			s.check()
			return attempt + 1
		}
	}
	s.server.Close(errTestOver)
	s.t.Errorf("never came through: %v", err)
	return 0
}

// attempt connects, renegotiates and leaves.
func (s *simulation) attempt(c *ctltest.Client) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	l, err := s.awaitServer(ctx, c, 1)
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(1000+s.chance.IntN(1000)) * time.Millisecond)

	ctx, cancel = context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	who := s.chance.IntN(3)
	if who != 0 {
		l.Renegotiate()
	}
	if who != 1 {
		time.Sleep(time.Duration(s.chance.IntN(200)) * time.Millisecond)
		if err := c.Renegotiate(ctx); err != nil {
			return fmt.Errorf("renegotiate: %w", err)
		}
	}
	if err := c.AwaitKey(ctx, 2); err != nil {
		return err
	}
	if _, err := s.awaitServer(ctx, c, 2); err != nil {
		return err
	}
	if c.Leave() {
		if err := l.Wait(); err != tlsctl.ErrExit {
			return err
		}
	}
	return nil
}

// awaitServer waits until a session of the client has n keys, and returns it.
func (s *simulation) awaitServer(ctx context.Context, c *ctltest.Client, n int) (*ctltest.Live, error) {
	for {
		for _, l := range s.server.Opened() {
			if l.Client() == c.ID() && len(l.Owner.Keys()) >= n {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("server has no %d keys: %w", n, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// check looks at all sessions there were, once they are over.
func (s *simulation) check() {
	for _, c := range s.clients {
		var installed []tlsctl.KeyID
		confirmed := 0
		for _, l := range s.server.Opened() {
			if l.Client() != c.ID() {
				continue
			}
			if err := orderly(l.Owner.Events()); err != nil {
				s.t.Errorf("%v: %q", err, l.Owner.Events())
			}
			for _, k := range l.Owner.Keys() {
				installed = append(installed, k.ID)
				if slices.Contains(l.Owner.Events(), fmt.Sprintf("confirm %d", k.ID)) {
					confirmed++
				}
				theirs, ok := c.Key(k.ID)
				if ok && (string(k.ToClient) != string(theirs.ToClient[:]) || string(k.FromClient) != string(theirs.ToServer[:])) {
					s.t.Errorf("the ends have different keys under id %d", k.ID)
				}
			}
		}
		// Which key ids there are says how far each end came. The client makes its first key when it is pushed its
		// options, later ones after the server and before that is sure of it.
		theirs := c.KeyIDs()
		for i, id := range installed {
			if id != tlsctl.KeyID(i) || len(theirs) > len(installed) || len(theirs) < confirmed && len(theirs) > 0 {
				s.t.Errorf("server has keys %v, %d of them confirmed, client %v", installed, confirmed, theirs)
				break
			}
		}
		if len(installed) == 0 && (len(theirs) > 0 || len(c.Messages()) > 0) {
			s.t.Errorf("server has no keys, client %v and heard %q", theirs, c.Messages())
		}
		if f := c.Failures(); f != nil && c == s.clients[len(s.clients)-1] {
			s.t.Errorf("failures: %v", f)
		}
	}
	if n := tlsctl.Panics(); n != 0 {
		s.t.Errorf("%d panics", n)
	}
}

// orderly reports whether every key came after its login was agreed to, and nothing after the end.
func orderly(events []string) error {
	granted := make(map[string]bool)
	over := false
	for _, e := range events {
		var id int
		switch {
		case e == "leaving":
			over = true
		case e == "established":
			if !granted["granted 0"] || over {
				return errors.New("established out of turn")
			}
		default:
			if n, _ := fmt.Sscanf(e, "install %d", &id); n == 1 {
				name := fmt.Sprintf("granted %d", id)
				if !granted[name] || over {
					return errors.New("key out of turn")
				}
				delete(granted, name)
				granted["granted 0"] = true
			}
			granted[e] = true
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(events), func(e string) bool { return e != "leaving" })); n != 1 {
		return fmt.Errorf("left %d times", n)
	}
	return nil
}
