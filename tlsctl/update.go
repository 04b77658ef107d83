package tlsctl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNoUpdate: the client takes no PUSH_UPDATE, or is not established yet.
var ErrNoUpdate = errors.New("client cannot be updated")

// updatable are the options that clients change while they are connected. Any other ends their connection.
var updatable = []string{
	"block-ipv4", "block-ipv6", "block-outside-dns", "dhcp-option", "dns", "ifconfig", "ifconfig-ipv6", "redirect-gateway",
	"redirect-private", "route", "route-gateway", "route-ipv6", "route-metric", "topology", "tun-mtu",
}

// Updatable reports whether clients change an option of this name while they are connected.
func Updatable(name string) bool { return slices.Contains(updatable, name) }

// Update changes options that a client was pushed, by PUSH_UPDATE. An option takes the place of all of its name that
// the client has; "-name" removes them. "?name" and "-?name" are ignored by a client that cannot do it, where without
// the question mark its connection ends: "block-ipv4" is known to OpenVPN 3 alone.
//
// The error is ErrNoUpdate if the client takes no updates, or says what is wrong with the options. The client
// acknowledges nothing. Any goroutine may call it.
func (s *Session) Update(options []string) error {
	messages, err := pushUpdates(options)
	switch {
	case err != nil:
		return err
	case !s.updates.Load():
		return ErrNoUpdate
	}
	s.order(func(time.Time) { s.owe(messages...) })
	return nil
}

// pushUpdates cuts a list of options into PUSH_UPDATE messages.
func pushUpdates(options []string) ([]Message, error) {
	if len(options) == 0 {
		return nil, errors.New("update without options")
	}
	for _, o := range options {
		name, rest, _ := strings.Cut(o, " ")
		name, remove := strings.CutPrefix(name, "-")
		name, optional := strings.CutPrefix(name, "?")
		switch {
		case !optional && !Updatable(name), name == "" || strings.ContainsAny(name[:1], "-?"):
			return nil, fmt.Errorf("option %q cannot be updated", o)
		case remove && rest != "":
			return nil, fmt.Errorf("option %q: only all of a name can be removed", o)
		}
	}
	return bundle("PUSH_UPDATE", options)
}

// RenewToken has the client use another token from now on. It is to be called for an established client that was
// given one before, at any time and from any goroutine.
func (s *Session) RenewToken(token string) error {
	if !goodToken(token) {
		return errToken
	}
	s.order(func(time.Time) {
		if s.current != nil && s.leaving == nil {
			s.setToken(token)
		}
	})
	return nil
}

// tokenPush comes before a token that is pushed by itself.
const tokenPush = pushReply + ",auth-token "

// setToken takes a new token for an authorised client, if it is one, and tells it unless PUSH_REPLY is still to do that.
func (s *Session) setToken(token string) {
	switch {
	case token == "":
		return
	case !goodToken(token):
		s.log.Error().Err(errToken).Msg("the client keeps its old token")
		return
	}
	s.token = token
	if !s.pushed.IsZero() {
		s.forgetToken()
		s.owe(Message(tokenPush + token))
	}
}

// forgetToken drops a token that is owed, as a newer one comes.
func (s *Session) forgetToken() {
	s.owed = slices.DeleteFunc(s.owed, func(m Message) bool { return strings.HasPrefix(string(m), tokenPush) })
}

// owe says messages that must not get lost. A client of OpenVPN 2 loses what comes under the old key once a
// renegotiation has begun, so they wait for its end, and are said again if one began before they were acknowledged.
// None may do harm when it comes twice.
func (s *Session) owe(messages ...Message) {
	if s.current == nil || s.leaving != nil {
		return
	}
	s.owed = append(s.owed, messages...)
	if s.next == nil {
		s.sayAll(messages)
	}
}

// payDebts says again what a renegotiation, which is over, may have cost.
func (s *Session) payDebts() { s.sayAll(s.owed) }

// forgetDebts drops what has been acknowledged.
func (s *Session) forgetDebts() {
	if s.next == nil && s.owed != nil && s.current.conn.idle() {
		s.owed = nil
	}
}

func (s *Session) sayAll(messages []Message) {
	for _, m := range messages {
		s.say(s.current, m)
	}
}
