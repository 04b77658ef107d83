package management

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	passwordTries = 3
	passwordPause = time.Second // after a wrong one
	passwordTime  = time.Minute // to get in at all: the places are few
	maxBlock      = 64 << 10    // bytes of a command's lines up to END (S097)
)

// conn is one tool's connection. Its fields belong to the reader, unless something else is said.
type conn struct {
	*Interface
	nc       net.Conn
	access   Access
	out      *outbox
	who      string // at the other end
	log      zerolog.Logger
	stranger zerolog.Logger     // for what anybody can cause who may connect: some lines a second, over all connections
	interval chan time.Duration // to the counting goroutine: the byte count interval; 0: off

	live      [streams]bool // guarded by Interface.mu: real-time notification is on
	envFilter int           // guarded by Interface.mu

	block *block // the command that takes lines now; nil: none
	over  bool   // exit was asked for
}

// block is a command that is followed by lines up to END.
type block struct {
	line  string // the command's own
	lines []string
	size  int
	bad   bool // something was too long
	run   func(c *conn, r *reply, lines []string)
}

var errWeb = errors.New("the connection does not begin like a tool's: HTTP or TLS?")

// ServeConn serves one tool until either side ends the connection or ctx is done, and says why it ended: nil when the
// tool left or ctx is done. It closes nc.
func (i *Interface) ServeConn(ctx context.Context, nc net.Conn, a Access) error {
	c := &conn{Interface: i, nc: nc, access: a, out: newOutbox(nc), interval: make(chan time.Duration, 1)}
	who, err := peerOf(nc)
	c.log = i.log.With().Uint64("connection", i.number.Add(1)).Stringer("peer", &who).Logger()
	c.who = who.String()
	c.stranger = c.log.Sample(i.strangers)
	if err == nil {
		err = a.admits(&who)
	}
	if err != nil {
		nc.Close()
		c.stranger.Warn().Err(err).Msg("management connection refused")
		return err
	}
	within, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(within, func() {
		c.out.close()
		_ = nc.SetReadDeadline(time.Now()) // ends the reader; fails on a connection that is closed
	})
	var goroutines sync.WaitGroup
	goroutines.Go(func() {
		defer cancel()
		if err := c.out.run(c.reportDropped); err != nil && ctx.Err() == nil {
			c.log.Info().Err(err).Msg("management client cannot be written to")
		}
	})
	goroutines.Go(func() { c.count(within) })
	err = c.serve(within, &who)
	stopped := !stop()
	cancel()
	c.out.close()
	goroutines.Wait()
	nc.Close()
	entered := c.leave()
	if errors.Is(err, io.EOF) || stopped && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	switch {
	case entered:
		c.log.Info().Err(err).Msg("management client disconnected")
	case err != nil:
		c.stranger.Warn().Err(err).Msg("management connection ended before it began")
	}
	return err
}

func (c *conn) reportDropped(n int) {
	c.log.Warn().Int("dropped", n).Msg("management client reads too slowly: notifications were dropped")
}

// serve lets the tool in and runs its commands.
func (c *conn) serve(ctx context.Context, who *peer) error {
	in := newLines(c.nc)
	first := true // of all lines: browsers betray themselves there
	next := func() (line []byte, ok bool, err error) {
		if first {
			if b, err := in.from.Peek(1); err != nil {
				return nil, false, err
			} else if b[0] == tlsHandshake {
				return nil, false, errWeb
			}
		}
		line, ok, err = in.next()
		if err == nil && first && (!ok || looksLikeWeb(line)) {
			return nil, false, errWeb
		}
		first = false
		return line, ok, err
	}
	if c.access.Password != nil {
		if err := c.login(ctx, next); err != nil {
			return err
		}
	}
	c.enter(who)
	for !c.over && c.out.waitRoom() {
		line, ok, err := next()
		if err != nil {
			return err
		}
		c.take(string(line), ok)
	}
	return nil
}

