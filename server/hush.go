package server

import (
	"sync"
	"time"
)

// What people who are not logged in may write into the log, all together (S103): 200 lines in a second, and 1 MiB in a
// minute, which at logError bytes of error is 3,000 lines.
const (
	hushSecond = 200
	hushMinute = 3000
	logError   = 160
)

// A hush lets through as many lines as it may and counts the others. Any goroutine.
type hush struct {
	mu             sync.Mutex
	second, minute time.Time // when the spans that are counted began
	inSecond       int
	inMinute       int
	withheld       int
}

// allows reports whether one more line may be written now.
func (h *hush) allows(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.second) >= time.Second {
		h.second, h.inSecond = now, 0
	}
	if now.Sub(h.minute) >= time.Minute {
		h.minute, h.inMinute = now, 0
	}
	if h.inSecond >= hushSecond || h.inMinute >= hushMinute {
		h.withheld++
		return false
	}
	h.inSecond++
	h.inMinute++
	return true
}

// taken returns how many lines were withheld since it was asked last.
func (h *hush) taken() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.withheld
	h.withheld = 0
	return n
}

// clipped is an error's text, as long as such a line may have it.
func clipped(err error) string {
	s := err.Error()
	if len(s) > logError {
		s = s[:logError] + "..."
	}
	return s
}
