package server

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/server/audit"
	"postern/tlsctl"
)

var errExpired = errors.New("certificate expired while connected")

// A crlStamp tells whether a revocation file changed.
type crlStamp struct {
	name string
	mod  time.Time
	size int64
}

// checkRevocations reads a changed CRL and ends the sessions of those it revokes (S068). A bad file keeps the last
// good list, and raises an alarm as long as it is there.
func (s *Server) checkRevocations(l *live) {
	crl := l.cfg.CRL
	if !crl.Set() || !filepath.IsAbs(crl.Name) {
		return // none, or inline
	}
	if !l.cfg.CRLDir {
		s.checkAge(l)
		info, err := os.Stat(crl.Name)
		if err != nil {
			s.alarmOnce("crl", fmt.Errorf("crl-verify: %w; the last good list stays in force", err))
			return
		}
		stamp := crlStamp{crl.Name, info.ModTime(), info.Size()}
		if stamp == l.creds.crlSeen {
			return
		}
		changed, err := l.creds.reloadCRL(crl.Name)
		if err != nil {
			s.alarmOnce("crl", fmt.Errorf("crl-verify: %w; the last good list stays in force", err))
			return
		}
		if l.creds.crlSeen = stamp; !changed {
			return
		}
		s.log.Info().Str("file", crl.Name).Msg("revocation list read")
		s.record(audit.Record{Event: "revocation list", Result: audit.Done, Reason: crl.Name})
	}
	for _, c := range s.table.all(nil) {
		s.recheck(l, c)
	}
}

// checkAge raises an alarm when four fifths of the revocation list's life are over: when it is out of date nobody can
// log in.
func (s *Server) checkAge(l *live) {
	crl := l.creds.crl.Load()
	if crl == nil || crl.NextUpdate().IsZero() {
		return
	}
	left := time.Until(crl.NextUpdate())
	if left < crl.NextUpdate().Sub(crl.Updated())/5 {
		s.alarmOnce("crl age", fmt.Errorf("%s must be renewed by %s: from then on all logins are refused",
			l.cfg.CRL.Name, crl.NextUpdate().Format(time.DateTime)))
	}
}

// recheck ends a session whose certificate has been revoked. That the list is out of date, or cannot be read, ends
// none.
func (s *Server) recheck(l *live, c *client) {
	g := c.decided()
	if g == nil || len(g.chain) == 0 {
		return
	}
	chain := make([]*x509.Certificate, len(g.chain))
	for i := range g.chain {
		chain[i] = g.chain[i].cert
	}
	switch err := l.revoked(chain); {
	case errors.Is(err, tlsctl.ErrRevoked):
		s.deny(c, "certificate revoked", err)
	case err != nil:
		s.alarmOnce("crl", err)
	}
}

// reloadCRL swaps the list whole, or leaves it. It reports whether there is another one now.
func (c *credentials) reloadCRL(name string) (changed bool, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(b)
	if sum == c.crlSum {
		return false, nil
	}
	last := c.crl.Load()
	crl, err := tlsctl.ParseCRL(b, c.anchors)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	if last != nil && crl.Updated().Before(last.Updated()) {
		return false, fmt.Errorf("%s: older than the list in force", name)
	}
	c.crl.Store(crl)
	c.crlSum = sum
	return true, nil
}

// revoked returns why a chain is not accepted now, nil when it is: tlsctl.ErrRevoked, or what keeps us from knowing.
func (l *live) revoked(chain []*x509.Certificate) error {
	if !l.cfg.CRLDir {
		if crl := l.creds.crl.Load(); crl != nil {
			return crl.Check(chain)
		}
		return nil
	}
	for _, cert := range chain {
		_, err := os.Lstat(filepath.Join(l.cfg.CRL.Name, cert.SerialNumber.String()))
		if err == nil {
			return fmt.Errorf("%w: a file in %s has the name of its serial %v", tlsctl.ErrRevoked, l.cfg.CRL.Name, cert.SerialNumber)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("crl-verify %s: %w", l.cfg.CRL.Name, err)
		}
	}
	return nil
}