// login asks for the password. Nothing that comes before it has any effect (S096).
func (c *conn) login(ctx context.Context, next func() ([]byte, bool, error)) error {
	// Whoever set another deadline, to end this, did so after ctx was done.
	if err := c.nc.SetReadDeadline(time.Now().Add(passwordTime)); err != nil || ctx.Err() != nil {
		return err
	}
	for try := 1; ; try++ {
		c.out.event("ENTER PASSWORD:")
		line, ok, err := next()
		if err != nil {
			return err
		}
		right := ok && c.access.accepts(line)
		clear(line)
		if right {
			break
		}
		c.stranger.Warn().Int("try", try).Msg("management client gave a wrong password")
		select {
		case <-time.After(passwordPause):
		case <-ctx.Done():
			return nil
		}
		if try == passwordTries {
			return errors.New("wrong password")
		}
	}
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil || ctx.Err() != nil {
		return err
	}
	c.out.event("SUCCESS: password is correct\r\n")
	return nil
}

// tlsHandshake is the first byte of a TLS connection.
const tlsHandshake = 0x16

// webStart is how requests of browsers begin, whatever they carry. No command is in capital letters.
var webStart = regexp.MustCompile(`^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE|PRI) |(?i: HTTP/[0-9.]+$)`)

// looksLikeWeb tells a web page's attempt from a tool's first line.
func looksLikeWeb(line []byte) bool { return webStart.Match(line) }

// enter greets the tool, and from now on it gets events.
func (c *conn) enter(who *peer) {
	c.log.Info().Bool("readonly", c.access.ReadOnly).Msg("management client connected")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.event(fmt.Sprintf(">INFO:OpenVPN Management Interface Version %d -- type 'help' for more info\r\n", protocolVersion))
	if c.waiting != nil {
		c.out.event(holdLine)
	}
	c.conns[c] = struct{}{}
	c.addLocked(logStream, stamped(time.Now(), ",MANAGEMENT: Client connected from "+who.String()))
}

// leave is enter undone. It returns whether there was anything to undo.
func (c *conn) leave() (entered bool) {
	c.mu.Lock()
	_, entered = c.conns[c]
	delete(c.conns, c)
	last := entered && len(c.conns) == 0
	if entered {
		c.addLocked(logStream, stamped(time.Now(), ",MANAGEMENT: Client disconnected"))
	}
	c.mu.Unlock()
	if last && c.options.SignalOnLeave {
		if err := c.owner.Signal("SIGUSR1"); err != nil {
			c.log.Warn().Err(err).Msg("management-signal")
		}
	}
	return entered
}

// take handles one line: of a block, or a command. ok is false when it was too long to keep.
func (c *conn) take(line string, ok bool) {
	if c.block == nil {
		c.command(line, ok)
		return
	}
	b := c.block
	if line != "END" || !ok {
		if b.size += len(line) + 1; !ok || b.size > maxBlock {
			b.lines, b.bad = nil, true
		}
		if !b.bad {
			b.lines = append(b.lines, line)
		}
		return
	}
	c.block = nil
	c.answer(b.line, true, func(r *reply) {
		if b.bad {
			r.fail("the lines of the '%s' command are too long", firstOf(b.line))
			return
		}
		b.run(c, r, b.lines)
	})
}

// answer runs a command and queues its reply in one piece.
func (c *conn) answer(line string, audited bool, run func(*reply)) {
	c.out.begin()
	r := new(reply)
	run(r)
	if audited && c.block == nil { // a block is one when it is complete
		c.log.Info().Str("command", shown(line)).Bool("done", r.succeeded()).Msg("management command")
		c.tellAudit(line, r.succeeded())
	}
	c.out.end(r.text)
}

func (c *conn) tellAudit(line string, done bool) {
	if c.options.Audit != nil {
		c.options.Audit(c.who, shown(line), done)
	}
}

// reply is what a command answers, all of it.
type reply struct{ text []byte }

func (r *reply) line(format string, a ...any) {
	r.text = fmt.Appendf(r.text, format, a...)
	r.text = append(r.text, "\r\n"...)
}

func (r *reply) succeed(format string, a ...any) { r.line("SUCCESS: "+format, a...) }
func (r *reply) fail(format string, a ...any)    { r.line("ERROR: "+format, a...) }

func (r *reply) succeeded() bool { return strings.HasPrefix(string(r.text), "SUCCESS:") }

// outcome answers that a command of that name succeeded or failed.
func (r *reply) outcome(c *conn, name string, err error) {
	if err != nil {
		c.log.Debug().Err(err).Msg(name + " command failed")
		r.fail("%s command failed", name)
		return
	}
	r.succeed("%s command succeeded", name)
}

func firstOf(line string) string {
	list, err := words(line)
	if err != nil || len(list) == 0 {
		return ""
	}
	return list[0]
}
