package hooks

import (
	"net/netip"
	"strconv"
)

// A Var is one variable of a script's environment.
type Var struct{ Name, Value string }

// Env is an environment, in the order in which its variables were first set. Each name is in it once.
type Env []Var

// set gives a variable a value. name is one of the program's own, or came through goodName or setPrefixed.
func (e *Env) set(name, value string) {
	value = clean(value)
	for i := range *e {
		if (*e)[i].Name == name {
			(*e)[i].Value = value
			return
		}
	}
	*e = append(*e, Var{name, value})
}

func (e *Env) setInt(name string, value int) { e.set(name, strconv.Itoa(value)) }

// setAddr sets an address that is known.
func (e *Env) setAddr(name string, a netip.Addr) {
	if a.IsValid() {
		e.set(name, a.String())
	}
}

// setSource sets where a client is: prefix_ip or prefix_ip6, and prefix_port.
func (e *Env) setSource(prefix string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	ip := a.Addr().Unmap().WithZone("")
	if ip.Is4() {
		e.set(prefix+"_ip", ip.String())
	} else {
		e.set(prefix+"_ip6", ip.String())
	}
	e.setInt(prefix+"_port", int(a.Port()))
}

// Get returns a variable's value, and whether it is set.
func (e Env) Get(name string) (value string, ok bool) {
	for _, v := range e {
		if v.Name == name {
			return v.Value, true
		}
	}
	return "", false
}

// strings is the form that the kernel takes.
func (e Env) strings() []string {
	s := make([]string, 0, len(e))
	for _, v := range e {
		s = append(s, v.Name+"="+v.Value)
	}
	return s
}

// goodName reports whether a name can be a variable's in every shell.
func goodName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !(c == '_' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' && i > 0) {
			return false
		}
	}
	return s != ""
}

// peerName accepts the names that a client may send: whatever it writes, they begin with IV_ or UV_ (S090).
func peerName(s string) bool {
	return len(s) > 3 && len(s) <= 64 && (s[:3] == "IV_" || s[:3] == "UV_") && goodName(s)
}

// clean makes control bytes '_'. Bytes of UTF-8 pass, as they do in OpenVPN: names and passwords are made of them.
func clean(s string) string {
	for i := range len(s) {
		if control(s[i]) {
			b := []byte(s)
			for i, c := range b {
				if control(c) {
					b[i] = '_'
				}
			}
			return string(b)
		}
	}
	return s
}

func control(c byte) bool { return c < ' ' || c == 0x7f }

// cleanArgument is clean for what a client chose and a script gets as an argument: it cannot look like an option.
func cleanArgument(s string) string {
	s = clean(s)
	if s != "" && s[0] == '-' {
		s = "_" + s[1:]
	}
	return s
}
