package server

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/tlsctl"
)

var errExpired = errors.New("certificate expired while connected")

// A crlStamp tells whether a revocation file changed.
type crlStamp struct {
	mod  time.Time
	size int64
}

// checkRevocations reads a changed CRL and ends the sessions of those it revokes (S068). A bad file keeps the last
// good list.
func (s *Server) checkRevocations(l *live) {
	crl := l.cfg.CRL
	if !crl.Set() || len(crl.Name) == 0 || crl.Name[0] != '/' {
		return
	}
	if !l.cfg.CRLDir {
		info, err := os.Stat(crl.Name)
		if err != nil {
			s.alarmOnce("crl", fmt.Errorf("crl-verify: %w; the last good list stays in force", err))
			return
		}
		stamp := crlStamp{info.ModTime(), info.Size()}
		if stamp == s.crlSeen {
			return
		}
		first := s.crlSeen == crlStamp{}
		s.crlSeen = stamp
		if first && len(crl.Bytes) == int(info.Size()) {
			return // what the configuration was loaded with
		}
		if err := l.creds.reloadCRL(crl.Name); err != nil {
			s.alarmOnce("crl", fmt.Errorf("crl-verify: %w; the last good list stays in force", err))
			return
		}
		s.log.Info().Str("file", crl.Name).Msg("revocation list read")
	}
	for _, c := range s.table.all() {
		s.recheck(l, c)
	}
}

// recheck ends a session whose certificate has been revoked.
func (s *Server) recheck(l *live, c *client) {
	c.mu.Lock()
	g := c.grant
	c.mu.Unlock()
	if g == nil || len(g.chain) == 0 {
		return
	}
	chain := make([]*x509.Certificate, len(g.chain))
	for i := range g.chain {
		chain[i] = g.chain[i].cert
	}
	if err := l.revoked(chain); err != nil {
		s.deny(c, "certificate revoked", err)
	}
}

// reloadCRL swaps the list whole, or leaves it.
func (c *credentials) reloadCRL(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	crl, err := tlsctl.ParseCRL(b, c.anchors)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if last := c.rules.CRL.Load(); last != nil && crl.Updated().Before(last.Updated()) {
		return fmt.Errorf("%s: older than the list in force", name)
	}
	c.rules.CRL.Store(crl)
	return nil
}

// revoked returns why a chain is not accepted any more, nil when it is.
func (l *live) revoked(chain []*x509.Certificate) error {
	if l.cfg.CRLDir {
		for _, cert := range chain {
			_, err := os.Lstat(filepath.Join(l.cfg.CRL.Name, cert.SerialNumber.String()))
			if err == nil {
				return fmt.Errorf("serial %v is revoked by a file in %s", cert.SerialNumber, l.cfg.CRL.Name)
			}
			if !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("crl-verify %s: %w", l.cfg.CRL.Name, err)
			}
		}
		return nil
	}
	return l.creds.rules.CheckRevoked(chain)
}

// alarmEvery is how often one alarm is repeated.
const alarmEvery = time.Minute

// alarmOnce logs an alarm, at most once a minute of each kind. Only the keeper calls it.
func (s *Server) alarmOnce(kind string, err error) {
	if s.alarms == nil {
		s.alarms = make(map[string]time.Time)
	}
	if time.Since(s.alarms[kind]) < alarmEvery {
		return
	}
	s.alarms[kind] = time.Now()
	s.log.Error().Err(err).Str("alarm", kind).Send()
}
