package auth

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// F13: a session goes on by its token though the clock on the wall is set by an hour, in either direction; and its life
// does not become longer.
func TestTokenOutlivesClockChange(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 240 * time.Hour, -240 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			tokens, err := NewTokens(TokenOptions{Secret: NewTokenSecret(), Renewal: time.Hour}, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			var s TokenSession
			login := func(password string) error {
				_, err := tokens.Login(t.Context(), &s, yesTo("secret"), &Request{Username: "alice", Password: []byte(password)})
				return err
			}
			if err := login("secret"); err != nil {
				t.Fatal(err)
			}
			// Nobody can set the clock of a test: instead all that the session has seen of it is as if it had been another.
			s.wall, s.initial = s.wall.Add(-jump), s.initial-uint64(int64(jump/time.Second))
			renewed := token{s.id, s.initial, unixTime(s.wall)}
			s.text = renewed.sign(tokens.key("alice", nil), s.user)
			for hour := range 12 {
				time.Sleep(time.Hour)
				if hour%2 == 0 {
					if err := login(s.Token()); err != nil {
						t.Fatalf("%v, after %d h: %v", jump, hour+1, err)
					}
				} else if _, ok := tokens.Renew(&s); !ok {
					t.Fatalf("%v, after %d h: not renewed", jump, hour+1)
				}
			}
			time.Sleep(time.Second)
			if err := login(s.Token()); err == nil {
				t.Errorf("%v: good for more than 12 h", jump)
			}
			if _, ok := tokens.Renew(&s); ok {
				t.Errorf("%v: renewed after 12 h", jump)
			}
		})
	}
}

// yesTo is a back end with one password.
type yesTo string

func (p yesTo) Authenticate(_ context.Context, r *Request) (*Identity, error) {
	if string(r.Password) != string(p) {
		return nil, &Denied{Reason: "wrong password", Public: PublicRefusal}
	}
	return &Identity{Name: r.Username, By: "test"}, nil
}
