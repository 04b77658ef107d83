package tlsctl

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Method is how a client's user is asked for more than a password, by its name in IV_SSO.
type Method string

const (
	// JustWait asks nothing: the client only learns that its login takes longer, as with a push to a telephone.
	JustWait Method = ""
	// AskText shows a text. With flag R the user's answer comes back, with E it may be seen while it is typed.
	AskText Method = "crtext"
	// AskWeb opens a web page, whose owner then knows the answer. Flags are "hidden", "external", "proxy=...".
	AskWeb Method = "webauth"
	// AskURL is what older clients have in place of AskWeb. It knows no flags.
	AskURL Method = "openurl"
)

// A Question is what the user of a client is to be asked while its login goes on.
type Question struct {
	Method Method
	Flags  []string
	Text   string // or the address of the page
	// Timeout is how long the user has from now on; 0 means as long as can be. The whole login never takes longer than
	// five minutes (S010), nor than Timing.HandWindow if its client cannot be told that it does.
	Timeout time.Duration
}

var (
	// ErrCannotAsk: the client did not say that its user can be asked that way, or its login is over.
	ErrCannotAsk = errors.New("client's user cannot be asked")
	// ErrNoAnswer: the time for an answer is over.
	ErrNoAnswer = errors.New("client's user did not answer in time")
)

const (
	maxLogin    = 5 * time.Minute // from the first packet until the login is decided (S010)
	afterAnswer = 5 * time.Second // of these, to decide about the last answer and to say so
	maxAnswer   = 1011            // base64, as OpenVPN 2 has it
)

// CanAsk reports whether the client says that its user can be asked by a method.
func (h *Hello) CanAsk(m Method) bool {
	if m == JustWait {
		return h.Peer.Can(FeaturePendingTime)
	}
	return slices.Contains(h.Peer.SSO(), string(m))
}

// Ask asks the client's user, and returns what he answers if q wants an answer over the control channel; the caller
// overwrites it. For all else it returns as soon as the question is on its way, and the caller waits for the answer
// himself, at most until the context of Admit ends.
//
// It is for Admit alone, while that runs, and prolongs the time that it has. So it is to be called only once
// certificate and password were found good (S010). An answer may be wrong; whoever asks again asks again, one question
// at a time. The error is ErrCannotAsk, ErrNoAnswer, the cause of ctx or that of Admit's context, or says what is wrong
// with q or with the form of the answer.
func (h *Hello) Ask(ctx context.Context, q Question) (Secret, error) {
	if h.ask == nil || !h.CanAsk(q.Method) {
		return nil, ErrCannotAsk
	}
	return h.ask(ctx, q)
}

// info is how q is put to the client, "" for nothing.
func (q *Question) info() (Message, error) {
	flags := strings.Join(q.Flags, ",")
	if strings.Contains(flags, ":") {
		return "", fmt.Errorf("question with flags %q", flags)
	}
	var m string
	switch q.Method {
	case JustWait:
		return "", nil
	case AskText:
		m = "CR_TEXT:" + flags + ":" + q.Text
	case AskWeb:
		m = "WEB_AUTH:" + flags + ":" + q.Text
	case AskURL:
		m = "OPEN_URL:" + q.Text
	default:
		return "", fmt.Errorf("question by the unknown method %q", q.Method)
	}
	info := Message("INFO_PRE," + m)
	if !info.whole() {
		return "", errors.New("question is too long, or holds a control byte")
	}
	return info, nil
}

// wantsAnswer reports whether q is answered over the control channel.
func (q *Question) wantsAnswer() bool { return q.Method == AskText && slices.Contains(q.Flags, "R") }

// A question is a Question that is open. It is Run's.
type question struct {
	messages []Message // to be said as soon as the client listens; nil when they were
	wanted   bool      // an answer is
	until    time.Time
	result   chan answer // of one
}

type answer struct {
	text Secret
	err  error
}

