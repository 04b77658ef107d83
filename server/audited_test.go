package server

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/server/audit"
)

// ledger is an Auditor in memory, which does as it is told.
type ledger struct {
	mu      sync.Mutex
	records []audit.Record
	trouble error
}

func (l *ledger) Add(r audit.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
}

func (l *ledger) Commit(_ context.Context, r audit.Record) error {
	l.Add(r)
	return l.Trouble()
}

func (l *ledger) Trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble
}

func (l *ledger) Astray() error { return nil }

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
}

// take returns what was recorded since it was asked last.
func (l *ledger) take() []audit.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records
	l.records = nil
	return r
}

func shortRecords(list []audit.Record) (short []string) {
	for _, r := range list {
		text := r.Event + " " + r.Result + " " + r.Name + "/" + r.User
		if r.Again {
			text += " again"
		}
		short = append(short, text)
	}
	return short
}

// S104: whatever a client does that matters is recorded once, with why and with what it moved, and without secrets.
func TestS104ClientsAreRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		book := new(ledger)
		w.audit, w.login = book, loginFunc(passwords)
		w.start()
		alice := w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		alice.mustReach()
		alice.sock.Move(at(1))
		alice.mustReach()
		alice.renegotiate()
		time.Sleep(time.Second)
		alice.ctl.Say("EXIT")
		time.Sleep(10 * time.Second)
		all := book.take()
		want := []string{"login accepted alice/alice", "connect done alice/alice", "float done alice/alice", "login accepted alice/alice again", "disconnect done alice/alice"}
		if got := shortRecords(all); !slices.Equal(got, want) {
			t.Fatalf("records\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		session := all[0].Session
		for _, r := range all {
			if r.Session != session || session == "" || !r.From.IsValid() || !r.Addr4.IsValid() {
				t.Errorf("record %+v", r)
			}
		}
		if all[0].Serial == "" || all[2].From != homeAddr || all[2].To != at(1) || all[4].From != at(1) || all[4].Reason == "" {
			t.Errorf("records %+v", all)
		}
		if b := all[4].Bytes; b == nil || b.Received == 0 || b.Sent == 0 {
			t.Errorf("moved %+v", b)
		}

		bob := w.peer("bob", otherAddr, withLogin("bob", "not bob's"))
		if err := bob.ctl.Connect(w.ctx); err == nil {
			t.Fatal("bob is in")
		}
		time.Sleep(10 * time.Second)
		refused := book.take()
		if got, want := shortRecords(refused), []string{"login refused bob/bob"}; !slices.Equal(got, want) {
			t.Fatalf("records %q, want %q", got, want)
		}
		if r := refused[0]; r.Reason == "" || strings.Contains(r.Reason, "not bob's") || r.From != otherAddr {
			t.Errorf("record %+v", r)
		}
	})
}

// S104: who comes to no login, as with a certificate that is over, is recorded as one that failed, with the reason.
func TestS104FailedBeforeTheLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		book := new(ledger)
		w.audit = book
		w.start()
		over, err := w.ca.Issue("alice", x509.ExtKeyUsageClientAuth, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
		must(t, err)
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		if err := w.peerWith(over, homeAddr).ctl.Connect(ctx); err == nil {
			t.Error("alice is in")
		}
		time.Sleep(time.Minute)
		all := book.take()
		if got, want := shortRecords(all), []string{"login failed /"}; !slices.Equal(got, want) {
			t.Fatalf("records %q, want %q", got, want)
		}
		if r := all[0]; !strings.Contains(r.Reason, "expired") || r.From != homeAddr || r.Session == "" {
			t.Errorf("record %+v", r)
		}
	})
}

// F10: while records cannot be written newcomers are put off, and hear no reason; who is in stays in, renegotiates and
// leaves. Then everything is as before.
func TestF10NoRecordNoLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		book := new(ledger)
		w.audit = book
		w.start()
		alice := w.peer("alice", homeAddr).connect()
		book.fail(errors.New("no space left on device"))
		time.Sleep(2 * time.Second)
		bob := w.peer("bob", otherAddr)
		if err := bob.ctl.Connect(w.ctx); err == nil || !strings.Contains(err.Error(), "AUTH_FAILED,TEMP") || strings.Contains(err.Error(), "space") {
			t.Errorf("bob: %v", err)
		}
		alice.renegotiate()
		alice.mustReach()
		if !strings.Contains(w.log.String(), `"alarm":"audit"`) || w.srv.Snapshot().AuditTrouble == "" {
			t.Errorf("no alarm: %s", w.log)
		}
		book.fail(nil)
		time.Sleep(10 * time.Second)
		w.peer("bob", thirdAddr).connect().mustReach()
		if got, want := w.clients(), []string{"alice", "bob"}; !slices.Equal(got, want) {
			t.Errorf("connected: %v, want %v", got, want)
		}
	})
}

// onlyAsked hides a failure until a record is to be committed: the disk fills up in that moment.
type onlyAsked struct{ *ledger }

func (onlyAsked) Trouble() error { return nil }

func (l onlyAsked) Commit(_ context.Context, r audit.Record) error {
	l.Add(r)
	return l.ledger.Trouble()
}

// F10: a login that is right, and cannot be recorded, is none, and keeps no address.
func TestF10LoginThatCannotBeRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		book := new(ledger)
		book.fail(errors.New("input/output error"))
		w.audit = onlyAsked{book}
		w.start()
		alice := w.peer("alice", homeAddr)
		if err := alice.ctl.Connect(w.ctx); err == nil || !strings.Contains(err.Error(), "AUTH_FAILED,TEMP") {
			t.Errorf("alice: %v", err)
		}
		time.Sleep(10 * time.Second)
		if snap := w.srv.Snapshot(); len(snap.Clients) != 0 || snap.Pool.Leased != 0 {
			t.Errorf("%d clients, %d addresses", len(snap.Clients), snap.Pool.Leased)
		}
	})
}

// With audit-failure continue nobody is kept out; the alarm is raised all the same.
func TestAuditFailureContinue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		book := new(ledger)
		book.fail(errors.New("no space left on device"))
		w.audit, w.cfg.AuditContinue = book, true
		w.start()
		w.peer("alice", homeAddr).connect().mustReach()
		time.Sleep(2 * time.Second)
		if !strings.Contains(w.log.String(), `"alarm":"audit"`) {
			t.Errorf("no alarm: %s", w.log)
		}
	})
}

// S103: those who are not let in write so many records, and then their number is one; who is let in is recorded all the
// same.
func TestS103RefusalsAreCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		book := new(ledger)
		w.audit, w.login = book, loginFunc(passwords)
		w.start()
		for range hushMinute / hushSecond {
			for range hushSecond {
				w.srv.unrecorded.allows(time.Now())
			}
			time.Sleep(time.Second)
		}
		if err := w.peer("bob", otherAddr, withLogin("bob", "not bob's")).ctl.Connect(w.ctx); err == nil {
			t.Error("bob is in")
		}
		w.peer("alice", homeAddr, withLogin("alice", "secret")).connect()
		time.Sleep(2 * time.Second)
		all := book.take()
		if got, want := shortRecords(all), []string{"login accepted alice/alice", "connect done alice/alice"}; !slices.Equal(withoutEvent(got, "withheld"), want) {
			t.Errorf("records %q, want %q", got, want)
		}
		withheld := 0
		for _, r := range all {
			if r.Event == "withheld" {
				withheld += r.Count
			}
		}
		if withheld != 1 {
			t.Errorf("%d are said to be withheld, want bob's", withheld)
		}
	})
}

func withoutEvent(list []string, event string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, event+" ") })
}
