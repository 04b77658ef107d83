package server

import (
	"testing"
	"time"
)

// F05: while something holds a lane's sender, as a deadlock in the packet path would, the pulse stands still.
func TestPulseStandsStill(t *testing.T) {
	s := new(Server)
	s.lanes = []*lane{{sender: newSender(s, nil)}, {sender: newSender(s, nil)}}
	s.beat()
	if got := s.Pulse(); got != 1 {
		t.Errorf("pulse %d after a round, want 1", got)
	}
	s.lanes[1].sender.mu.Lock()
	done := make(chan struct{})
	go func() { s.beat(); close(done) }()
	select {
	case <-done:
		t.Error("the keeper's round passes a sender that is held")
	case <-time.After(100 * time.Millisecond):
	}
	if got := s.Pulse(); got != 1 {
		t.Errorf("pulse %d while a sender is held, want 1", got)
	}
	s.lanes[1].sender.mu.Unlock()
	<-done
	if got := s.Pulse(); got != 2 {
		t.Errorf("pulse %d afterwards, want 2", got)
	}
}
