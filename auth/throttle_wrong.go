package auth

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// wrongTime is how long a wrong password is remembered. It may have been made the right one meanwhile.
	wrongTime = 3 * time.Minute
	// wrongEach is how many are remembered of one user.
	wrongEach = 4
)

// wrongPasswords remembers passwords that were wrong, as hashes under a salt of each user's that never leaves this
// process. Any goroutine.
type wrongPasswords struct {
	most int

	mu    sync.Mutex
	users map[string]*list.Element
	order list.List // of *wrongUser, the one touched last in front
}

type wrongUser struct {
	name string
	salt [32]byte
	seen []wrongPassword // oldest first
}

type wrongPassword struct {
	hash [sha256.Size]byte
	at   time.Time
}

func newWrongPasswords(most int) *wrongPasswords {
	return &wrongPasswords{most: most, users: make(map[string]*list.Element)}
}

func (u *wrongUser) hash(password []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, u.salt[:])
	h.Write(password)
	h.Sum(sum[:0])
	return sum
}

// holds reports whether this password was wrong a moment ago.
func (w *wrongPasswords) holds(name string, password []byte, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.users[name]
	if e == nil {
		return false
	}
	u := e.Value.(*wrongUser)
	sum, found := u.hash(password), false
	for i := range u.seen {
		if hmac.Equal(u.seen[i].hash[:], sum[:]) && now.Sub(u.seen[i].at) < wrongTime {
			found = true
		}
	}
	return found
}

func (w *wrongPasswords) add(name string, password []byte, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.users[name]
	if e == nil {
		u := &wrongUser{name: name}
		rand.Read(u.salt[:])
		e = w.order.PushFront(u)
		w.users[name] = e
	}
	w.order.MoveToFront(e)
	u := e.Value.(*wrongUser)
	u.seen = append(u.seen[max(0, len(u.seen)-wrongEach+1):], wrongPassword{u.hash(password), now})
	if w.order.Len() > w.most {
		delete(w.users, w.order.Remove(w.order.Back()).(*wrongUser).name)
	}
}

func (w *wrongPasswords) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.users[name]; e != nil {
		w.order.Remove(e)
		delete(w.users, name)
	}
}
