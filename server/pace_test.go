package server

import (
	"testing"
	"time"

	"postern/server/config"
)

// connect-freq: so many in a period, then none until it is over.
func TestConnectFreq(t *testing.T) {
	var p pace
	most := config.Frequency{N: 3, Period: 10 * time.Second}
	now := time.Now()
	for i := range 3 {
		if !p.allows(most, now) {
			t.Errorf("number %d is refused", i+1)
		}
	}
	if p.allows(most, now.Add(9*time.Second)) {
		t.Error("a fourth is let in within the period")
	}
	if !p.allows(most, now.Add(10*time.Second)) {
		t.Error("the next period lets nobody in")
	}
	for range 100 {
		if !p.allows(config.Frequency{}, now) {
			t.Fatal("without connect-freq somebody is refused")
		}
	}
}
