package management

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (c *conn) exit(_ *reply, _ []string) { c.over = true }

func (c *conn) version(r *reply, args []string) {
	if len(args) > 0 {
		return // what the tool can do; 2.6 takes it without a word
	}
	r.line("OpenVPN Version: %s", c.options.Title)
	r.line("Management Version: %d", protocolVersion)
	r.line("END")
}

func (c *conn) status(r *reply, args []string) {
	version := 0
	if len(args) > 0 {
		var err error
		if version, err = strconv.Atoi(args[0]); err != nil {
			version = -1
		}
	}
	if version < 0 || version > 3 {
		r.fail("bad status format version number")
		return
	}
	report := c.owner.Status(max(version, 1))
	if report == nil {
		r.notSupported("status")
		return
	}
	for line := range bytes.Lines(report) {
		if line = bytes.TrimRight(line, "\r\n"); string(line) != "END" {
			r.text = append(append(r.text, line...), "\r\n"...)
		}
	}
	r.line("END")
}

// state is stream, but without words it shows the state there is.
func (c *conn) state(r *reply, args []string) {
	if len(args) == 0 {
		args = []string{"1"}
	}
	c.stream(r, stateStream, args)
}

// stream turns real-time notification on or off and shows history, in the order of at most two words.
func (c *conn) stream(r *reply, stream int, args []string) {
	name := streamNames[stream]
	for _, arg := range args[:min(len(args), 2)] {
		n, err := strconv.Atoi(arg)
		switch {
		case arg == "on" || arg == "off":
			c.mu.Lock()
			c.live[stream] = arg == "on"
			c.mu.Unlock()
			r.succeed("real-time %s notification set to %s", name, strings.ToUpper(arg))
			continue
		case arg == "all":
			n = c.kept[stream].limit
		case err != nil || n <= 0:
			r.fail("%s parameter must be 'on' or 'off' or some number n or 'all'", name)
			continue
		}
		c.mu.Lock()
		c.kept[stream].newest(n, func(line string) { r.line("%s", line) })
		c.mu.Unlock()
		r.line("END")
	}
}

func (c *conn) setByteCount(r *reply, args []string) {
	seconds, err := strconv.ParseUint(args[0], 10, 31)
	if err != nil {
		r.fail("bad bytecount interval")
		return
	}
	c.setInterval(time.Duration(seconds) * time.Second)
	r.succeed("bytecount interval changed")
}

func (c *conn) setEnvFilter(r *reply, args []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0 // without a level, as openvpn has it
	if len(args) > 0 {
		var err error
		if n, err = strconv.Atoi(args[0]); err != nil || n < 0 {
			r.fail("bad env-filter level")
			return
		}
	}
	c.envFilter = n
	r.succeed("env_filter_level=%d", c.envFilter)
}

func (c *conn) setAuthRetry(r *reply, args []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(args) == 0:
		r.succeed("auth-retry=%s", c.authRetry)
	case slices.Contains([]string{"none", "interact", "nointeract"}, args[0]):
		c.authRetry = args[0]
		r.succeed("auth-retry parameter changed")
	default:
		r.fail("bad auth-retry parameter")
	}
}

func (c *conn) holdCommand(r *reply, args []string) {
	if len(args) == 0 {
		c.mu.Lock()
		flag := 0
		if c.hold {
			flag = 1
		}
		c.mu.Unlock()
		r.succeed("hold=%d", flag)
		return
	}
	switch args[0] {
	case "on", "off":
		c.mu.Lock()
		c.hold = args[0] == "on"
		c.mu.Unlock()
		r.succeed("hold flag set to %s", strings.ToUpper(args[0]))
	case "release":
		c.release()
		r.succeed("hold release succeeded")
	default:
		r.fail("bad hold command parameter")
	}
}

func (c *conn) signal(r *reply, args []string) {
	name := args[0]
	if !slices.Contains([]string{"SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"}, name) {
		r.fail("signal '%s' is not a known signal type", name)
		return
	}
	if err := c.owner.Signal(name); err != nil {
		c.log.Debug().Err(err).Msg("signal command failed")
		r.fail("signal '%s' is currently ignored", name)
		return
	}
	r.succeed("signal %s thrown", name)
}

// level shows or sets a number of the daemon.
func level(r *reply, name string, args []string, most int, show func() int, set func(int) error) {
	if len(args) == 0 {
		r.succeed("%s=%d", name, show())
		return
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 0 || n > most || set(n) != nil {
		r.fail("%s level is out of range", name)
		return
	}
	r.succeed("%s level changed", name)
}

// maxTest bounds what the test command writes: it is for trying out, not for filling memory.
const maxTest = 10000

func test(_ *conn, r *reply, args []string) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return
	}
	for i := range min(n, maxTest) {
		r.line("[%d] This line is there to be read, and nothing else.", i)
	}
}

func pkcs11ID(_ *conn, r *reply, args []string) {
	n, _ := strconv.ParseUint(args[0], 10, 31)
	r.line(">PKCS11ID-ENTRY:'%d'", n) // there are none
}
