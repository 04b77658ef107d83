package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"postern/server/audit"
	"postern/tlsctl"
)

// An Auditor keeps audit records (S104). Only Commit waits for the disk.
type Auditor interface {
	Add(audit.Record)
	// Commit returns when the record is on the disk, or why it is not.
	Commit(context.Context, audit.Record) error
	// Trouble is why records cannot be written now.
	Trouble() error
	// Astray is why they are written to a file that has another name by now.
	Astray() error
}

var errAudit = errors.New("the login cannot be recorded (audit)")

func (s *Server) record(r audit.Record) {
	if s.parts.Audit != nil {
		s.parts.Audit.Add(r)
	}
}

func (s *Server) auditTrouble() error {
	if s.parts.Audit == nil {
		return nil
	}
	return s.parts.Audit.Trouble()
}

// recorded fills in who c is, as far as is known.
func (c *client) recorded(r audit.Record, g *granted) audit.Record {
	r.Session, r.From, r.TCP = c.session.Name(), c.path.Load().addr, c.stream
	if g != nil {
		r.Name, r.User, r.Addr4, r.Addr6 = g.name, g.user, g.addr4, g.addr6
		if g.who != nil {
			r.By = g.who.By
		}
	}
	return r
}

// recordable turns a newcomer away while nobody could record that it came (F10). Who is in stays in.
func (c *client) recordable(live *live, h *tlsctl.Hello) error {
	c.judged.Store(true)
	if !h.First || live.cfg.AuditContinue {
		return nil
	}
	return notRecorded(c.srv.auditTrouble())
}

func notRecorded(err error) error {
	if err == nil {
		return nil
	}
	return comeAgain("server trouble, try again later", fmt.Errorf("%w: %w", errAudit, err))
}

// recordEntry records that a newcomer is let in, before it is, unless that need not be sure.
func (c *client) recordEntry(ctx context.Context, live *live, g *granted) error {
	a := c.srv.parts.Audit
	if a == nil {
		return nil
	}
	r := c.recorded(audit.Record{Event: "login", Result: audit.Accepted, Serial: serialOf(g)}, g)
	if live.cfg.AuditContinue {
		a.Add(r)
		return nil
	}
	return notRecorded(a.Commit(ctx, r))
}

func serialOf(g *granted) string {
	if len(g.chain) == 0 {
		return ""
	}
	return fmt.Sprintf("%x", g.chain[0].cert.SerialNumber)
}

// recordLogin records every other outcome of a login. Of those that were not let in there are as many records as there
// may be lines in the log (S103), and then their number.
func (c *client) recordLogin(live *live, h *tlsctl.Hello, err error) {
	r := audit.Record{Event: "login", Result: audit.Accepted, Again: !h.First}
	switch {
	case c.srv.parts.Audit == nil || err == nil && h.First:
		return // recordEntry did
	case err == nil:
		c.srv.record(c.recorded(r, c.decided()))
		return
	case !c.srv.unrecorded.allows(time.Now()):
		return
	}
	denial := (*tlsctl.Denial)(nil)
	switch errors.As(err, &denial); {
	case denial == nil || denial.Temporary:
		r.Result = audit.Later
	case denial.Challenge != "":
		r.Result = audit.Asked
	default:
		r.Result = audit.Refused
	}
	r.Reason = err.Error()
	r = c.recorded(r, nil)
	r.Name, r.User = h.CommonName, h.Username
	c.srv.record(r)
}

func (c *client) recordConnect(g *granted) {
	c.srv.record(c.recorded(audit.Record{Event: "connect", Result: audit.Done}, g))
}

func (c *client) recordFloat(from, to netip.AddrPort) {
	if c.srv.parts.Audit == nil {
		return
	}
	r := c.recorded(audit.Record{Event: "float", Result: audit.Done}, c.decided())
	r.From, r.To = from, to
	c.srv.record(r)
}

// recordEnd records the end of a session that was let in, or that came to no login, as with a bad certificate. Who only
// fell silent on the way is nothing to record.
func (c *client) recordEnd(g *granted, err error) {
	if c.srv.parts.Audit == nil {
		return
	}
	r := audit.Record{Event: "disconnect", Result: audit.Done}
	if err != nil {
		r.Reason = err.Error()
	}
	switch {
	case g != nil:
		r.Seconds = int64(time.Since(c.opened) / time.Second)
		r.Bytes = &audit.Bytes{Received: c.rx.bytes.Load(), Sent: c.tx.bytes.Load()}
	case c.judged.Load() || err == nil || errors.Is(err, tlsctl.ErrHandshakeTimeout) || errors.Is(err, tlsctl.ErrShutdown):
		return
	case !c.srv.unrecorded.allows(time.Now()):
		return
	default:
		r.Event, r.Result = "login", audit.Failed
	}
	c.srv.record(c.recorded(r, g))
}

// tendAudit raises the alarms, once a second. The keeper's.
func (s *Server) tendAudit(live *live) {
	a := s.parts.Audit
	if a == nil {
		return
	}
	if n := s.unrecorded.taken(); n > 0 {
		a.Add(audit.Record{Event: "withheld", Count: n})
	}
	if err := a.Astray(); err != nil {
		s.alarmOnce("audit file", fmt.Errorf("the audit file was moved, and records still go there: %w", err))
	}
	err := a.Trouble()
	switch failing := err != nil; {
	case failing && live.cfg.AuditContinue:
		s.alarmOnce("audit", fmt.Errorf("%w: logins go on without a record, as audit-failure says", err))
	case failing:
		s.alarmOnce("audit", fmt.Errorf("%w: new logins are put off until it can", err))
	case s.auditDown:
		s.log.Info().Msg("audit records are written again")
	}
	s.auditDown = err != nil
}
