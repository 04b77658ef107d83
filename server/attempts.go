package server

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/auth"
	"postern/tlsctl"
)

// What is remembered for postern why. All of it is bounded, whatever comes (S103).
const (
	maxStrangers   = 512  // sessions that have come to no name
	maxNamed       = 2048 // and those that have
	maxEachName    = 16   // of one name, so that one user's failures do not push out the others'
	maxGreeted     = 512  // addresses that first packets came from
	maxSteps       = 32   // of one attempt; of more, those in the middle go
	usualSteps     = 6    // of an attempt that nothing comes between
	maxStepText    = 256  // bytes of what a peer may have had a say in (S102)
	attemptsAtOnce = 64   // in one answer
)

// An Attempt is how one session came about, or why it did not. It holds no secret.
type Attempt struct {
	Session string         `json:"session"`
	From    netip.AddrPort `json:"from"`
	Stream  bool           `json:"tcp"`
	User    string         `json:"user,omitempty"` // as the client called itself, before anybody judged that
	Name    string         `json:"name,omitempty"` // of the certificate
	Began   time.Time      `json:"began"`
	Steps   []AttemptStep  `json:"steps"`
	Over    bool           `json:"over"`

	forgotten bool // others have taken its place; its session may go on
}

// An AttemptStep is one thing that happened.
type AttemptStep struct {
	At     time.Time `json:"at"`
	Step   string    `json:"step"`
	Detail string    `json:"detail,omitempty"`
	Failed bool      `json:"failed,omitempty"`
}

