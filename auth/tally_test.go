package auth

import (
	"slices"
	"testing"
)

// The table has a bound: the entry untouched for longest goes, one with logins under way stays, a blank one is not
// kept at all.
func TestTalliesBounded(t *testing.T) {
	s := newTallies[int](3)
	touch := func(k int) {
		s.take(k).failures = []moment{1}
		s.settle(k)
	}
	kept := func() []int {
		var list []int
		for k := range 10 {
			if s.peek(k) != nil {
				list = append(list, k)
			}
		}
		if len(list) != len(s.held) {
			t.Fatalf("%d held, %d found", len(s.held), len(list))
		}
		return list
	}
	for k := range 4 {
		touch(k)
	}
	if got, want := kept(), []int{1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	touch(1)
	s.take(2).pending++ // under way
	s.settle(2)
	for k := 4; k < 7; k++ {
		touch(k)
	}
	if got, want := kept(), []int{2, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	s.take(2).pending--
	s.settle(2) // has failures still, so it is the newest
	if got, want := kept(), []int{2, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	s.take(5).failures = nil
	s.settle(5)
	s.take(7)
	s.settle(7)
	if got, want := kept(), []int{2, 6}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	for k := range 100_000 {
		touch(k + 10)
	}
	if len(s.held) != 3 || s.idle.Len() != 3 {
		t.Errorf("%d held, %d idle", len(s.held), s.idle.Len())
	}
}
