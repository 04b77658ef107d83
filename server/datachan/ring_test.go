package datachan_test

import (
	"errors"
	"testing"

	"postern/server/datachan"
)

// ringKey makes a key whose material is its own.
func ringKey(t *testing.T, id datachan.KeyID, seed byte) *datachan.Key {
	return newKey(t, id, "AES-128-GCM", 1, true, slots(seed), slots(seed+100), 0)
}

// A first key, a renegotiation, and the old key's end.
func TestRing(t *testing.T) {
	var r datachan.Ring
	check := func(when string, sending *datachan.Key, receiving ...*datachan.Key) {
		t.Helper()
		if got := r.Sending(); got != sending {
			t.Errorf("%s: sends with %p, want %p", when, got, sending)
		}
		want := map[datachan.KeyID]*datachan.Key{}
		for _, k := range receiving {
			want[k.ID()] = k
		}
		for id := range datachan.KeyID(8) {
			if got := r.Receiving(id); got != want[id] {
				t.Errorf("%s: id %d receives with %p, want %p", when, id, got, want[id])
			}
		}
	}
	install := func(k *datachan.Key) {
		t.Helper()
		if err := r.Install(k); err != nil {
			t.Fatalf("install key %d: %v", k.ID(), err)
		}
	}
	first, second := ringKey(t, 0, 1), ringKey(t, 1, 2)
	check("empty", nil)
	if r.Use(0) {
		t.Error("uses a key that is not there")
	}
	install(first)
	check("installed", nil, first)
	if !r.Use(0) {
		t.Error("does not use the first key")
	}
	check("in use", first, first)
	install(second)
	check("renegotiated", first, first, second)
	if !r.Use(1) {
		t.Error("does not use the second key")
	}
	check("second in use", second, first, second)
	r.Retire(0)
	check("first retired", second, second)
	r.Retire(0)
	r.Retire(1)
	check("both retired", nil)
	third := ringKey(t, 2, 3)
	install(third)
	r.Use(2)
	r.Clear()
	check("cleared", nil)
}

// S074: an id is not taken from a live key, and key material never comes twice.
func TestRingRefuses(t *testing.T) {
	var r datachan.Ring
	first := ringKey(t, 1, 1)
	if err := r.Install(first); err != nil {
		t.Fatal(err)
	}
	if err := r.Install(ringKey(t, 1, 2)); !errors.Is(err, datachan.ErrInUse) {
		t.Errorf("a second key 1: %v, want %v", err, datachan.ErrInUse)
	}
	if r.Receiving(1) != first {
		t.Error("the first key was replaced")
	}
	r.Retire(1)
	if err := r.Install(first); !errors.Is(err, datachan.ErrReinstalled) {
		t.Errorf("the same key again: %v, want %v", err, datachan.ErrReinstalled)
	}
	if err := r.Install(ringKey(t, 4, 1)); !errors.Is(err, datachan.ErrReinstalled) {
		t.Errorf("the same material under another id: %v, want %v", err, datachan.ErrReinstalled)
	}
	if err := r.Install(ringKey(t, 1, 2)); err != nil {
		t.Errorf("a new key 1 after the old was retired: %v", err)
	}
}
