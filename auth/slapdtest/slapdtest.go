// Package slapdtest runs a private OpenLDAP server, for tests and for the demo: Debian's slapd with a database, a CA
// and a configuration made anew in a directory of its own, filled from testdata/ldap. It can be stopped, started
// again on the same ports, and frozen.
//
// It needs the programs slapd (package slapd) and ldapadd, ldapwhoami (package ldap-utils).
package slapdtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"syscall"
	"time"
)

// Who is in the directory of testdata/ldap; the password of user x is x + "-secret".
const (
	BaseDN       = "dc=example,dc=net"
	BindDN       = "cn=postern,ou=services," + BaseDN // may search
	BindPassword = "service-secret"
	UserBase     = "ou=people," + BaseDN
	UsersGroup   = "cn=vpn-users,ou=groups," + BaseDN  // alice, by member
	AdminsGroup  = "cn=vpn-admins,ou=groups," + BaseDN // bob, by uniqueMember
	Team         = "cn=team,ou=groups," + BaseDN       // heidi, by member, and Division again
	Department   = "cn=department,ou=groups," + BaseDN // Team
	Division     = "cn=division,ou=groups," + BaseDN   // Department
	UnixGroup    = "cn=unix-vpn,ou=groups," + BaseDN   // ivan, by memberUid
)

const (
	rootDN       = "cn=root," + BaseDN
	rootPassword = "root-secret"
	readyTime    = 20 * time.Second
)

// Options say how to run the server. The zero value will do.
type Options struct {
	Addr       string   // address to listen on; "" means 127.0.0.1
	Names      []string // further host names and addresses in the certificate
	Netns      string   // network namespace to run in, by the name that "ip netns" knows; "" means the caller's
	LDIF       []string // files to fill the directory from; nil means testdata/ldap
	Anonymous  bool     // let everyone search, not only BindDN
	NoMemberOf bool     // leave out the overlay that keeps memberOf of the members of groups
}

// A Server is one slapd. Its methods are for one goroutine at a time.
type Server struct {
	URL      string // ldap://, which offers StartTLS
	URLTLS   string // ldaps://
	CA       []byte // PEM of the CA that signed the server's certificate
	CAFile   string // the same in a file
	Dir      string // everything of this server; goes at Close
	Addr     string
	Port     int // of URL
	PortTLS  int // of URLTLS
	netns    string
	log      *os.File
	slapd    *process
	isFrozen bool
}

