package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// What challenges look like on the wire. Static, in one login:
//
//	SCRV1:base64(password):base64(response)
//
// Dynamic, from the server as the reason of an AUTH_FAILED, and back as a password; the text may contain colons,
// the response is as it was typed:
//
//	CRV1:flags:state:base64(user name):text
//	CRV1::state::response
var (
	staticPrefix  = []byte("SCRV1:")
	dynamicPrefix = []byte("CRV1:")
	replyPrefix   = []byte("CRV1::")
)

// FormatStatic returns the password that a client with a static challenge sends.
func FormatStatic(password, response []byte) []byte {
	b := bytes.Clone(staticPrefix)
	b = base64.StdEncoding.AppendEncode(b, password)
	b = append(b, ':')
	return base64.StdEncoding.AppendEncode(b, response)
}

// ParseStatic undoes FormatStatic. Either part may be empty; neither is nil without an error.
func ParseStatic(text []byte) (password, response []byte, err error) {
	rest, ok := bytes.CutPrefix(text, staticPrefix)
	if !ok {
		return nil, nil, errors.New("not a static challenge's answer")
	}
	first, second, ok := bytes.Cut(rest, []byte(":")) // one more is not base64
	if !ok {
		return nil, nil, errors.New("static challenge: not two parts")
	}
	if password, err = strictBase64(first); err != nil {
		return nil, nil, fmt.Errorf("static challenge, password: %w", err)
	}
	if response, err = strictBase64(second); err != nil {
		clear(password)
		return nil, nil, fmt.Errorf("static challenge, response: %w", err)
	}
	return password, response, nil
}

// strictBase64 decodes the one encoding of each value: the library's strict form still skips line ends. Its errors
// quote nothing of the input.
func strictBase64(text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") {
		return nil, errors.New("line end inside base64")
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	if err == nil && bytes.IndexByte(b[:n], 0) >= 0 {
		err = errors.New("zero byte")
	}
	if err != nil {
		clear(b)
		return nil, err
	}
	return b[:n], nil
}

// CRV1 returns c as the reason of an AUTH_FAILED.
func (c *Challenge) CRV1() string {
	flags := "R"
	if c.Echo {
		flags = "R,E"
	}
	return string(dynamicPrefix) + flags + ":" + c.State + ":" + base64.StdEncoding.EncodeToString([]byte(c.Username)) + ":" + c.Text
}

// ParseCRV1 undoes CRV1, as a client does. Flags that are not known are an error.
func ParseCRV1(text string) (*Challenge, error) {
	rest, ok := strings.CutPrefix(text, string(dynamicPrefix))
	if !ok {
		return nil, errors.New("not a dynamic challenge")
	}
	parts := strings.SplitN(rest, ":", 4)
	if len(parts) != 4 {
		return nil, errors.New("dynamic challenge: not four parts")
	}
	c := &Challenge{State: parts[1], Text: parts[3]}
	switch parts[0] {
	case "R":
	case "R,E", "E,R":
		c.Echo = true
	default:
		return nil, fmt.Errorf("dynamic challenge: flags %q", parts[0])
	}
	if c.State == "" {
		return nil, errors.New("dynamic challenge: no state")
	}
	name, err := strictBase64([]byte(parts[2]))
	if err != nil {
		return nil, fmt.Errorf("dynamic challenge, user name: %w", err)
	}
	c.Username = string(name)
	return c, nil
}

// FormatReply returns the password that answers a dynamic challenge.
func FormatReply(state string, response []byte) []byte {
	b := bytes.Clone(replyPrefix)
	b = append(b, state...)
	b = append(b, "::"...)
	return append(b, response...)
}

// ParseReply undoes FormatReply. The response is a copy, and not nil without an error.
func ParseReply(text []byte) (state string, response []byte, err error) {
	rest, ok := bytes.CutPrefix(text, replyPrefix)
	if !ok {
		return "", nil, errors.New("not a dynamic challenge's answer")
	}
	first, response, ok := bytes.Cut(rest, []byte("::"))
	switch {
	case !ok || bytes.IndexByte(first, ':') >= 0:
		return "", nil, errors.New("dynamic challenge's answer: not a state and a response")
	case len(first) == 0:
		return "", nil, errors.New("dynamic challenge's answer: no state")
	case len(first) > maxState:
		return "", nil, errors.New("dynamic challenge's answer: the state is too long to be one")
	case bytes.IndexByte(text, 0) >= 0:
		return "", nil, errors.New("dynamic challenge's answer: zero byte")
	}
	return string(first), append([]byte{}, response...), nil
}

// maxState is far above what any Authenticator makes.
const maxState = 128
