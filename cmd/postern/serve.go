package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"postern/server"
	"postern/server/audit"
	"postern/server/config"
	"postern/server/hostnet"
)

// serveOptions are the flags of serve and quickstart.
type serveOptions struct {
	logFormat string
	pprof     string // unix:PATH; "": none
	ready     func() // called once when clients may connect; may be nil
}

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the server in the foreground, like openvpn --config FILE",
		Description: "FILE is an OpenVPN server.conf, which may use Postern's own directives (docs/configuration.md).\n" +
			"SIGTERM and SIGINT end the server after telling the clients, SIGHUP and SIGUSR1 (see remap-usr1) reload\n" +
			"what can be reloaded without dropping anyone, SIGUSR2 writes the status to the log.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Required: true, Usage: "server.conf `FILE`"},
			&cli.StringFlag{Name: "pprof", Usage: "serve Go's profiles on the socket `unix:PATH`"},
			logFormatFlag(),
		},
		Action: func(c *cli.Context) error {
			return serve(c.Context, source{path: c.String("config")}, serveOptions{logFormat: c.String("log-format"), pprof: c.String("pprof")})
		},
	}
}

func logFormatFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-format", Value: "auto", Usage: "`FORMAT` of log lines: console or json"}
}

// A source is where a configuration comes from, now and at every reload.
type source struct {
	path string     // "": all is in args
	args [][]string // directives of a command line, behind those of the file

	loader *config.Loader // serve's
}

func (s source) load() (*config.Config, *config.Report, error) {
	return loadConfigBy(s.loader, s.path, s.args...)
}

// serve runs one server until ctx is done, or puts it into the background when the configuration says daemon.
func serve(ctx context.Context, from source, o serveOptions) error {
	signals := catchSignals()
	from.loader = new(config.Loader)
	cfg, report, err := from.load()
	if err != nil {
		return err
	}
	sup := openSupervisor()
	if cfg.Daemon && !sup.present() {
		return detach(ctx)
	}
	log, err := openLogging(cfg, o.logFormat)
	if err == nil {
		err = runServer(ctx, cfg, report, from, o, sup, signals, log)
		if err != nil && (cfg.Daemon || cfg.Log != "" || cfg.Syslog != "") {
			log.Error().Err(err).Msg("cannot serve") // nobody may see what is printed
		}
		log.close()
	}
	sup.failed(err)
	return err
}

// runServer serves a configuration.
func runServer(ctx context.Context, cfg *config.Config, report *config.Report, from source, o serveOptions, sup *supervisor, signals <-chan os.Signal, logs *logging) (err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	log := logs.Logger
	if err := hostnet.Nice(cfg.Nice); err != nil {
		log.Warn().Err(err).Int("nice", cfg.Nice).Msg("the priority stays as it was")
	}
	spareThreads(cfg, log)
	closePprof, err := openPprof(o.pprof)
	if err != nil {
		return err
	}
	defer closePprof()
	records, err := openAudit(cfg)
	if err != nil {
		return err
	}
	endAudit := keepAudit(records)
	defer func() {
		if failed := endAudit(err); failed != nil {
			log.Error().Err(failed).Str("alarm", "audit").Msg("ended without the last audit records")
		}
	}()
	desk, err := openDesk(cfg, logs, records)
	if err != nil {
		return err
	}
	defer desk.close()
	for _, e := range report.Entries {
		if e.Verdict == config.Noticed || e.Verdict == config.Ignored {
			log.Warn().Str("at", e.At()).Str("directive", e.Directive).Msg(e.Why)
		}
	}
	if cfg.Management.Hold {
		sup.held()
	}
	if desk.wait(ctx) != nil {
		return nil // ended before it was released
	}
	who := newLogins(cfg, log)
	s, err := setUp(ctx, cfg, desk, who, records, log)
	if err != nil {
		desk.fail(err)
		s.tearDown(log)
		return err
	}
	defer s.tearDown(log)

	serving := &serving{srv: s.server, from: from, who: who, process: logs.process, names: &s.names, sup: sup, end: end, audit: records, remap: cfg.RemapUSR1, log: log}
	running := make(chan struct{})
	var attending sync.WaitGroup
	attending.Go(func() { serving.attend(running, signals) })
	defer attending.Wait()
	defer close(running)
	serve, unserve := context.WithCancel(context.WithoutCancel(ctx))
	var naming sync.WaitGroup
	s.names.run(serve, &naming, log)
	defer naming.Wait()
	defer unserve()
	log.Info().Str("config", cfg.Path).Str("device", deviceNames(s.devices)).Strs("listen", s.listening).Msg("serving")
	if o.ready != nil {
		o.ready()
	}
	if err = s.server.Run(ctx); err != nil {
		desk.fail(err)
		return err
	}
	log.Info().Msg("ended")
	return nil
}

// host is what a server took of its host, in the order to give back.
type host struct {
	server    *server.Server
	devices   []*openDevice // one for each pool
	listening []string
	names     names
	down      func() // the down script; nil: it is not due
	undo      []func() error
}

func (h *host) later(undo func() error) { h.undo = append(h.undo, undo) }

// tearDown gives back everything, last first. What the server closed by itself may be closed twice.
func (h *host) tearDown(log zerolog.Logger) {
	for _, undo := range slices.Backward(h.undo) {
		if err := undo(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) && !errors.Is(err, os.ErrNotExist) {
			log.Warn().Err(err).Msg("give back")
		}
	}
}

