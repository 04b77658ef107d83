package auth

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
)

// Bounds of what a directory may send (security S057). Nothing that it sends reaches the LDAP library before it has
// been found to be within them.
const (
	maxResult  = 1 << 20  // bytes in answer to one request
	maxValue   = 64 << 10 // bytes in one value
	maxNesting = 32
	maxGroups  = 1000 // of one user
)

// The operations that answers carry: RFC 4511 section 4.2 and on, application tags.
const (
	opBindResponse     = 1
	opSearchEntry      = 4
	opSearchDone       = 5
	opSearchReference  = 19
	opExtendedResponse = 24
)

// An answerConn hands on the answers of a directory one whole message at a time, and breaks the connection at the
// first one that is malformed, too large, or no answer to what was asked.
type answerConn struct {
	net.Conn
	expected atomic.Uint32 // set of operations, a bit each
	spent    atomic.Int64  // bytes read since the request

	ready  []byte                // the reading goroutine's: what is left of the message being handed on
	broken atomic.Pointer[error] // why reading ended
}

// expect sets which operations may answer from now on.
func (c *answerConn) expect(ops ...uint) {
	var set uint32
	for _, op := range ops {
		set |= 1 << op
	}
	c.expected.Store(set)
	c.spent.Store(0)
}

func (c *answerConn) Read(p []byte) (int, error) {
	if len(c.ready) == 0 {
		msg, err := c.next()
		if err != nil {
			c.broken.Store(&err)
			return 0, err
		}
		c.ready = msg
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// next reads one message that is fit to be handed on.
func (c *answerConn) next() ([]byte, error) {
	msg, err := readMessage(c.Conn, maxResult-int(c.spent.Load()))
	if err != nil {
		return nil, err
	}
	c.spent.Add(int64(len(msg)))
	op, err := checkMessage(msg)
	if err != nil {
		return nil, err
	}
	if c.expected.Load()&(1<<op) == 0 {
		return nil, fmt.Errorf("directory sent operation %d, which was not asked for", op)
	}
	return msg, nil
}

// explain adds to an error of the library why reading ended, if it did and the error is no answer: a request that came
// after that fails with no more than "connection closed". TLS 1.3 tells a client only behind the handshake that its
// certificate was wanted, or not liked.
func (c *answerConn) explain(err error) error {
	broken := c.broken.Load()
	if err == nil || broken == nil || anyResult(err) {
		return err
	}
	return &brokenError{err, *broken}
}

// A brokenError is an error of the library, which keeps causes as text at best, and the cause itself.
type brokenError struct{ err, cause error }

func (e *brokenError) Error() string {
	text, cause := e.err.Error(), e.cause.Error()
	if strings.Contains(text, cause) {
		return text
	}
	return text + ": " + cause
}

func (e *brokenError) Unwrap() []error { return []error{e.err, e.cause} }

var errMalformed = errors.New("malformed answer from the directory")

// readMessage reads one LDAPMessage from r, at most limit bytes, and no byte beyond it.
func readMessage(r io.Reader, limit int) ([]byte, error) {
	head := make([]byte, 2, 6)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if head[0] != 0x30 {
		return nil, fmt.Errorf("%w: begins with %#02x", errMalformed, head[0])
	}
	if more := int(head[1]) - 0x80; more > 0 {
		if more > 4 {
			return nil, fmt.Errorf("%w: length in %d bytes", errMalformed, more)
		}
		head = head[:2+more]
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return nil, unexpectedEOF(err)
		}
	}
	_, length, err := parseLength(head[1:])
	if err != nil {
		return nil, err
	}
	if len(head)+length > limit {
		return nil, fmt.Errorf("answer from the directory is larger than %d bytes", maxResult)
	}
	msg := append(head, make([]byte, length)...)
	if _, err := io.ReadFull(r, msg[len(head):]); err != nil {
		return nil, unexpectedEOF(err)
	}
	return msg, nil
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkMessage makes sure that msg is
//
//	SEQUENCE { INTEGER id, [APPLICATION op] SEQUENCE {...}, [0] controls OPTIONAL }
//
// with an id of some request, and well-formed BER all through. It returns op.
func checkMessage(msg []byte) (op uint, err error) {
	_, body, rest, err := parseElement(msg)
	if err != nil {
		return 0, err
	}
	if len(rest) != 0 {
		return 0, fmt.Errorf("%w: bytes behind it", errMalformed)
	}
	tag, id, rest, err := parseElement(body)
	if err != nil {
		return 0, err
	}
	if tag != 0x02 || len(id) == 0 || len(id) > 4 {
		return 0, fmt.Errorf("%w: no message id", errMalformed)
	}
	if len(id) == 1 && id[0] == 0 {
		return 0, errors.New("directory ends the connection") // an unsolicited notification
	}
	tag, _, controls, err := parseElement(rest)
	if err != nil {
		return 0, err
	}
	if tag&0xe0 != 0x60 {
		return 0, fmt.Errorf("%w: no operation", errMalformed)
	}
	if len(controls) != 0 {
		next, _, rest, err := parseElement(controls)
		if err != nil {
			return 0, err
		}
		if next != 0xa0 || len(rest) != 0 {
			return 0, fmt.Errorf("%w: no controls behind the operation", errMalformed)
		}
	}
	if err := checkNesting(body, 1); err != nil {
		return 0, err
	}
	return uint(tag & 0x1f), nil
}

// checkNesting makes sure that b is a row of well-formed elements, none too deep, no value too long.
func checkNesting(b []byte, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%w: nested deeper than %d", errMalformed, maxNesting)
	}
	for len(b) > 0 {
		tag, content, rest, err := parseElement(b)
		if err != nil {
			return err
		}
		if tag&0x20 != 0 {
			if err := checkNesting(content, depth+1); err != nil {
				return err
			}
		} else if len(content) > maxValue {
			return fmt.Errorf("value of %d bytes in an answer from the directory, at most %d", len(content), maxValue)
		}
		b = rest
	}
	return nil
}

// parseElement takes one BER element with a one-byte tag and a definite length off b; LDAP has no others.
func parseElement(b []byte) (tag byte, content, rest []byte, err error) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return 0, nil, nil, fmt.Errorf("%w: no element", errMalformed)
	}
	n, length, err := parseLength(b[1:])
	if err != nil {
		return 0, nil, nil, err
	}
	if length > len(b)-1-n {
		return 0, nil, nil, fmt.Errorf("%w: element longer than what holds it", errMalformed)
	}
	return b[0], b[1+n:][:length], b[1+n+length:], nil
}

// parseLength reads a BER length at the beginning of b: it is n bytes long and says length.
func parseLength(b []byte) (n, length int, err error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("%w: no length", errMalformed)
	}
	if b[0] < 0x80 {
		return 1, int(b[0]), nil
	}
	n = int(b[0] - 0x80)
	if n == 0 || n > 4 || len(b) < 1+n {
		return 0, 0, fmt.Errorf("%w: bad length", errMalformed)
	}
	var v uint64
	for _, x := range b[1 : 1+n] {
		v = v<<8 | uint64(x)
	}
	if v > maxResult {
		return 0, 0, fmt.Errorf("answer from the directory is larger than %d bytes", maxResult)
	}
	return 1 + n, int(v), nil
}
