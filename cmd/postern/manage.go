package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"postern/server"
	"postern/server/audit"
	"postern/server/config"
	"postern/server/management"
)

// process is what management clients and reloads see and change of the process. Its signals take the way that those of
// others take.
type process struct {
	verb atomic.Int64
	mute muter
}

func newProcess(cfg *config.Config) *process {
	p := new(process)
	p.adopt(cfg)
	return p
}

// adopt does as a configuration says.
func (p *process) adopt(cfg *config.Config) {
	_ = p.SetVerb(cfg.Verb) // these never fail
	_ = p.SetMute(cfg.Mute)
}

var signalsByName = map[string]syscall.Signal{
	"SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2,
}

func (p *process) Signal(name string) error {
	s, known := signalsByName[name]
	if !known {
		return fmt.Errorf("signal %s means nothing here", name)
	}
	return syscall.Kill(os.Getpid(), s)
}

func (p *process) Verb() int { return int(p.verb.Load()) }

func (p *process) SetVerb(level int) error {
	p.verb.Store(int64(level))
	zerolog.SetGlobalLevel(logLevel(level))
	return nil
}

func (p *process) Mute() int { return int(p.mute.most.Load()) }

func (p *process) SetMute(n int) error {
	p.mute.most.Store(int64(n))
	return nil
}

// lateWriter passes log lines on to a writer that is known only after the logger is. What comes before is lost.
type lateWriter struct{ to zerolog.LevelWriter }

func (w *lateWriter) Write(p []byte) (int, error) { return w.WriteLevel(zerolog.NoLevel, p) }

func (w *lateWriter) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if w.to == nil {
		return len(p), nil
	}
	return w.to.WriteLevel(level, p)
}

// desk is where management clients are served; without the directive it does nothing.
type desk struct {
	*management.Interface // nil without the directive
	owner                 *server.ManagementOwner
	stop                  func()
}

// openDesk opens the socket and serves those who come, until close. They get the log from here on.
func openDesk(cfg *config.Config, log *logging, records *audit.Log) (*desk, error) {
	m := &cfg.Management
	if m.Network == "" {
		return &desk{stop: func() {}}, nil
	}
	access := management.Access{Password: m.Password}
	var err error
	if access.UID, err = idOf(m.User, userID); err != nil {
		return nil, fmt.Errorf("management-client-user: %w", err)
	}
	if access.GID, err = idOf(m.Group, groupID); err != nil {
		return nil, fmt.Errorf("management-client-group: %w", err)
	}
	d := &desk{owner: &server.ManagementOwner{Process: log.process}}
	d.Interface = management.New(management.Options{LogCache: m.LogCache, Hold: m.Hold, SignalOnLeave: m.Signal, Audit: recordCommand(records)}, d.owner, log.Logger)
	log.history.to = d.LogWriter()
	serve, err := d.meet(m, &access, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(ctx)
	}()
	d.stop = func() {
		cancel()
		<-ended
	}
	log.Info().Str("at", m.String()).Bool("password", m.Password != nil).Msg("management clients may come")
	for _, text := range m.Echo {
		d.Echo(time.Now(), text)
	}
	d.State(management.State{Time: time.Now(), Name: "CONNECTING"})
	return d, nil
}

// meet listens for management clients, or connects to one, and returns what serves them.
func (d *desk) meet(m *config.Management, a *management.Access, log *logging) (func(context.Context), error) {
	if m.Dial {
		network, address := "unix", m.Path
		if m.Network == "tcp" {
			network, address = "tcp", m.Addr.String()
		}
		conn, err := net.Dial(network, address)
		if err != nil {
			return nil, fmt.Errorf("management-client: %w", err)
		}
		return func(ctx context.Context) {
			if err := d.ServeConn(ctx, conn, *a); err != nil {
				log.Warn().Err(err).Msg("management client")
			}
			if ctx.Err() == nil {
				log.Warn().Msg("the management client has left: the server ends (management-client)")
				_ = log.process.Signal("SIGTERM") // to ourselves
			}
		}, nil
	}
	l, err := listenManagement(m, a)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		if err := d.Serve(ctx, l, *a); err != nil {
			log.Error().Err(err).Msg("nobody can manage this server any more")
		}
	}, nil
}

// listenManagement opens the socket. A unix socket belongs to the only user or group that may use it.
func listenManagement(m *config.Management, a *management.Access) (net.Listener, error) {
	if m.Network == "tcp" {
		l, err := net.Listen("tcp", m.Addr.String())
		if err != nil {
			return nil, fmt.Errorf("management: %w", err)
		}
		return l, nil
	}
	l, err := listenUnix("management", m.Path)
	if err != nil {
		return nil, err
	}
	id := func(n *uint32) int {
		if n == nil {
			return -1
		}
		return int(*n)
	}
	if a.UID == nil && a.GID == nil {
		return l, nil
	}
	if err := os.Chown(m.Path, id(a.UID), id(a.GID)); err != nil {
		l.Close()
		return nil, fmt.Errorf("management: %w", err)
	}
	return l, nil
}

// wait waits for the release of management-hold, or for ctx, whose error it returns.
func (d *desk) wait(ctx context.Context) error {
	if d.Interface == nil {
		return nil
	}
	return d.Hold(ctx)
}

// fail tells management clients why the server cannot go on.
func (d *desk) fail(err error) {
	if d.Interface != nil {
		d.Fatal(err.Error())
	}
}

// close ends the connections, once what they were told is out.
func (d *desk) close() { d.stop() }

// idOf is the number of a name, nil for "".
func idOf(name string, find func(string) (string, error)) (*uint32, error) {
	if name == "" {
		return nil, nil
	}
	text, err := find(name)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, err
	}
	id := uint32(n)
	return &id, nil
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
