package auth

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// S046: a wrong password is known again for three minutes, of its own user only, as a hash that is another for each user
// and each process; and however many are tried, only so many are remembered.
func TestWrongPasswords(t *testing.T) {
	w, at := newWrongPasswords(100), time.Now()
	password := []byte("last month's")
	w.add("alice", password, at)
	for _, c := range []struct {
		name, password string
		after          time.Duration
		known          bool
	}{
		{"alice", "last month's", 0, true},
		{"alice", "last month's", wrongTime - time.Second, true},
		{"alice", "last month's", wrongTime, false}, // it may be the right one by now
		{"alice", "last month", 0, false},
		{"bob", "last month's", 0, false},
	} {
		if got := w.holds(c.name, []byte(c.password), at.Add(c.after)); got != c.known {
			t.Errorf("%s, %q, after %v: known %v", c.name, c.password, c.after, got)
		}
	}
	w.add("bob", password, at)
	other := newWrongPasswords(100)
	other.add("alice", password, at)
	hash := func(w *wrongPasswords, name string) []byte {
		h := w.users[name].Value.(*wrongUser).seen[0].hash
		return h[:]
	}
	if bytes.Equal(hash(w, "alice"), hash(w, "bob")) || bytes.Equal(hash(w, "alice"), hash(other, "alice")) {
		t.Error("one password has one hash for several users, or in several processes")
	}
	for i := range 10 {
		w.add("carol", fmt.Append(nil, i), at)
	}
	if n := len(w.users["carol"].Value.(*wrongUser).seen); n != wrongEach || !w.holds("carol", []byte("9"), at) || w.holds("carol", []byte("0"), at) {
		t.Errorf("%d of one user are remembered, want the last %d", n, wrongEach)
	}
	for i := range 1000 {
		w.add(fmt.Sprint("user", i), password, at)
	}
	if n := len(w.users); n != 100 || w.order.Len() != n || w.holds("alice", password, at) || !w.holds("user999", password, at) {
		t.Errorf("%d users are remembered, want the last 100", n)
	}
	w.forget("user999")
	if w.holds("user999", password, at) || w.order.Len() != 99 {
		t.Error("who logged in is still known by a wrong password")
	}
}