// ask puts a question to the client of a negotiation. during ends when Admit returns.
func (s *Session) ask(ctx, during context.Context, n *negotiation, q Question) (Secret, error) {
	if during.Err() != nil {
		return nil, ErrCannotAsk
	}
	info, err := q.info()
	if err != nil {
		return nil, err
	}
	if err := s.tell(n); err != nil { // the client takes nothing before it
		return nil, err
	}
	open := &question{wanted: q.wantsAnswer(), result: make(chan answer, 1)}
	long, since := n.hello.Peer.Can(FeaturePendingTime), n.asked
	s.order(func(now time.Time) {
		if s.leaving != nil || n.question != nil {
			open.result <- answer{err: ErrCannotAsk}
			return
		}
		if q.Timeout <= 0 {
			q.Timeout = maxLogin
		}
		if long {
			s.prolong(n, now.Add(q.Timeout+afterAnswer))
		}
		open.until = now.Add(q.Timeout)
		if last := n.deadline.Add(-afterAnswer); last.Before(open.until) {
			open.until = last
		}
		pending := Message("AUTH_PENDING")
		if long {
			// The client counts from the end of the key exchange.
			pending += Message(fmt.Sprintf(",timeout %d", (n.deadline.Sub(since)+time.Second-1)/time.Second))
		}
		open.messages = append(open.messages, pending)
		if info != "" {
			open.messages = append(open.messages, info)
		}
		n.question = open
		n.packets = 0 // of a client that was asked more may come than of one who has shown nothing
	})
	select {
	case a := <-open.result:
		return a.text, a.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-during.Done():
		err = context.Cause(during)
	}
	s.order(func(time.Time) {
		if n.question == open {
			n.question = nil
		}
		select {
		case a := <-open.result:
			clear(a.text)
		default:
		}
	})
	return nil, err
}

// prolong gives a negotiation time until t, or as much of it as may be. Its client must be told so.
func (s *Session) prolong(n *negotiation, t time.Time) {
	every := s.timing.Renegotiate
	if every < 0 {
		every = time.Hour // the client's
	}
	// More than half of its own interval a client does not wait.
	if limit := n.started.Add(min(maxLogin, max(every/2, s.timing.HandWindow))); limit.Before(t) {
		t = limit
	}
	if t.After(n.deadline) {
		n.deadline = t
	}
}

// pursue puts n's question to the client once all else was acknowledged, and gives up when its time is over.
func (s *Session) pursue(now time.Time, n *negotiation) {
	q := n.question
	if q == nil {
		return
	}
	if q.messages != nil && n.conn.idle() {
		for _, m := range q.messages {
			s.say(n, m)
		}
		if q.messages = nil; !q.wanted {
			n.settle(answer{})
			return
		}
	}
	if s.passed(now, q.until) {
		n.settle(answer{err: ErrNoAnswer})
	}
}

// settle closes n's question.
func (n *negotiation) settle(a answer) {
	n.question.result <- a
	n.question = nil
}

// answered takes a CR_RESPONSE, on whichever negotiation it came. Without a question it is nothing.
func (s *Session) answered(text []byte) {
	for _, n := range s.negotiated {
		if q := n.question; q != nil && q.wanted && q.messages == nil {
			response, err := parseAnswer(text)
			n.settle(answer{response, err})
			return
		}
	}
}

// parseAnswer decodes the base64 of an answer: the one encoding of each, without zero bytes. The error quotes nothing
// of it.
func parseAnswer(text []byte) (Secret, error) {
	if len(text) > maxAnswer {
		return nil, errors.New("answer is too long")
	}
	if bytes.ContainsAny(text, "\r\n") { // which decoding would skip
		return nil, errors.New("answer is not base64")
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	switch {
	case err != nil:
		err = errors.New("answer is not base64")
	case bytes.IndexByte(b[:n], 0) >= 0:
		err = errors.New("answer holds a zero byte")
	default:
		return b[:n], nil
	}
	clear(b)
	return nil, err
}
