package management

// The streams that a tool can have in real time, each with a history.
const (
	stateStream = iota
	logStream
	echoStream
	streams
)

var streamNames = [streams]string{"state", "log", "echo"}

// history keeps the newest lines of a stream.
type history struct {
	limit int
	lines []string // a ring once it is full
	next  int      // where the ring's oldest line is
}

func (h *history) add(line string) {
	if len(h.lines) < h.limit {
		h.lines = append(h.lines, line)
		return
	}
	h.lines[h.next] = line
	h.next = (h.next + 1) % h.limit
}

// newest calls show for the newest n lines, oldest first.
func (h *history) newest(n int, show func(line string)) {
	for i := len(h.lines) - min(n, len(h.lines)); i < len(h.lines); i++ {
		show(h.lines[(h.next+i)%len(h.lines)])
	}
}
