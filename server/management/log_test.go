package management_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"postern/server/management"
)

// What the server logs, tools can read; what the Interface logs itself comes once.
func TestLogWriter(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, c *tool) {
		c.ask("log on")
		log := zerolog.New(i.LogWriter()).With().Timestamp().Str("client", "cli ent1").Logger()
		log.Info().Int("keys", 3).Strs("routes", []string{"10.0.0.0/8"}).Msg("client connected")
		log.Debug().Err(errors.New("no \r\n>LOG:answer")).Msg("")
		log.Warn().Str("user", strings.Repeat("\u202e", 200)).Bool("ok", false).Msg("hm")
		log.Error().Msg("oh")
		log.Log().Msg("plain")
		long := strings.Repeat(`\u202e`, 42) + `\...`
		c.wants("log lines", c.heard(), lines(
			`>LOG:946684800,I,client connected client="cli ent1" keys=3 routes="[\"10.0.0.0/8\"]"`,
			`>LOG:946684800,D, client="cli ent1" error="no \\x0d\\x0a>LOG:answer"`,
			`>LOG:946684800,W,hm client="cli ent1" user=`+long+` ok=false`,
			`>LOG:946684800,N,oh client="cli ent1"`,
			`>LOG:946684800,,plain client="cli ent1"`))
		if n, err := i.LogWriter().Write([]byte("no JSON\n")); n != 8 || err != nil {
			t.Errorf("a line that is no JSON: %d, %v", n, err)
		}
		c.wants("no JSON", c.heard(), lines(">LOG:946684800,,no JSON"))
	})
}

// An Interface whose logger writes to itself, as wired: each of its lines comes once, and secrets never (S047, S104).
func TestOwnLogLines(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, _ *fakeOwner, _ *tool) {
		var log bytes.Buffer
		late := new(lateWriter)
		i := management.New(management.Options{}, newFakeOwner(), zerolog.New(zerolog.MultiLevelWriter(&log, late)))
		late.LevelWriter = i.LogWriter()
		c := connect(t.Context(), t, i, management.Access{Password: []byte("s3cret-0")})
		c.heard()
		c.ask("s3cret-0")
		c.ask("password Auth s3cret-1")
		c.ask(`username "Auth" s3cret-2`)
		c.ask(`"password Auth s3cret-3`)
		c.ask("needstr x s3cret-4")
		c.ask("proxy HTTP h 1 s3cret-5")
		c.ask("cr-response s3cret-6")
		c.ask("passwords s3cret-7")
		c.ask("client-auth 0 1\nsetenv x s3cret-8\nEND")
		c.ask("kill client1")
		c.wants("the history", c.ask("log all"), lines(
			"946684800,,MANAGEMENT: Client connected from invalid AddrPort",
			"946684800,D,MANAGEMENT: CMD 'password [...]'",
			"946684800,D,MANAGEMENT: CMD 'username [...]'",
			"946684800,D,MANAGEMENT: CMD '\"password [...]'",
			"946684800,D,MANAGEMENT: CMD 'needstr [...]'",
			"946684800,D,MANAGEMENT: CMD 'proxy [...]'",
			"946684800,D,MANAGEMENT: CMD 'cr-response [...]'",
			"946684800,D,MANAGEMENT: CMD 'passwords [...]'",
			"946684800,D,MANAGEMENT: CMD 'client-auth 0 1'",
			"946684800,D,MANAGEMENT: CMD 'kill client1'",
			"946684800,D,MANAGEMENT: CMD 'log all'",
			"END"))
		c.leave()
		if strings.Contains(log.String(), "s3cret") {
			t.Errorf("a secret was logged:\n%s", log.String())
		}
		for _, want := range []string{`"command":"client-auth 0 1","done":true`, `"command":"kill client1","done":true`} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("the audit has no %s:\n%s", want, log.String())
			}
		}
	})
}

// lateWriter is a writer that is known only after the logger.
type lateWriter struct{ zerolog.LevelWriter }

// S103: who is not let in cannot fill the log.
func TestStrangersLogLittle(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, _ *management.Interface, _ *fakeOwner, _ *tool) {
		var log bytes.Buffer
		i := management.New(management.Options{}, newFakeOwner(), zerolog.New(zerolog.SyncWriter(&log)))
		for range 500 {
			c := connect(t.Context(), t, i, management.Access{Password: []byte("x")})
			c.heard()
			c.send("GET / HTTP/1.1\n")
			<-c.done
			c.nc.Close()
		}
		if n := strings.Count(log.String(), "\n"); n == 0 || n > 20 {
			t.Errorf("500 connections of strangers left %d lines", n)
		}
	})
}
