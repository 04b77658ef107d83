package server

import (
	"crypto/x509"
	"fmt"
	"time"
)

// certWarned is which certificate the server showed last, and how often somebody was warned of its end.
type certWarned struct {
	cert  *x509.Certificate
	times int
}

// certWarnings is how many days before the end of the server's certificate somebody is told (S070).
var certWarnings = []int{30, 7, 1}

// checkOwnCertificate warns when the server's certificate comes to its end, once for each of certWarnings. The keeper
// calls it.
func (s *Server) checkOwnCertificate(l *live, now time.Time) {
	leaf := l.creds.tls.Certificates[0].Leaf
	if leaf != s.warned.cert {
		s.warned.cert, s.warned.times = leaf, 0
	}
	left := leaf.NotAfter.Sub(now)
	times := s.warned.times
	for times < len(certWarnings) && left < time.Duration(certWarnings[times])*24*time.Hour {
		times++
	}
	if times == s.warned.times {
		return
	}
	s.warned.times = times
	s.log.Error().Str("alarm", "certificate").Err(fmt.Errorf("cert %s ends on %s: renew it, then reload", l.cfg.Cert.Name, leaf.NotAfter.Format(time.DateTime))).Send()
}