// TB is what Run needs of a testing.TB.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Run starts a server that ends with the test.
func Run(tb TB, o Options) *Server {
	tb.Helper()
	s, err := Start(o)
	if err != nil {
		tb.Fatalf("start slapd: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Start returns when the server answers and is filled. The caller must Close it; should the caller die before, slapd
// dies too, and only its directory is left.
func Start(o Options) (_ *Server, err error) {
	dir, err := os.MkdirTemp("", "slapdtest-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, Addr: cmp.Or(o.Addr, "127.0.0.1"), netns: o.Netns, CAFile: filepath.Join(dir, "ca.pem")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.logged())
			s.Close()
		}
	}()
	if s.log, err = os.Create(filepath.Join(dir, "slapd.log")); err != nil {
		return nil, err
	}
	if s.CA, err = writeCertificates(dir, append([]string{s.Addr, "localhost"}, o.Names...)); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	if err := s.configure(o); err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	// The ports are free now; should another program take one before slapd does, then others will be.
	for try := range 5 {
		if err = s.choosePorts(); err != nil {
			return nil, err
		}
		if err = s.Restart(); err == nil {
			break
		}
		if try == 4 {
			return nil, err
		}
	}
	files := o.LDIF
	if files == nil {
		if files, err = testdata(); err != nil {
			return nil, err
		}
	}
	for _, file := range files {
		// pwdReset and its like are for the directory to keep, and settable only so.
		if err := s.tool("ldapadd", "-D", rootDN, "-w", rootPassword, "-e", "relax", "-f", file); err != nil {
			return nil, fmt.Errorf("fill from %s: %w", file, err)
		}
	}
	return s, nil
}

// testdata finds the LDIF files in the source tree that this package was built from.
func testdata() ([]string, error) {
	_, file, _, _ := runtime.Caller(0)
	pattern := filepath.Join(filepath.Dir(file), "..", "..", "testdata", "ldap", "*.ldif")
	files, err := filepath.Glob(pattern)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no %s", pattern)
	}
	slices.Sort(files)
	return files, err
}

func (s *Server) choosePorts() error {
	ports := make([]int, 2)
	for i := range ports {
		// In another namespace this proves nothing, but there nobody else is.
		addr := s.Addr
		if s.netns != "" {
			addr = "127.0.0.1"
		}
		l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // after both, or they could be the same
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	s.Port, s.PortTLS = ports[0], ports[1]
	s.URL = "ldap://" + net.JoinHostPort(s.Addr, strconv.Itoa(s.Port))
	s.URLTLS = "ldaps://" + net.JoinHostPort(s.Addr, strconv.Itoa(s.PortTLS))
	return nil
}

// Restart starts the server again after Stop, on the same ports and with what was in it. It returns when the server
// answers.
func (s *Server) Restart() error {
	if s.slapd != nil {
		return errors.New("slapd is running")
	}
	p, err := start(s.command("slapd", "-d", "0", "-f", filepath.Join(s.Dir, "slapd.conf"), "-h", s.URL+" "+s.URLTLS))
	if err != nil {
		return err
	}
	s.slapd = p
	// It cannot say when it is ready, so it is asked until it answers.
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	for {
		asked := s.tool("ldapwhoami", "-D", rootDN, "-w", rootPassword)
		if asked == nil {
			return nil
		}
		select {
		case <-p.done:
			s.slapd = nil
			return fmt.Errorf("slapd ended: %w", p.err)
		case <-ctx.Done():
			s.Stop()
			return fmt.Errorf("slapd does not answer: %w", asked)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server as an administrator would, and waits until it has ended. Its ports then refuse connections.
func (s *Server) Stop() {
	if s.slapd == nil {
		return
	}
	s.Thaw()
	s.slapd.signal(syscall.SIGTERM)
	select {
	case <-s.slapd.done:
	case <-time.After(10 * time.Second):
		s.slapd.signal(syscall.SIGKILL)
		<-s.slapd.done
	}
	s.slapd = nil
}

// Freeze stops the server's process where it is: the kernel goes on accepting connections for it, nothing answers.
func (s *Server) Freeze() {
	if s.slapd != nil && !s.isFrozen {
		s.slapd.signal(syscall.SIGSTOP)
		s.slapd.awaitStopped()
		s.isFrozen = true
	}
}

// Thaw undoes Freeze.
func (s *Server) Thaw() {
	if s.slapd != nil && s.isFrozen {
		s.slapd.signal(syscall.SIGCONT)
		s.isFrozen = false
	}
}

// Close ends the server and removes what it had.
func (s *Server) Close() {
	s.Stop()
	if s.log != nil {
		s.log.Close()
	}
	os.RemoveAll(s.Dir)
}

// Modify applies LDIF change records as the directory's root.
func (s *Server) Modify(ldif string) error {
	file := filepath.Join(s.Dir, "change.ldif")
	if err := os.WriteFile(file, []byte(ldif), 0o600); err != nil {
		return err
	}
	return s.tool("ldapmodify", "-D", rootDN, "-w", rootPassword, "-e", "relax", "-f", file)
}

func (s *Server) tool(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	return s.toolContext(ctx, name, args...)
}

func (s *Server) toolContext(ctx context.Context, name string, args ...string) error {
	args = append([]string{"-x", "-H", s.URL}, args...)
	line := s.command(name, args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *Server) command(name string, args ...string) []string {
	// slapd is in sbin, which is not in every user's path.
	if _, err := exec.LookPath(name); err != nil {
		name = filepath.Join("/usr/sbin", name)
	}
	line := append([]string{name}, args...)
	if s.netns != "" {
		line = append([]string{"ip", "netns", "exec", s.netns}, line...)
	}
	return line
}

func (s *Server) logged() error {
	text, err := os.ReadFile(filepath.Join(s.Dir, "slapd.log"))
	if err != nil || len(text) == 0 {
		return nil
	}
	return fmt.Errorf("slapd said: %s", strings.TrimSpace(string(text)))
}

// A process is a running child.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how, once it has

}

// start starts a child that the kernel kills when this process ends, however it ends.
func start(line []string) (*process, error) {
	p := &process{cmd: exec.Command(line[0], line[1:]...), done: make(chan struct{})}
	var said bytes.Buffer
	p.cmd.Stderr = &said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that started the child, so this thread waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = p.cmd.Wait()
		if said.Len() > 0 {
			p.err = fmt.Errorf("%w: %s", cmp.Or(p.err, errors.New("no error")), bytes.TrimSpace(said.Bytes()))
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", line[0], err)
	}
	return p, nil
}

func (p *process) signal(sig syscall.Signal) { p.cmd.Process.Signal(sig) }

// awaitStopped returns when every thread of the process stands still, which SIGSTOP brings about a moment after it was
// sent; or after a second, which no caller can do anything about.
func (p *process) awaitStopped() {
	for range 1000 {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		running := len(tasks) == 0
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			// The state is the field behind the name, which stands in parentheses and may hold anything.
			if i := bytes.LastIndexByte(b, ')'); err == nil && (i < 0 || len(b) < i+3 || b[i+2] != 'T') {
				running = true
			}
		}
		if !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
