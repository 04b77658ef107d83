package management

import (
	"fmt"
	"slices"
	"strings"
)

// envBlock is an event with an environment, rendered once for each filter level that a tool uses.
type envBlock struct {
	event    string
	vars     [][2]string
	clients  int // -1: not told
	flags    int
	rendered [envLevels]string
}

const envLogin = 1 // the block asks for a decision: it has the password, and what the client says of itself whatever the filter

// Filter levels. Any higher one is as envNothing.
const (
	envAll = iota
	envCertificates
	envEssential
	envNothing
	envLevels
)

// essential are the variables that a filter lets through.
var essential = []string{"username", "password", "X509_0_CN", "untrusted_ip", "ifconfig_local", "ifconfig_netmask",
	"daemon_start_time", "daemon_pid", "dev", "ifconfig_pool_remote_ip", "ifconfig_pool_netmask", "time_duration",
	"bytes_sent", "bytes_received", "session_id", "session_state"}

// newEnvBlock copies env. What it holds that no event may carry is left out.
func newEnvBlock(event string, env Env, flags int) *envBlock {
	b := &envBlock{event: event, flags: flags}
	if env == nil {
		return b
	}
	for name, value := range env {
		if name == "password" && flags&envLogin == 0 {
			continue
		}
		if name = variableName(name); name == "END" { // readers may look no further
			name = "END_"
		}
		b.vars = append(b.vars, [2]string{name, escape(value)})
	}
	return b
}

// sendLocked queues the block for all tools, or for those that may decide only.
func (b *envBlock) sendLocked(i *Interface, deciders bool) {
	for c := range i.conns {
		if deciders && c.access.ReadOnly {
			continue
		}
		level := min(max(c.envFilter, envAll), envNothing)
		if b.rendered[level] == "" {
			b.rendered[level] = b.render(level)
		}
		c.send(b.rendered[level])
	}
}

func (b *envBlock) render(level int) string {
	var t strings.Builder
	t.WriteString(b.event)
	if b.clients >= 0 && level == envAll {
		fmt.Fprintf(&t, ">CLIENT:ENV,n_clients=%d\r\n", b.clients)
	}
	for _, v := range b.vars {
		if b.passes(v[0], level) {
			t.WriteString(">CLIENT:ENV,")
			t.WriteString(v[0])
			t.WriteByte('=')
			t.WriteString(v[1])
			t.WriteString("\r\n")
		}
	}
	t.WriteString(">CLIENT:ENV,END\r\n")
	return t.String()
}

func (b *envBlock) passes(name string, level int) bool {
	switch {
	case level == envAll:
		return true
	case b.flags&envLogin != 0 && (strings.HasPrefix(name, "IV_") || strings.HasPrefix(name, "UV_")):
		return true
	case level == envCertificates && strings.HasPrefix(name, "X509_"):
		return true
	case level >= envNothing:
		return false
	}
	return strings.HasPrefix(name, "tls_serial_") || slices.Contains(essential, name)
}
