package tlsctl

import (
	"math"
	"testing"
)

func TestReplayVectors(t *testing.T) {
	var v struct {
		Steps []struct {
			ID, Time uint32
			Accept   bool
			Note     string
		}
	}
	readVectors(t, "replay.json", &v)
	if len(v.Steps) == 0 {
		t.Fatal("no vectors")
	}
	var w replayWindow
	for i, s := range v.Steps {
		if got := w.accept(replayID{s.ID, s.Time}); got != s.Accept {
			t.Errorf("step %d, id %d at %d: accept = %v, want %v %s", i, s.ID, s.Time, got, s.Accept, s.Note)
		}
	}
}

// Each of the last 64 ids is taken once, in whatever order, and nothing older is (S034).
func TestReplayWindowTakesEachOnce(t *testing.T) {
	const top = 1000
	for behind := range uint32(70) {
		var w replayWindow
		w.accept(replayID{top, 5})
		r := replayID{top - behind, 5}
		if got, want := w.accept(r), behind > 0 && behind < 64; got != want {
			t.Errorf("%d behind: %v, want %v", behind, got, want)
		}
		if w.accept(r) {
			t.Errorf("%d behind: taken twice", behind)
		}
	}
	// A jump by any distance forgets what fell out and nothing else.
	for ahead := uint32(1); ahead < 70; ahead++ {
		var w replayWindow
		w.accept(replayID{top, 5})
		if !w.accept(replayID{top + ahead, 5}) {
			t.Errorf("%d ahead: not taken", ahead)
		}
		if w.accept(replayID{top, 5}) {
			t.Errorf("%d ahead: the first is taken again", ahead)
		}
	}
	var w replayWindow
	if !w.accept(replayID{math.MaxUint32, math.MaxUint32}) || w.accept(replayID{1, 0}) || w.accept(replayID{0, math.MaxUint32}) {
		t.Error("the ends of the range")
	}
}

func TestSendCounterEnds(t *testing.T) {
	c := sendCounter{last: math.MaxUint32 - 1, stamp: 7}
	var w replayWindow
	for _, want := range []replayID{{math.MaxUint32, 7}, {1, 8}, {2, 8}} {
		got := parseReplayID(c.appendNext(nil))
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if !w.accept(got) {
			t.Errorf("%v: a receiver does not take it", got)
		}
	}
}
