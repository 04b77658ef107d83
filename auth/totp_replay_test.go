package auth_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/auth"
)

// A code is good once, whichever way it comes, and for its owner.
func TestTOTPReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		ways := func(code, reason string) {
			t.Helper()
			w.out("alice", static("secret", code), reason)
			w.out("alice", "secret"+code, reason)
			w.out("alice", reply(w.challenge("alice", "secret"), code), reason)
		}
		code := w.code("alice")
		w.out("bob", static("secret", code), "wrong one-time code")
		w.out("alice", static("wrong", code), "wrong password")
		w.in("alice", static("secret", code)) // a wrong password has spent nothing
		for range 5 {
			ways(code, "used before")
		}
		w.next()
		ways(code, "used before") // still in the window
		w.in("alice", static("secret", w.code("alice")))
		w.out("alice", static("secret", code), "used before") // and none older than the last
		w.in("bob", static("secret", w.code("bob")))
	})
}

// The next run knows what this one has taken; without its file it takes nothing that may be spent.
func TestTOTPReplayAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used, err := os.OpenFile(filepath.Join(t.TempDir(), "used"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer used.Close()
		w := newTOTPWorld(t, auth.TOTPOptions{Used: used})
		code := w.code("alice")
		w.in("alice", static("secret", code))
		w.start(auth.TOTPOptions{Used: used})
		w.out("alice", static("secret", code), "used before")
		w.in("bob", static("secret", w.code("bob")))

		w.next()
		w.start(auth.TOTPOptions{})
		for _, user := range []string{"alice", "bob"} {
			for _, ahead := range []time.Duration{-30, 0, 30} {
				w.out(user, static("secret", w.secrets[user].Code(time.Now().Add(ahead*time.Second))), "used before")
			}
		}
		time.Sleep(time.Minute)
		w.in("alice", static("secret", w.code("alice")))
	})
}

// Of many logins at once with one code, one comes in.
func TestTOTPReplayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTOTPWorld(t, auth.TOTPOptions{})
		logins := auth.Answers(w.totp.Require(backend(yes)))
		code := w.code("alice")
		var wg sync.WaitGroup
		var mu sync.Mutex
		in := 0
		for range 20 {
			wg.Go(func() {
				_, err := logins.Authenticate(t.Context(), w.request("alice", static("secret", code)))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					in++
				} else {
					wantDenied(t, err, "used before", auth.PublicRefusal)
				}
			})
		}
		wg.Wait()
		if in != 1 {
			t.Errorf("%d came in", in)
		}
	})
}
