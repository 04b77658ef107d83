package hooks

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// CertOf describes a certificate. subject is its subject as OpenVPN writes it.
func CertOf(cert *x509.Certificate, subject string) CertInfo {
	c := CertInfo{
		Subject: subject,
		Serial:  cert.SerialNumber,
		SHA1:    sha1.Sum(cert.Raw), // a name for the certificate, not a proof of anything
		SHA256:  sha256.Sum256(cert.Raw),
		DER:     cert.Raw,
	}
	for _, a := range cert.Subject.Names {
		name, known := subjectFields[a.Type.String()]
		if !known {
			name = a.Type.String()
		}
		c.Fields = append(c.Fields, Var{name, fmt.Sprint(a.Value)})
	}
	return c
}

// subjectFields are OpenSSL's short names, which scripts look for.
var subjectFields = map[string]string{
	"2.5.4.3":                    "CN",
	"2.5.4.4":                    "SN",
	"2.5.4.5":                    "serialNumber",
	"2.5.4.6":                    "C",
	"2.5.4.7":                    "L",
	"2.5.4.8":                    "ST",
	"2.5.4.9":                    "street",
	"2.5.4.10":                   "O",
	"2.5.4.11":                   "OU",
	"2.5.4.12":                   "title",
	"2.5.4.13":                   "description",
	"2.5.4.17":                   "postalCode",
	"2.5.4.41":                   "name",
	"2.5.4.42":                   "GN",
	"2.5.4.43":                   "initials",
	"2.5.4.44":                   "generationQualifier",
	"2.5.4.46":                   "dnQualifier",
	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.25": "DC",
	"1.2.840.113549.1.9.1":       "emailAddress",
	"1.2.840.113549.1.9.2":       "unstructuredName",
}
