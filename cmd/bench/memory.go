package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Classes of the memory that lives in Go's heap, by who asked for it. Memory is of the first class that has it.
var heapClasses = []class{
	{"ciphers", []string{"crypto/aes.*", "crypto/cipher.*", "crypto/internal/fips140/aes*", "crypto/hmac.*", "crypto/internal/fips140/hmac*", "golang.org/x/crypto/*"}},
	{"certificates", []string{"crypto/x509.*"}},
	{"TLS", []string{"crypto/tls.*"}},
	{"control channel", []string{"postern/tlsctl.*"}},
	{"sockets", []string{"postern/server/link.*", "net.*"}},
	{"sessions", []string{"postern/*"}},
	{"rest of the heap", []string{"*"}},
}

// The rest of resident memory.
const (
	stacks = "goroutine stacks"
	gaps   = "garbage and gaps"
)

// A memory is what a server held at one time.
type memory struct {
	resident, stacks float64 // bytes
	heap             []stack // weighed in bytes
	goroutines       float64
}

// finely has Go's heap profile look at more of what is asked for than one in 512 KB: sessions are smaller than that.
const finely = "GODEBUG=memprofilerate=8192"

// remember looks at the memory of a server.
func (g *gateway) remember(ctx context.Context) (m memory, err error) {
	if m.resident, err = resident(g.server.Pid()); err != nil {
		return m, err
	}
	if m.heap, err = g.profile(ctx, "heap?gc=1", "inuse_space"); err != nil {
		return m, err
	}
	routines, err := g.profile(ctx, "goroutine", "goroutine")
	if err != nil {
		return m, err
	}
	m.goroutines = weighed(routines)
	text, err := g.ask(ctx, "heap?debug=1")
	if err != nil {
		return m, err
	}
	m.stacks, err = stacksIn(string(text))
	return m, err
}

// stacksIn finds the size of all goroutines' stacks in the text form of a heap profile: `# Stack = in use / of the system's`.
func stacksIn(text string) (float64, error) {
	_, rest, ok := strings.Cut(text, "\n# Stack = ")
	size, _, ok2 := strings.Cut(rest, " / ")
	if !ok || !ok2 {
		return 0, fmt.Errorf("the heap profile does not tell the size of stacks")
	}
	return strconv.ParseFloat(size, 64)
}

// resident is the resident memory of a process.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm: %q", pid, b)
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize()), err
}

// idle has n sessions connected that only send keepalives, and looks at the server's memory before and with them.
func (w *watch) idle(g *gateway, n int, proto string) (err error) {
	if err := g.again(finely); err != nil {
		return err
	}
	if w.before, err = g.remember(g.b.ctx); err != nil {
		return err
	}
	g.logs++
	others, err := g.lab.Host("load").Start(fmt.Sprintf("idle%d.log", g.logs), g.vpnload("-phases", "-n", strconv.Itoa(n), "-storm", "100", "-from", sourceList(),
		"-settle", "10s", "-duration", "10m", "-proto", proto, "-connect-timeout", "120s")...)
	if err != nil {
		return err
	}
	defer others.Kill()
	if err := others.Expect("the first phase begins", 1, time.Duration(n)*20*time.Millisecond+time.Minute); err != nil {
		return fmt.Errorf("%w: %s", err, others.Output())
	}
	if w.with, err = g.remember(g.b.ctx); err != nil {
		return err
	}
	w.sessions = float64(n)
	_ = others.Signal(syscall.SIGTERM)
	if err := others.Wait(30 * time.Second); err != nil {
		return fmt.Errorf("the sessions do not leave: %w", err)
	}
	return g.again()
}

// held is what each session holds, by class: shares of the resident memory that came with the sessions, and KB of it.
func (w *watch) held() (list []share, kb float64) {
	grown := w.with.resident - w.before.resident
	if w.sessions == 0 || grown <= 0 {
		return nil, 0
	}
	rest := grown
	add := func(name string, bytes float64) {
		rest -= bytes
		list = append(list, share{name, 100 * bytes / grown})
	}
	before, with := classed(w.before.heap, heapClasses), classed(w.with.heap, heapClasses)
	for i, c := range heapClasses {
		if d := with[i] - before[i]; d > 0 {
			add(c.name, d)
		}
	}
	add(stacks, w.with.stacks-w.before.stacks)
	add(gaps, max(rest, 0))
	return list, grown / 1024 / w.sessions
}
