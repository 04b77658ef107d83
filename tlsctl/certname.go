package tlsctl

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxCommonName is OpenVPN's limit.
const maxCommonName = 64

const oidCommonName = "2.5.4.3"

// CommonName returns the one name by which a certificate identifies its owner (S066): exactly one CN, of 1 to 64
// bytes out of A-Z a-z 0-9 . _ @ + -. Anything else is an error and never mended, since two names could become one.
func CommonName(cert *x509.Certificate) (string, error) {
	return subjectField(cert, oidCommonName, "common name")
}

// Subject writes a certificate's subject as OpenVPN does, "C=KG, ST=NA, O=Test, CN=name, emailAddress=a@b": in the
// certificate's order, control bytes as '_', a leading '-' too.
func Subject(cert *x509.Certificate) string {
	names, err := subjectOf(cert)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for i, set := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, a := range set {
			if j > 0 {
				b.WriteString(" + ")
			}
			value, err := a.text()
			if err != nil {
				value = fmt.Sprintf("%X", a.Value.Bytes)
			}
			b.WriteString(attributeName(a.Type) + "=" + value)
		}
	}
	s := cleanName(b.String())
	if strings.HasPrefix(s, "-") {
		s = "_" + s[1:]
	}
	return s
}

// A subject in its raw form: pkix.Name forgets the order, and encoding/asn1 which kind of string a value was. The
// ending of the first name tells encoding/asn1 that it is a SET.
type subjectSET []subjectAttribute

type subjectAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func subjectOf(cert *x509.Certificate) ([]subjectSET, error) {
	var names []subjectSET
	rest, err := asn1.Unmarshal(cert.RawSubject, &names)
	if err != nil {
		return nil, fmt.Errorf("certificate's subject: %w", err)
	}
	if len(rest) > 0 {
		return nil, errors.New("certificate's subject has bytes behind it")
	}
	return names, nil
}

// text returns a value of the kinds that are bytes of text. BMPString and its like, where one name has two spellings,
// are not among them.
func (a *subjectAttribute) text() (string, error) {
	if a.Value.Class != asn1.ClassUniversal {
		return "", errors.New("value is not a string")
	}
	switch a.Value.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, asn1.TagNumericString:
	default:
		return "", fmt.Errorf("value has the unsupported type %d", a.Value.Tag)
	}
	if !utf8.Valid(a.Value.Bytes) {
		return "", errors.New("value is not valid UTF-8")
	}
	return string(a.Value.Bytes), nil
}

// attributeName is OpenSSL's short name of a subject field.
func attributeName(oid asn1.ObjectIdentifier) string {
	s := oid.String()
	if name, ok := attributeNames[s]; ok {
		return name
	}
	return s
}

var attributeNames = map[string]string{
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
