package pki

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// An index is index.txt, the database of `openssl ca`: one line a certificate, six fields with tabs between.
//
//	V  291231235959Z                        0A1B2C  unknown  /CN=alice
//	R  291231235959Z  261122202716Z,reason  0A1B2D  unknown  /CN=bob
//	E  251231235959Z                        0A1B2E  unknown  /CN=carol
//
// State, expiry, revocation date, serial number, file name (never used), subject. Lines are kept as they were read,
// byte for byte, and only the one that changes is written anew.
type index struct {
	lines []indexLine
}

type indexLine struct {
	raw   string // without the line end
	entry *entry // nil: a comment
}

// An entry is one certificate in the index.
type entry struct {
	state   byte // V, R, E
	expiry  time.Time
	revoked time.Time // of R
	reason  string    // as written behind the date: "keyCompromise"; "" none
	serial  *big.Int
	subject string // OpenSSL's one-line form: /C=XX/CN=alice
}

const indexFields = 6

func parseIndex(b []byte) (*index, error) {
	x := &index{}
	for n, raw := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		raw = strings.TrimSuffix(raw, "\r")
		if raw == "" && len(b) <= 1 {
			break
		}
		if strings.HasPrefix(raw, "#") {
			x.lines = append(x.lines, indexLine{raw: raw})
			continue
		}
		e, err := parseEntry(raw)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		x.lines = append(x.lines, indexLine{raw: raw, entry: e})
	}
	return x, nil
}

func parseEntry(raw string) (*entry, error) {
	f := strings.Split(raw, "\t")
	if len(f) != indexFields {
		return nil, fmt.Errorf("%d fields, want %d", len(f), indexFields)
	}
	e := &entry{subject: f[5]}
	var err error
	switch f[0] {
	case "V", "E":
		if f[2] != "" {
			return nil, fmt.Errorf("state %s with revocation date %q", f[0], f[2])
		}
	case "R":
		date, reason, _ := strings.Cut(f[2], ",")
		if e.revoked, err = parseTime(date); err != nil {
			return nil, fmt.Errorf("revocation date: %w", err)
		}
		e.reason = reason
	default:
		return nil, fmt.Errorf("unknown state %q", f[0])
	}
	e.state = f[0][0]
	if e.expiry, err = parseTime(f[1]); err != nil {
		return nil, fmt.Errorf("expiry date: %w", err)
	}
	if e.serial, err = parseSerial(f[3]); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *entry) String() string {
	revoked := ""
	if e.state == 'R' {
		revoked = formatTime(e.revoked)
		if e.reason != "" {
			revoked += "," + e.reason
		}
	}
	return strings.Join([]string{string(e.state), formatTime(e.expiry), revoked, formatSerial(e.serial), "unknown", e.subject}, "\t")
}

// bytes is the file's new contents.
func (x *index) bytes() []byte {
	var b bytes.Buffer
	for _, l := range x.lines {
		b.WriteString(l.raw)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// entries calls yield for every certificate in the order of the file.
func (x *index) entries(yield func(*entry) bool) {
	for _, l := range x.lines {
		if l.entry != nil && !yield(l.entry) {
			return
		}
	}
}

func (x *index) find(serial *big.Int) *entry {
	for e := range x.entries {
		if e.serial.Cmp(serial) == 0 {
			return e
		}
	}
	return nil
}

// add appends e, unless its serial number is there already.
func (x *index) add(e *entry) {
	if x.find(e.serial) == nil {
		x.lines = append(x.lines, indexLine{raw: e.String(), entry: e})
	}
}

// revoke marks the certificate revoked. The first date stays when it was revoked before.
func (x *index) revoke(serial *big.Int, at time.Time, reason string) {
	for i, l := range x.lines {
		if l.entry == nil || l.entry.serial.Cmp(serial) != 0 || l.entry.state == 'R' {
			continue
		}
		f := strings.Split(l.raw, "\t")
		f[0], f[2] = "R", formatTime(at)
		if reason != "" {
			f[2] += "," + reason
		}
		e := *l.entry
		e.state, e.revoked, e.reason = 'R', at.Truncate(time.Second), reason
		x.lines[i] = indexLine{raw: strings.Join(f, "\t"), entry: &e}
	}
}

// Dates are ASN.1's: UTCTime up to 2049 (two digits of the year, 50 to 99 are 19xx), GeneralizedTime after.
const (
	utcTime         = "060102150405Z"
	generalizedTime = "20060102150405Z"
)

func parseTime(s string) (time.Time, error) {
	switch len(s) {
	case len(utcTime):
		t, err := time.Parse(utcTime, s)
		if err == nil && t.Year() >= 2050 { // Go's pivot is 69
			t = t.AddDate(-100, 0, 0)
		}
		return t, err
	case len(generalizedTime):
		return time.Parse(generalizedTime, s)
	}
	return time.Time{}, fmt.Errorf("%q is not a date", s)
}

func formatTime(t time.Time) string {
	t = t.UTC()
	if y := t.Year(); y < 1950 || y >= 2050 {
		return t.Format(generalizedTime)
	}
	return t.Format(utcTime)
}

// maxSerialDigits is RFC 5280's 20 octets, and as many again for what was made without reading it.
const maxSerialDigits = 80

func parseSerial(s string) (*big.Int, error) {
	digits, negative := strings.CutPrefix(s, "-")
	n := new(big.Int)
	if digits == "" || len(digits) > maxSerialDigits || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return nil, fmt.Errorf("%q is not a serial number", s)
	}
	n.SetString(digits, 16)
	if negative {
		n.Neg(n)
	}
	return n, nil
}

// formatSerial writes whole octets, as OpenSSL does in the index and in file names.
func formatSerial(n *big.Int) string {
	s := fmt.Sprintf("%X", new(big.Int).Abs(n))
	if len(s)%2 == 1 {
		s = "0" + s
	}
	if n.Sign() < 0 {
		s = "-" + s
	}
	return s
}

// commonName is the last CN of a one-line subject, and whether there is exactly one.
func commonName(subject string) (string, bool) {
	parts := strings.Split(subject, "/CN=")
	if len(parts) != 2 {
		return "", false
	}
	cn := parts[1]
	// A further attribute begins with "/type="; a slash alone belongs to the name.
	for i := 0; i < len(cn); i++ {
		if cn[i] != '/' {
			continue
		}
		if typ, _, ok := strings.Cut(cn[i+1:], "="); ok && typ != "" && !strings.ContainsAny(typ, " /") {
			return cn[:i], true
		}
	}
	return cn, true
}
