package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrNoClientFile is LoadClient's answer to a client without a file of its own where ccd-exclusive asks for one. It
// is an fs.ErrNotExist, too, and the only error of LoadClient that is.
var ErrNoClientFile = fmt.Errorf("no client file: %w", fs.ErrNotExist)

const (
	defaultClient = "DEFAULT" // the file for clients without one of their own
	maxClientFile = 1 << 20
)

// LoadClient reads what the directory dir says of the client named cn: its own file, else DEFAULT, else nothing (a
// Client without Path). With exclusive only its own file counts, and its absence is ErrNoClientFile. Lines that
// cannot be used become Warnings; an error means that the client must not be let in.
//
// No name leads out of the directory, and links are not followed (S088): a link, or a name that differs from another
// file's only in case, is an error.
func LoadClient(dir, cn string, exclusive bool) (*Client, error) {
	if err := checkClientName(cn); err != nil {
		return nil, fmt.Errorf("client file for %q: %w", cn, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open client-config-dir: %s", reason(err))
	}
	defer root.Close()
	name, err := pickClientFile(root, cn)
	if err != nil {
		return nil, fmt.Errorf("client file for %q in %s: %s", cn, dir, reason(err))
	}
	if exclusive && name != cn {
		return nil, fmt.Errorf("%w for %q in %s", ErrNoClientFile, cn, dir)
	}
	if name == "" {
		return &Client{}, nil
	}
	read := func(name string) ([]byte, error) { return readBeneath(root, name) }
	src, err := read(name)
	if err != nil {
		return nil, fmt.Errorf("client file %s/%s: %s", dir, name, reason(err))
	}
	return parseClient(dir, name, src, read), nil
}

// checkClientName keeps names out that S066 does not allow, and those that are no client's.
func checkClientName(cn string) error {
	if len(cn) < 1 || len(cn) > 64 {
		return errors.New("the name must have 1 to 64 bytes")
	}
	for _, c := range []byte(cn) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("._@+-", rune(c)) {
			return errors.New("the name has characters other than A-Z a-z 0-9 . _ @ + -")
		}
	}
	if cn[0] == '.' {
		return errors.New("the name begins with a dot")
	}
	if strings.EqualFold(cn, defaultClient) {
		return errors.New("the name is reserved")
	}
	return nil
}

// pickClientFile returns which file is the client's, "" for none.
func pickClientFile(root *os.Root, cn string) (string, error) {
	f, err := root.Open(".")
	if err != nil {
		return "", err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return "", err
	}
	picked := ""
	for _, name := range names {
		switch {
		case name == cn:
			picked = cn
		case strings.EqualFold(name, cn):
			return "", fmt.Errorf("there is a file %q whose name differs only in case", name)
		case name == defaultClient && picked == "":
			picked = defaultClient
		}
	}
	return picked, nil
}

// readBeneath reads a regular file of the directory itself.
func readBeneath(root *os.Root, name string) ([]byte, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, errLink
	}
	// Between the two calls the file may have been replaced: by a pipe, which must not block, or by a link.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, info) {
		return nil, errLink
	}
	b, err := io.ReadAll(io.LimitReader(f, maxClientFile+1))
	if err == nil && len(b) > maxClientFile {
		err = fmt.Errorf("larger than %d bytes", maxClientFile)
	}
	return b, err
}

// clientFileRows says what the lines of client files do. What is not here is skipped with a warning.
var clientFileRows = map[string]struct {
	low, high int
	apply     func(*Client, []string) error
}{
	"config":                {1, 1, nil}, // done by the reader
	"disable":               {0, 0, func(c *Client, _ []string) error { c.Disable = true; return nil }},
	"ifconfig-push":         {2, 3, (*Client).setAddress4},
	"ifconfig-ipv6-push":    {1, 2, (*Client).setAddress6},
	"iroute":                {1, 2, (*Client).addIRoute},
	"iroute-ipv6":           {1, 1, (*Client).addIRoute6},
	"push":                  {1, 1, (*Client).addPush},
	"push-reset":            {0, 0, (*Client).resetPush},
	"push-remove":           {1, 1, (*Client).removePush},
	"echo":                  {0, maxWords, func(*Client, []string) error { return nil }},
	"parameter":             {0, maxWords, func(*Client, []string) error { return nil }},
	"ping":                  {1, 1, clientTimer(func(c *Client) **time.Duration { return &c.Ping })},
	"ping-restart":          {1, 1, clientTimer(func(c *Client) **time.Duration { return &c.PingTimeout })},
	"ping-exit":             {1, 1, clientTimer(func(c *Client) **time.Duration { return &c.PingTimeout })},
	"inactive":              {1, 2, (*Client).setInactive},
	"session-timeout":       {1, 1, clientTimer(func(c *Client) **time.Duration { return &c.SessionTimeout })},
	"ping-timer-rem":        {0, 0, func(*Client, []string) error { return nil }},
	"max-routes-per-client": {1, 1, func(*Client, []string) error { return nil }},
	"tun-ipv6":              {0, 0, func(*Client, []string) error { return nil }},
	"ignore-unknown-option": {1, maxWords, func(*Client, []string) error { return nil }},
}

