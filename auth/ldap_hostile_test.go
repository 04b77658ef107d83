package auth_test

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// S057, S058, F17 to F19: silence, dribble and rubbish at every step end in time, in an error and with nothing left.
func TestHostileDirectory(t *testing.T) {
	before := runtime.NumGoroutine()
	big := strings.Repeat("x", 70_000)
	deep := octets("x")
	for range 40 {
		p := ber.NewSequence("")
		p.AppendChild(deep)
		deep = p
	}
	deepEntry := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	deepEntry.AppendChild(octets(aliceDN))
	deepEntry.AppendChild(deep)
	entry := stubEntry{dn: aliceDN}.packet()

	answers := map[string]func(c net.Conn, id int64){
		"silence":        func(c net.Conn, id int64) {},
		"close":          func(c net.Conn, id int64) { c.Close() },
		"reset":          func(c net.Conn, id int64) { reset(c) },
		"half":           func(c net.Conn, id int64) { c.Write(encode(id, bindResult(0, ""))[:7]) },
		"half and close": func(c net.Conn, id int64) { c.Write(encode(id, bindResult(0, ""))[:7]); c.Close() },
		"dribble": func(c net.Conn, id int64) {
			for _, b := range encode(id, envelope(result(opOf[id], 0, big))) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
		"garbage":          func(c net.Conn, id int64) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
		"zeros":            func(c net.Conn, id int64) { c.Write(make([]byte, 4096)) },
		"indefinite":       func(c net.Conn, id int64) { c.Write([]byte{0x30, 0x80, 2, 1, byte(id)}) },
		"claims 4 GiB":     func(c net.Conn, id int64) { c.Write([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}) },
		"claims 2 MiB":     func(c net.Conn, id int64) { c.Write([]byte{0x30, 0x83, 0x20, 0, 0}) },
		"empty":            func(c net.Conn, id int64) { c.Write([]byte{0x30, 0}) },
		"no operation":     func(c net.Conn, id int64) { c.Write([]byte{0x30, 3, 2, 1, byte(id)}) },
		"empty operation":  func(c net.Conn, id int64) { c.Write([]byte{0x30, 5, 2, 1, byte(id), 0x61, 0}) },
		"notice of ending": func(c net.Conn, id int64) { send(c, 0, extended(52, "")) },
		"nested":           func(c net.Conn, id int64) { send(c, id, envelope(deepEntry)) },
		"large value": func(c net.Conn, id int64) {
			send(c, id, envelope(stubEntry{dn: aliceDN, attributes: map[string][]string{"memberOf": {big}}}.packet()))
		},
		"large result": func(c net.Conn, id int64) {
			reference := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
			reference.AppendChild(octets(big[:60_000]))
			for range 40 {
				send(c, id, envelope(reference))
			}
		},
		"never done": func(c net.Conn, id int64) { send(c, id, envelope(entry)) },
		"id of another": func(c net.Conn, id int64) {
			send(c, id+7, envelope(result(ldap.ApplicationSearchResultDone, 0, "")))
		},
		"bad result code": func(c net.Conn, id int64) { send(c, id, envelope(result(ldap.ApplicationSearchResultDone, 1<<16, ""))) },
	}
	// What the search step says of those; at others they may fail for being no answer to what was asked.
	wants := map[string]string{
		"close": "EOF", "half and close": "EOF", "garbage": "malformed", "zeros": "malformed", "indefinite": "malformed",
		"claims 4 GiB": "larger than", "claims 2 MiB": "larger than", "empty": "malformed", "no operation": "malformed",
		"notice of ending": "ends the connection", "nested": "nested deeper", "large value": "value of 70000 bytes",
		"large result": "larger than", "silence": "timeout", "half": "timeout", "never done": "timeout", "dribble": "timeout",
		"id of another": "timeout", "bad result code": "out of range",
	}
	steps := map[string]ber.Tag{"bind": ldap.ApplicationBindRequest, "search": ldap.ApplicationSearchRequest, "whoami": ldap.ApplicationExtendedRequest}
	t.Run("steps", func(t *testing.T) {
		for stepName, step := range steps {
			for answerName, answer := range answers {
				t.Run(stepName+"/"+answerName, func(t *testing.T) {
					t.Parallel()
					s := startStub(t, &stub{intercept: func(c net.Conn, op ber.Tag, id int64) bool {
						if op != step {
							return false
						}
						answer(c, id)
						return true
					}})
					o := stubOptions(s)
					if wants[answerName] == "timeout" {
						o.Timeout = 300 * time.Millisecond // else the error, not the clock, ends it
					}
					began := time.Now()
					_, err := login(newLDAP(t, o), "alice", "secret")
					want := ""
					if stepName == "search" {
						want = wants[answerName]
					}
					wantBroken(t, err, want)
					if took := time.Since(began); took > 9*time.Second {
						t.Errorf("took %v", took)
					}
				})
			}
		}
		t.Run("TLS/silence", func(t *testing.T) {
			t.Parallel()
			s := startStub(t, &stub{}) // waits for a request in clear text, and gets a ClientHello
			o := stubOptions(s)
			o.URLs = []string{strings.Replace(s.URL, "ldap:", "ldaps:", 1)}
			o.Timeout = 300 * time.Millisecond
			_, err := login(newLDAP(t, o), "alice", "secret")
			wantBroken(t, err, "TLS")
		})
	})
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// opOf is what the first requests of a connection want as an answer; good enough for a dribble that never ends.
var opOf = map[int64]ber.Tag{1: ldap.ApplicationBindResponse, 2: ldap.ApplicationSearchResultDone}

func reset(c net.Conn) {
	if counted, ok := c.(*counted); ok {
		counted.Conn.(*net.TCPConn).SetLinger(0)
	}
	c.Close()
}