// A Greeted is an address that first packets came from, before any session.
type Greeted struct {
	From     netip.Addr `json:"from"`
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`
	Answered int        `json:"answered"` // a cookie was sent; the address is proved when it comes back
	Dropped  int        `json:"dropped"`  // no packet of this server's clients: another key, another protocol, or too many
}

// Why is what is remembered about somebody.
type Why struct {
	Who      string    `json:"who"`
	Attempts []Attempt `json:"attempts"` // the latest last
	Greeted  *Greeted  `json:"first_packets,omitempty"`
}

// attempts remembers the latest sessions. Any goroutine; lanes are none of them.
type attempts struct {
	mu        sync.Mutex
	strangers []*Attempt // oldest first
	named     []*Attempt // oldest first

	greeted []Greeted          // a ring, as long as it may be from the first on
	place   map[netip.Addr]int // in greeted
	next    int
}

// greet notes a first packet. It costs the same whoever sends it.
func (a *attempts) greet(from netip.Addr, answered bool, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, known := a.place[from]
	if !known {
		if a.greeted == nil {
			a.greeted, a.place = make([]Greeted, maxGreeted), make(map[netip.Addr]int, maxGreeted)
		}
		i = a.next
		a.next = (a.next + 1) % maxGreeted
		delete(a.place, a.greeted[i].From)
		a.greeted[i] = Greeted{From: from, First: now}
		a.place[from] = i
	}
	g := &a.greeted[i]
	g.Last = now
	if answered {
		g.Answered++
	} else {
		g.Dropped++
	}
}

// begin notes a session whose address is proved.
func (a *attempts) begin(c *client, now time.Time) *Attempt {
	from := c.path.Load().addr
	t := &Attempt{Session: c.session.Name(), From: from, Stream: c.stream, Began: now, Steps: make([]AttemptStep, 0, usualSteps)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if i, known := a.place[from.Addr()]; known && !c.stream && now.Sub(a.greeted[i].Last) < time.Minute {
		t.Began = a.greeted[i].Last
		t.add(t.Began, "first packet", "", false)
	}
	if c.stream {
		t.add(now, "connection", "over TCP", false)
	} else {
		t.add(now, "cookie", "came back: the address is real", false)
	}
	a.strangers = append(a.strangers, t)
	if len(a.strangers) > maxStrangers {
		a.strangers = forget(a.strangers, 0)
	}
	return t
}

// name notes whom a session says it is. It is remembered longer from here on.
func (a *attempts) name(t *Attempt, user, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.User, t.Name = plain(user), plain(name)
	i := slices.Index(a.strangers, t)
	if i < 0 || t.User == "" && t.Name == "" {
		return
	}
	a.strangers = slices.Delete(a.strangers, i, i+1)
	oldest, same := -1, 0
	for j, other := range a.named {
		if other.User == t.User && other.Name == t.Name {
			if same++; oldest < 0 {
				oldest = j
			}
		}
	}
	switch {
	case same >= maxEachName:
		a.named = forget(a.named, oldest)
	case len(a.named) >= maxNamed:
		a.named = forget(a.named, 0)
	}
	a.named = append(a.named, t)
}

// forget takes an attempt out of a list. A session that goes on keeps nothing of it.
func forget(list []*Attempt, i int) []*Attempt {
	list[i].Steps, list[i].forgotten = nil, true
	return slices.Delete(list, i, i+1)
}

// note adds a step to an attempt.
func (a *attempts) note(t *Attempt, step, detail string, failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.add(time.Now(), step, detail, failed)
}

// over notes the end of an attempt, unless the last step has said it.
func (a *attempts) over(t *Attempt, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.Over = true
	text := "by itself"
	if err != nil {
		text = err.Error()
	}
	established := slices.ContainsFunc(t.Steps, func(s AttemptStep) bool { return s.Step == stepConnected })
	if !slices.ContainsFunc(t.Steps, func(s AttemptStep) bool { return s.Failed && s.Detail == plain(text) }) {
		t.add(time.Now(), "ended", text, !established)
		return
	}
	t.add(time.Now(), "ended", "the client was told", false)
}

func (t *Attempt) add(at time.Time, step, detail string, failed bool) {
	if t.forgotten {
		return
	}
	if len(t.Steps) >= maxSteps {
		t.Steps = slices.Delete(t.Steps, maxSteps/2, maxSteps/2+1)
	}
	t.Steps = append(t.Steps, AttemptStep{at, step, plain(detail), failed})
}

// plain makes a text one that does nothing to a terminal or a file, and is not longer than it may be (S102).
func plain(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, s)
	if len(clean) <= maxStepText {
		return clean
	}
	end := maxStepText
	for !utf8.RuneStart(clean[end]) {
		end--
	}
	return clean[:end] + "..."
}

// about returns what is remembered of a user, a certificate's name, a session, or an address.
func (a *attempts) about(who string) *Why {
	w := &Why{Who: plain(who), Attempts: []Attempt{}}
	addr, _ := netip.ParseAddr(who)
	canonical := func(s string) string {
		if name, err := auth.CanonicalName(s); err == nil {
			return name
		}
		return s
	}
	wanted := canonical(who)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range slices.Concat(a.strangers, a.named) {
		if addr.IsValid() && t.From.Addr() == addr.Unmap() || t.Session == who ||
			wanted != "" && (t.User != "" && canonical(t.User) == wanted || t.Name != "" && canonical(t.Name) == wanted) {
			one := *t
			one.Steps = slices.Clone(t.Steps)
			w.Attempts = append(w.Attempts, one)
		}
	}
	slices.SortStableFunc(w.Attempts, func(a, b Attempt) int { return a.Began.Compare(b.Began) })
	w.Attempts = w.Attempts[max(0, len(w.Attempts)-attemptsAtOnce):]
	if addr.IsValid() {
		if i, known := a.place[addr.Unmap()]; known {
			one := a.greeted[i]
			w.Greeted = &one
		}
	}
	return w
}

// serveWhy answers postern why: GET /why?who=NAME gives a Why.
func (s *Server) serveWhy(w http.ResponseWriter, r *http.Request) {
	who := r.URL.Query().Get("who")
	if who == "" {
		http.Error(w, "who?", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.attempts.about(who)) // a reader that has gone needs no answer
}

// The steps of an attempt after its address was proved.
const (
	stepTLS         = "TLS"
	stepCertificate = "certificate"
	stepLogin       = "login"
	stepPolicy      = "policy"
	stepAddress     = "address"
	stepConnected   = "connected"
	stepData        = "first data"
	stepAgain       = "renegotiation"
)

// tell notes a step of c's attempt.
func (c *client) tell(step, detail string) { c.srv.attempts.note(c.attempt, step, detail, false) }

// tellFailed notes the step that an attempt ends at.
func (c *client) tellFailed(step string, err error) {
	c.srv.attempts.note(c.attempt, step, err.Error(), true)
}

// An admission is how far a client has come in being admitted.
type admission struct {
	c    *client
	step string // that it is at
	all  bool   // its steps are told; at a renegotiation only the end is
}

// meet begins c's admission: TLS is behind it.
func (c *client) meet(h *tlsctl.Hello) *admission {
	a := &admission{c: c, step: stepCertificate, all: h.First}
	if h.First {
		name := h.CommonName
		c.srv.attempts.name(c.attempt, h.Username, name)
		c.tell(stepTLS, strings.TrimSpace(tls.VersionName(h.TLSVersion)+", "+h.Peer.Version()+" "+h.Peer.Platform()))
	}
	return a
}

// reach notes that the step it was at is behind the client, with what came of it, and which one follows.
func (a *admission) reach(next, done string) {
	if a.all && (done != "" || a.step != stepPolicy) {
		if done == "" {
			done = "none"
		}
		a.c.tell(a.step, done)
	}
	a.step = next
}

// parted notes how an admission ended.
func (c *client) parted(h *tlsctl.Hello, a *admission, err error) {
	switch {
	case err != nil && a.all:
		c.tellFailed(a.step, err)
	case err != nil:
		c.tellFailed(stepAgain, fmt.Errorf("%s: %w", a.step, err))
	case !h.First:
		c.tell(stepAgain, "")
	}
}

// described is who a login was.
func described(who *auth.Identity) string {
	text := who.Name
	if who.By != "" {
		text += ", by " + who.By
	}
	if n := len(who.Groups); n > 0 {
		text += fmt.Sprintf(", in %d groups", n)
	}
	return text
}

func shownAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
