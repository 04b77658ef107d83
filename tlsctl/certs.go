package tlsctl

// CertRules are the rules for client certificates.
type CertRules struct{}