// setUp opens everything, connects the server and drops privileges. On error the host still holds what was opened.
func setUp(ctx context.Context, cfg *config.Config, desk *desk, who *logins, records *audit.Log, log zerolog.Logger) (*host, error) {
	h := new(host)
	parts := server.Parts{Log: log, Lanes: runtime.GOMAXPROCS(0), Workers: who.workers, Management: desk.Interface, Started: time.Now(), MemoryLimit: limitMemory("/")}
	if records != nil {
		parts.Audit = records
	}
	used, err := who.openUsed(cfg)
	if err != nil {
		return h, err
	}
	if used != nil {
		h.later(used.Close)
	}
	if parts.Login, err = who.login(cfg); err != nil {
		return h, err
	}
	if !cfg.LoginMustMatchCert && cfg.WantLogin() && cfg.VerifyClientCert != config.CertNone {
		log.Warn().Msg("login-must-match-cert no: any certificate works with any password (S043)")
	}
	if err := hostnet.Preflight(); err != nil {
		return h, err
	}
	if err := h.listen(cfg, &parts); err != nil {
		return h, err
	}
	if err := h.makeDevices(ctx, cfg, &parts, log); err != nil {
		return h, err
	}
	if parts.Filter, err = h.guard(cfg, log); err != nil {
		return h, err
	}
	if guarded(cfg) {
		parts.Forget = new(hostnet.Flows).Forget
	}
	if err := h.listenNames(cfg, log); err != nil {
		return h, err
	}
	if err := h.openFiles(cfg, &parts); err != nil {
		return h, err
	}
	if len(parts.TCP) > 0 {
		if parts.MaxStreams, err = streamBudget(); err != nil {
			return h, err
		}
	}
	if h.server, err = server.New(cfg, parts); err != nil {
		return h, err
	}
	if desk.owner != nil {
		desk.owner.Attach(h.server)
	}
	if err := hostnet.NoDumps(); err != nil { // keys stay out of core files (S109)
		return h, err
	}
	if cfg.User != "" || cfg.Group != "" {
		if err := hostnet.DropPrivileges(cfg.User, cfg.Group, hostnet.KeepNetAdmin); err != nil {
			return h, err
		}
		if err := stillReadable(cfg, log); err != nil {
			return h, err
		}
		if err := stillRunnable(cfg, parts.Scripts); err != nil {
			return h, err
		}
	}
	return h, nil
}

// stillReadable tells of files that are read again while serving and that the user whom the server now is cannot
// read. A revocation list is not only told of: who is revoked would stay connected (S068).
func stillReadable(cfg *config.Config, log zerolog.Logger) error {
	check := func(name string) error {
		if !filepath.IsAbs(name) { // not given, or inline
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if err := check(cfg.CRL.Name); err != nil {
		return fmt.Errorf("crl-verify: %w: without privileges (user, group) revocations would not be noticed: make it readable to that user", err)
	}
	for directive, name := range map[string]string{"config": cfg.Path, "auth-users-file": cfg.Users, "auth-totp-file": cfg.TOTPFile, "client-config-dir": cfg.ClientConfigDir, "plugin": cfg.AuthLDAP.File,
		"ca": cfg.CA.Name, "cert": cfg.Cert.Name, "key": cfg.Key.Name} {
		if err := check(name); err != nil {
			log.Warn().Err(err).Str("directive", directive).Msg("cannot be read without privileges: changes of it take a restart")
		}
	}
	return nil
}

// openFiles opens what is written while serving, as long as there are rights to.
func (h *host) openFiles(cfg *config.Config, parts *server.Parts) error {
	open := func(directive, name string, durable bool) (server.StateFile, error) {
		if name == "" {
			return nil, nil
		}
		f, err := openStateFile(name, durable)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", directive, err)
		}
		h.later(f.Close)
		return f, nil
	}
	var err error
	if parts.Status, err = open("status", cfg.Status, false); err != nil {
		return err
	}
	if parts.Pool, err = open("ifconfig-pool-persist", cfg.PoolPersist, true); err != nil {
		return err
	}
	if cfg.WritePID != "" {
		if err := os.WriteFile(cfg.WritePID, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			return fmt.Errorf("writepid: %w", err)
		}
	}
	parts.Control, err = h.openControl(cfg, parts.Log)
	return err
}

// openControl opens the socket that postern status asks. Only root and the server's own user may. Where the configuration
// does not say where, a socket that cannot be had is no reason not to serve.
func (h *host) openControl(cfg *config.Config, log zerolog.Logger) (net.Listener, error) {
	if cfg.Control != "" {
		l, err := listenUnix("control-socket", cfg.Control)
		if err == nil {
			h.later(l.Close)
		}
		return l, err
	}
	path := controlSocket(cfg.Path)
	l, err := listenUnix("control-socket", path)
	for n := 2; errors.Is(err, errAnotherServer) && n < 100; n++ { // of the same name in another directory
		l, err = listenUnix("control-socket", strings.TrimSuffix(path, ".sock")+"-"+strconv.Itoa(n)+".sock")
	}
	if err != nil {
		log.Warn().Err(err).Msg("postern status cannot ask this server")
		return nil, nil
	}
	h.later(l.Close)
	return l, nil
}

// errAnotherServer means that somebody listens at a socket already.
var errAnotherServer = errors.New("another server answers there: give this one its own")

// listenUnix opens a socket of mode 0660 that a directive names, in the place of one that a killed run left.
func listenUnix(directive, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("%s: %w", directive, err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s %s: %w", directive, path, errAnotherServer)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("%s: %w", directive, err)
		}
	}
	old := syscall.Umask(0o117)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", directive, err)
	}
	return l, nil
}
