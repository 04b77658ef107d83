// Package audit keeps a record of who came in, who did what, and when, in a form that shows whether it has been changed
// afterwards (S104).
//
//	{"seq":7,"time":"...","prev":"<SHA-256 of line 6>","event":"login",...}
//	{"seq":8,"time":"...","prev":"<SHA-256 of line 7>","event":"connect",...}
//
// A file has one record a line, each with its number and the hash of the line before, without its end. A line that was
// changed, taken out or put in breaks the chain where it was done; Verify finds the place. What it cannot find is that a
// chain was written anew from some place to its end: for that, the last hash is to be kept elsewhere.
//
// Who has something to record never waits for the disk: Log.Add queues, and Log.Run, one goroutine, writes what is queued
// and syncs it, several records at a time when they come faster than the disk takes them. Log.Commit is for what may
// happen only once it is recorded. Several processes may have one file: whoever writes has its lock, and goes on from
// the last line.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Record is one thing that happened. Who writes it leaves the first three fields alone.
type Record struct {
	Seq  uint64    `json:"seq"`  // from 1
	Time time.Time `json:"time"` // UTC
	Prev string    `json:"prev"` // SHA-256 of the line before, in hex; zeros before the first

	Event   string         `json:"event"`
	Result  string         `json:"result,omitempty"`  // one of the constants below
	Session string         `json:"session,omitempty"` // as in the log
	Name    string         `json:"name,omitempty"`    // of a client: its certificate's, or what stands for it
	User    string         `json:"user,omitempty"`    // as it was typed
	By      string         `json:"by,omitempty"`      // which login knew the user
	Peer    string         `json:"peer,omitempty"`    // who gave a command
	From    netip.AddrPort `json:"from,omitzero"`     // outside address
	To      netip.AddrPort `json:"to,omitzero"`       // and where it moved
	TCP     bool           `json:"tcp,omitempty"`
	Again   bool           `json:"renegotiation,omitempty"`
	Addr4   netip.Addr     `json:"address4,omitzero"` // inside
	Addr6   netip.Addr     `json:"address6,omitzero"`
	Bytes   *Bytes         `json:"bytes,omitempty"`
	Seconds int64          `json:"seconds,omitempty"` // how long it lasted
	Serial  string         `json:"serial,omitempty"`
	Command string         `json:"command,omitempty"`
	Reason  string         `json:"reason,omitempty"` // for administrators; the client was told less
	Count   int            `json:"count,omitempty"`

	// Lost is how many records there was no room for before this one, while the file could not be written.
	Lost uint64 `json:"lost,omitempty"`
	// Torn is how many bytes of half a record, which a crash had left at the end of the file, were removed before it.
	Torn int `json:"torn,omitempty"`
}

// Bytes is what a client moved, of outer packets.
type Bytes struct {
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
}

// Results.
const (
	Accepted = "accepted"
	Refused  = "refused"
	Later    = "later" // it could not be judged: the client comes again
	Asked    = "asked" // its user is to say more, in a new session
	Failed   = "failed"
	Done     = "done"
)

// maxText is how long a text of a record may be that somebody outside has a say in (S102).
const maxText = 256

// A head is where a chain has got to: the number and the hash of its last line. The zero value is before the first.
type head struct {
	seq uint64
	sum [sha256.Size]byte
}

// after is the head behind a line, which has no end of line.
func (h head) after(line []byte) head { return head{h.seq + 1, sha256.Sum256(line)} }

func (h head) hash() string { return hex.EncodeToString(h.sum[:]) }

// appendRecord appends r's line, and its end, to b, and returns where the chain is then.
func appendRecord(b []byte, r Record, h head) ([]byte, head, error) {
	r.Seq, r.Prev = h.seq+1, h.hash()
	for _, s := range []*string{&r.Session, &r.Name, &r.User, &r.By, &r.Peer, &r.Serial, &r.Command, &r.Reason} {
		*s = clipped(*s)
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&r); err != nil {
		return b, h, fmt.Errorf("encode a record: %w", err)
	}
	safe := inert(bytes.TrimSuffix(line.Bytes(), []byte("\n")))
	return append(append(b, safe...), '\n'), h.after(safe), nil
}

// clipped is a text as long as it may be.
func clipped(s string) string {
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// inert escapes what JSON leaves as it is and a terminal may act upon: C1 controls, and what changes the direction of text
// (S102). In JSON, what is not ASCII is within strings.
func inert(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case r == 0x7f || r >= utf8.RuneSelf && r <= 0xffff && !unicode.IsGraphic(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		case r > 0xffff && !unicode.IsGraphic(r): // tags and the like
			out = append(out, `\ufffd`...)
		default:
			out = append(out, line[:n]...)
		}
		line = line[n:]
	}
	return out
}
