package management

import (
	"fmt"
	"iter"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Env is a client's environment as hooks get it, newest variable first.
type Env = iter.Seq2[string, string]

// State is what a server is doing.
type State struct {
	Time         time.Time
	Name         string // CONNECTING, ASSIGN_IP, ADD_ROUTES, CONNECTED, RECONNECTING, EXITING
	Detail       string // SUCCESS when CONNECTED; the signal when RECONNECTING or EXITING
	Addr4, Addr6 netip.Addr
	Local        netip.AddrPort // where it listens, when that is one address
}

// State tells the tools of a new state, and remembers it.
func (i *Interface) State(s State) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d,%s,%s,%s,,,", s.Time.Unix(), escape(s.Name), escape(s.Detail), addrText(s.Addr4))
	if s.Local.IsValid() && !s.Local.Addr().IsUnspecified() {
		fmt.Fprintf(&b, "%v,%d", s.Local.Addr().Unmap(), s.Local.Port())
	} else {
		b.WriteByte(',')
	}
	if s.Addr6.IsValid() {
		b.WriteByte(',')
		b.WriteString(s.Addr6.String())
	}
	i.add(stateStream, b.String())
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// LogLine tells the tools of a line of the log. flags is I, F, N, W, D or nothing: information, fatal or other error,
// warning, debug.
func (i *Interface) LogLine(flags string, t time.Time, text string) {
	i.add(logStream, stamped(t, flags+","+escape(text)))
}

// Echo tells the tools the text of an echo directive.
func (i *Interface) Echo(t time.Time, text string) { i.add(echoStream, stamped(t, escape(text))) }

func stamped(t time.Time, text string) string { return strconv.FormatInt(t.Unix(), 10) + "," + text }

// add keeps a line and sends it to whom it may concern.
func (i *Interface) add(stream int, line string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.addLocked(stream, line)
}

func (i *Interface) addLocked(stream int, line string) {
	i.kept[stream].add(line)
	event := ""
	for c := range i.conns {
		if c.live[stream] {
			if event == "" {
				event = ">" + strings.ToUpper(streamNames[stream]) + ":" + line + "\r\n"
			}
			c.send(event)
		}
	}
}

// send queues an event for this tool.
func (c *conn) send(event string) {
	if !c.out.event(event) {
		c.dropped.Add(1)
	}
}

// broadcast sends one event to all tools.
func (i *Interface) broadcast(event string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c := range i.conns {
		c.send(event)
	}
}

// Fatal tells the tools why the server cannot go on.
func (i *Interface) Fatal(text string) { i.broadcast(">FATAL:" + escape(text) + "\r\n") }

// Info tells the tools something that is no answer and no log line.
func (i *Interface) Info(text string) { i.broadcast(">INFO:" + escape(text) + "\r\n") }

// ClientConnect puts a new client's login to the tools (management-client-auth). clients is how many are established,
// here and in the other methods that take it. The Owner's Logins get the answer.
//
// Call this for logins that wait for an answer, and ClientEstablished, ClientAddress and ClientDisconnect for all: as
// upstream, tools are told the address and the end only of clients whose login was put to them.
func (i *Interface) ClientConnect(client ClientID, key KeyID, clients int, env Env) {
	i.ask(">CLIENT:CONNECT,", client, key, clients, env)
}

// ClientReauth puts the login of a client's renegotiation to the tools.
func (i *Interface) ClientReauth(client ClientID, key KeyID, clients int, env Env) {
	i.ask(">CLIENT:REAUTH,", client, key, clients, env)
}

func (i *Interface) ask(event string, client ClientID, key KeyID, clients int, env Env) {
	b := newEnvBlock(fmt.Sprintf("%s%d,%d\r\n", event, client, key), env, envLogin)
	b.clients = clients
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked[client] = struct{}{}
	b.sendLocked(i, true)
}

// ClientCRResponse gives the tools a client's answer to a challenge, in base64 as it came.
func (i *Interface) ClientCRResponse(client ClientID, key KeyID, response string, clients int, env Env) {
	b := newEnvBlock(fmt.Sprintf(">CLIENT:CR_RESPONSE,%d,%d,%s\r\n", client, key, escape(response)), env, 0)
	b.clients = clients
	i.mu.Lock()
	defer i.mu.Unlock()
	b.sendLocked(i, true)
}

// ClientEstablished tells the tools that a client is in.
func (i *Interface) ClientEstablished(client ClientID, clients int, env Env) {
	b := newEnvBlock(fmt.Sprintf(">CLIENT:ESTABLISHED,%d\r\n", client), env, 0)
	b.clients = clients
	i.mu.Lock()
	defer i.mu.Unlock()
	b.sendLocked(i, false)
}

// ClientDisconnect tells the tools that a client is gone. Call it for every client that ever had an id.
func (i *Interface) ClientDisconnect(client ClientID, env Env) {
	b := newEnvBlock(fmt.Sprintf(">CLIENT:DISCONNECT,%d\r\n", client), env, 0)
	b.clients = -1
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, asked := i.asked[client]; !asked {
		return
	}
	delete(i.asked, client)
	b.sendLocked(i, false)
}

// ClientAddress tells the tools that an address belongs to a client: its own, or a network behind it.
func (i *Interface) ClientAddress(client ClientID, network netip.Prefix, own bool) {
	text, priority := network.Addr().String(), 1
	if !own {
		priority = 0
		if network.Addr().Is4() {
			text += "/" + net.IP(net.CIDRMask(network.Bits(), 32)).String()
		} else {
			text = network.String()
		}
	}
	event := fmt.Sprintf(">CLIENT:ADDRESS,%d,%s,%d\r\n", client, text, priority)
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, asked := i.asked[client]; !asked {
		return
	}
	for c := range i.conns {
		c.send(event)
	}
}
