package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// mute leaves out what only repeats itself, says how much that was, and never leaves out who came and went.
func TestMute(t *testing.T) {
	var out bytes.Buffer
	m := new(muter)
	m.log = zerolog.New(&out)
	log := m.log.Hook(m)
	lines := func() int { n := strings.Count(out.String(), "\n"); out.Reset(); return n }
	for range 10 {
		log.Debug().Msg("again")
	}
	if n := lines(); n != 10 {
		t.Errorf("%d lines of 10 without mute", n)
	}
	log.Info().Msg("something else")
	lines()
	m.most.Store(3)
	for range 10 {
		log.Debug().Msg("the same")
	}
	if n := lines(); n != 3 {
		t.Errorf("%d lines of 10 with mute 3", n)
	}
	log.Info().Msg("another")
	if got := out.String(); !strings.Contains(got, `"lines":7,`) || !strings.Contains(got, "another") {
		t.Errorf("after the silence: %s", got)
	}
	out.Reset()
	for range 10 {
		log.Info().Msg("client connected")
	}
	if n := lines(); n != 10 {
		t.Errorf("%d lines about 10 clients", n)
	}
}