// parseClient reads the lines of a client file. read opens what config lines name, in the same directory.
func parseClient(dir, name string, src []byte, read func(string) ([]byte, error)) *Client {
	c := &Client{Path: dir + "/" + name}
	c.Warnings = c.take(dir, c.Path, src, read)
	return c
}

// With returns what c says with more lines behind, as they stand in client files. name is for the warnings. What config
// lines name is looked for in dir, which may be "".
func (c *Client) With(dir, name string, src []byte) (more *Client, warnings []string) {
	both := *c
	both.Push, both.PushRemove, both.IRoutes = slices.Clone(c.Push), slices.Clone(c.PushRemove), slices.Clone(c.IRoutes)
	warnings = both.take(dir, name, src, func(file string) ([]byte, error) {
		if dir == "" {
			return nil, errors.New("there is no client-config-dir to find it in")
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return readBeneath(root, file)
	})
	return &both, warnings
}

// take applies lines, and tells of those that it cannot.
func (c *Client) take(dir, path string, src []byte, read func(string) ([]byte, error)) (warnings []string) {
	r := &reader{
		chdir: func(*directive) error { return errors.New("it is not possible in a client file") },
		include: func(_ *directive, name string) (string, []byte, error) {
			if strings.Contains(name, "/") || strings.HasPrefix(name, ".") || name == "" {
				return "", nil, errors.New("only files of the same directory can be included, by their plain name")
			}
			b, err := read(name)
			var p *fs.PathError
			if errors.As(err, &p) {
				err = p.Err
			}
			return dir + "/" + name, b, err
		},
	}
	r.read(path, src, 0)
	for _, l := range r.found {
		if err := c.apply(l); err != nil {
			warnings = append(warnings, Problem{File: l.file, Line: l.line, Directive: l.name, Message: err.Error()}.Error())
		}
	}
	return warnings
}

func (c *Client) apply(l *directive) error {
	if l.fault != nil {
		return l.fault
	}
	row, ok := clientFileRows[l.name]
	known := rowsByName()[l.name]
	switch {
	case !ok && known == nil && l.optional != "":
		return nil
	case !ok && known == nil:
		return errors.New("Unrecognized option or missing or extra parameter(s): there is no such directive" + suggestion(l.name))
	case !ok && pushable[l.name]:
		return fmt.Errorf("it does nothing here: write push %q", strings.Join(append([]string{l.name}, l.args...), " "))
	case !ok && l.name == "override-username":
		return errors.New("not supported yet: the client keeps the name that it has logged in with")
	case !ok && (l.name == "auth-token" || l.name == "auth-token-user"):
		return errors.New("it does nothing here: clients get tokens by `auth-gen-token`, or by a push of your own")
	case !ok && (l.name == "comp-lzo" || l.name == "compress"):
		return errors.New("nothing is compressed; clients that are set up for it are told so")
	case !ok:
		return errors.New("not supported in client files")
	case l.isBlock:
		return fmt.Errorf("option '%s' is not expected to be inline", l.name)
	case len(l.args) < row.low || len(l.args) > row.high:
		return errors.New("Unrecognized option or missing or extra parameter(s)")
	case row.apply == nil:
		return nil
	}
	return row.apply(c, l.args)
}

// clientTimer is for a timer of the client's own.
func clientTimer(field func(*Client) **time.Duration) func(*Client, []string) error {
	return func(c *Client, a []string) error {
		t, err := seconds(a[0], 0)
		if err == nil {
			*field(c) = &t
		}
		return err
	}
}

func (c *Client) setInactive(a []string) error {
	bytes := 0
	if len(a) > 1 {
		var err error
		if bytes, err = number(a[1], 0, 1<<62); err != nil {
			return err
		}
	}
	c.InactiveBytes = int64(bytes)
	return clientTimer(func(c *Client) **time.Duration { return &c.Inactive })(c, a)
}

// Timers are those of a connected client; 0: none.
type Timers struct {
	Ping           time.Duration // how often it hears from us
	PingTimeout    time.Duration // how long it may be silent
	Inactive       time.Duration // how long it may move less than InactiveBytes
	InactiveBytes  int64
	SessionTimeout time.Duration
}

// Timers are the client's own, where it has any, and the configuration's.
func (c *Client) Timers(all *Config) Timers {
	t := Timers{Ping: all.Ping, PingTimeout: max(all.PingRestart, all.PingExit), Inactive: all.Inactive, InactiveBytes: all.InactiveBytes,
		SessionTimeout: all.SessionTimeout}
	for _, own := range []struct{ is, into *time.Duration }{
		{c.Ping, &t.Ping}, {c.PingTimeout, &t.PingTimeout}, {c.Inactive, &t.Inactive}, {c.SessionTimeout, &t.SessionTimeout},
	} {
		if own.is != nil {
			*own.into = *own.is
		}
	}
	if c.Inactive != nil {
		t.InactiveBytes = c.InactiveBytes
	}
	return t
}

// pushable are the directives that people write into client files and that have to be pushed to do anything.
var pushable = map[string]bool{"route": true, "route-ipv6": true, "redirect-gateway": true, "dhcp-option": true, "keepalive": true, "topology": true, "route-gateway": true, "dns": true, "block-ipv6": true}

func (c *Client) setAddress4(a []string) error {
	addr, err := ipv4(a[0])
	if err != nil {
		return err
	}
	mask, err := ipv4(a[1])
	if err != nil {
		return err
	}
	var alias netip.Addr
	if len(a) > 2 {
		if alias, err = ipv4(a[2]); err != nil {
			return err
		}
	}
	c.IfconfigPush4, c.IfconfigMask, c.Alias4 = addr, mask, alias
	return nil
}

func (c *Client) setAddress6(a []string) error {
	s := a[0]
	if !strings.Contains(s, "/") {
		s += "/64"
	}
	p, err := network6(s)
	if err != nil {
		return err
	}
	var gateway netip.Addr
	if len(a) > 1 {
		if gateway, err = ipv6(a[1]); err != nil {
			return err
		}
	}
	c.IfconfigPush6, c.Gateway6 = p, gateway
	return nil
}

func (c *Client) addIRoute(a []string) error {
	mask := ""
	if len(a) > 1 {
		mask = a[1]
	}
	p, err := network4(a[0], mask)
	if err != nil {
		return err
	}
	return c.addNetwork(p)
}

func (c *Client) addIRoute6(a []string) error {
	p, err := network6(a[0])
	if err != nil {
		return err
	}
	return c.addNetwork(p)
}

// maxIRoutes bounds what one client can cost the routing table (S087).
const maxIRoutes = 64

func (c *Client) addNetwork(p netip.Prefix) error {
	if hostBits(p) {
		return fmt.Errorf("the network has bits behind its mask: write %s", p.Masked())
	}
	if len(c.IRoutes) >= maxIRoutes {
		return fmt.Errorf("more than %d networks behind one client", maxIRoutes)
	}
	if !slices.Contains(c.IRoutes, p) {
		c.IRoutes = append(c.IRoutes, p)
	}
	return nil
}

func (c *Client) addPush(a []string) error {
	if _, err := checkPush(a[0]); err != nil {
		return err
	}
	c.Push = append(c.Push, a[0])
	return nil
}

// resetPush drops what was pushed before this line, in this file too.
func (c *Client) resetPush([]string) error {
	c.PushReset, c.Push = true, nil
	c.PushRemove = slices.DeleteFunc(c.PushRemove, func(r PushRemove) bool { return !r.Address() })
	for i := range c.PushRemove {
		c.PushRemove[i].At = 0
	}
	return nil
}

func (c *Client) removePush(a []string) error {
	if a[0] == "" {
		return errors.New("it would remove everything: write push-reset for that")
	}
	c.PushRemove = append(c.PushRemove, PushRemove{Prefix: a[0], At: len(c.Push)})
	return nil
}

// Address reports whether r is one of the two words that suppress the client's own address, not pushed text.
func (r PushRemove) Address() bool { return r.Prefix == "ifconfig" || r.Prefix == "ifconfig-ipv6" }

// Pushes returns what is pushed to this client when everybody gets inherited: push-reset and push-remove applied,
// the client's own pushes behind, and without routes to networks that are behind the client itself. What the address
// words of push-remove suppress is not among it: that is the caller's to add, or not.
func (c *Client) Pushes(inherited []string) []string {
	var list []string
	if !c.PushReset {
		list = slices.Clone(inherited)
	}
	removes := c.PushRemove
	for i := 0; ; i++ {
		for len(removes) > 0 && removes[0].At <= i {
			r := removes[0]
			removes = removes[1:]
			if !r.Address() {
				list = slices.DeleteFunc(list, func(p string) bool { return strings.HasPrefix(p, r.Prefix) })
			}
		}
		if i >= len(c.Push) {
			break
		}
		list = append(list, c.Push[i])
	}
	if len(c.IRoutes) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(p string) bool {
		net, ok := PushedRoute(p)
		return ok && slices.Contains(c.IRoutes, net)
	})
}

// PushedRoute returns the network that a pushed route leads to.
func PushedRoute(option string) (netip.Prefix, bool) {
	w, err := Words(option)
	if err != nil || len(w) < 2 {
		return netip.Prefix{}, false
	}
	var p netip.Prefix
	switch {
	case w[0] == "route-ipv6":
		p, err = network6(w[1])
	case w[0] != "route":
		return netip.Prefix{}, false
	case len(w) == 2 || w[2] == "default":
		p, err = network4(w[1], "")
	default:
		p, err = network4(w[1], w[2])
	}
	return p, err == nil
}
