package main

import (
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// A muter leaves out log lines that say the same as so many before them, and says how many it left out. Only lines for
// looking into something (verb 4 and more) are: who came and went is always written. It is a hook of a logger, for any
// goroutine.
type muter struct {
	most atomic.Int64   // equal lines in a row; 0: all
	log  zerolog.Logger // without the hook; set before the first line

	mu   sync.Mutex
	said string // guarded by mu: the last message
	rows int64  // guarded by mu: how often in a row
}

// Run implements zerolog.Hook.
func (m *muter) Run(e *zerolog.Event, level zerolog.Level, msg string) {
	most := m.most.Load()
	m.mu.Lock()
	left := int64(0)
	if msg == m.said {
		m.rows++
	} else {
		if most > 0 {
			left = m.rows - most
		}
		m.said, m.rows = msg, 1
	}
	muted := most > 0 && m.rows > most && level <= zerolog.DebugLevel
	m.mu.Unlock()
	if left > 0 {
		m.log.Debug().Int64("lines", left).Msg("lines that said the same were left out (mute)")
	}
	if muted {
		e.Discard()
	}
}
