package tlsctl

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// A Message is a text of the control channel, without its final zero byte. Control bytes in it are sent as '_', and
// of an over-long one only the beginning.
type Message string

// What a server may tell all clients. A comma and a text may follow, or the text alone where a colon ends the word.
const (
	Restart     Message = "RESTART"     // connect again; the user types his password again, and a token is forgotten
	RestartNext Message = "RESTART,[N]" // the same, to the next server of the list
	Halt        Message = "HALT"        // stop for good

	RestartKeep     Message = "RESTART,[P]:"  // connect again with the same password or token
	RestartKeepNext Message = "RESTART,[PN]:" // the same, to the next server: OpenVPN 2 alone knows it
)

// Bounds of messages, zero byte included.
const (
	maxMessage     = 1024            // that every client takes
	maxClientText  = 4096            // that we take (S026)
	maxPushBundle  = maxMessage - 84 // the rest is for the continuation
	maxOutgoing    = 64 << 10        // waiting to be sent
	pushReply      = "PUSH_REPLY"    // before the options
	responsePrefix = "CR_RESPONSE,"
	pushMore       = ",push-continuation 2" // at the end of all parts but the last
	pushLast       = ",push-continuation 1" // at the end of the last of several
)

// record returns m as it goes into a TLS record.
func (m Message) record() []byte {
	if len(m) > maxMessage-1 {
		m = m[:maxMessage-1]
	}
	return append([]byte(cleanName(string(m))), 0)
}

// whole reports whether m is sent as it is.
func (m Message) whole() bool { return len(m) < maxMessage && cleanText([]byte(m)) }

// pushReplies cuts a list of options into PUSH_REPLY messages.
func pushReplies(options []string) ([]Message, error) { return bundle(pushReply, options) }

// bundle cuts a list of options into messages that begin with head. An option must not hold a comma or a control
// byte, which the client would take for another option, and must fit into one message.
func bundle(head string, options []string) ([]Message, error) {
	var parts []Message
	part := []byte(head)
	for _, option := range options {
		if i := strings.IndexFunc(option, func(r rune) bool { return r == ',' || r < ' ' || r == 0x7f }); i >= 0 {
			return nil, fmt.Errorf("push option %q holds a character it must not", option)
		}
		if len(head)+len(option) >= maxPushBundle {
			return nil, fmt.Errorf("push option %.20q... is too long", option)
		}
		if len(part)+len(option) >= maxPushBundle {
			parts = append(parts, Message(part)+pushMore)
			part = []byte(head)
		}
		part = append(part, ',')
		part = append(part, option...)
	}
	if parts != nil {
		part = append(part, pushLast...)
	}
	return append(parts, Message(part)), nil
}

// authFailed is how a denial is told to a client. One that does not understand TEMP takes it for a final failure with
// an odd text, so it is told the text alone. A challenge that cannot be sent whole is none.
func authFailed(d *Denial, peer PeerInfo) Message {
	m := Message("AUTH_FAILED")
	if challenge := m + "," + Message(d.Challenge); strings.HasPrefix(d.Challenge, "CRV1:") && challenge.whole() {
		return challenge
	}
	switch {
	case d.Temporary && peer.Can(FeatureTempFailure):
		m += ",TEMP" + d.retry()
		if d.Public != "" {
			m += ":" + Message(d.Public)
		}
	case d.Session:
		m += ",SESSION:"
		if d.Public != "" {
			m += " " + Message(d.Public)
		}
	case d.Public != "":
		m += "," + Message(d.Public)
	}
	return m
}

// retry is what a temporary failure says about coming again.
func (d *Denial) retry() Message {
	var flags []string
	if d.Backoff > 0 {
		flags = append(flags, fmt.Sprintf("backoff %d", max(int(d.Backoff/time.Second), 1)))
	}
	if d.Advance != "" {
		flags = append(flags, "advance "+d.Advance)
	}
	if flags == nil {
		return ""
	}
	return Message("[" + strings.Join(flags, ",") + "]")
}

// An inbound puts a client's messages together again. They end with a zero byte, however the client cut them into
// TLS records.
type inbound struct {
	buf  []byte
	skip bool // the rest of an over-long message is still to come
}

// add takes the plaintext of a record and calls message for each complete message that is clean, bad for each other.
// Neither may keep its argument's bytes, which are overwritten then: they may be a secret.
func (in *inbound) add(b []byte, message, bad func([]byte)) {
	for len(b) > 0 {
		part, rest, complete := bytes.Cut(b, []byte{0})
		b = rest
		if !in.skip {
			in.buf = append(in.buf, part...)
			if len(in.buf) >= maxClientText {
				bad(in.buf)
				in.buf, in.skip = nil, true
			}
		}
		if !complete {
			return
		}
		if !in.skip {
			text := bytes.TrimRight(in.buf, "\r\n")
			switch {
			case !cleanText(text):
				bad(text)
			case len(text) > 0:
				message(text)
			}
		}
		clear(in.buf)
		in.buf, in.skip = in.buf[:0], false
	}
}

// cleanText reports whether a text is free of control bytes.
func cleanText(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}
