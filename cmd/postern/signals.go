package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"postern/server"
	"postern/server/audit"
)

// catchSignals takes the signals that mean something to a server, from the first moment to the last: one that comes
// before it serves waits, one that comes while it ends changes nothing, and none kills the process. The end of whoever
// reads what is printed does not either.
func catchSignals() <-chan os.Signal {
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	return signals
}

// serving is what signals and the supervisor reach of a server that runs.
type serving struct {
	srv     *server.Server
	from    source
	who     *logins
	names   *names
	process *process
	sup     *supervisor
	end     context.CancelCauseFunc
	audit   *audit.Log
	remap   string // what SIGUSR1 means
	log     zerolog.Logger
}

var errTerminated = errors.New("terminated signal received: SIGUSR1, which remap-usr1 says")

// attend follows signals and tells the supervisor how it goes, until the server has ended.
func (s *serving) attend(ended <-chan struct{}, signals <-chan os.Signal) {
	s.sup.ready(s.srv)
	beat := time.NewTicker(s.sup.interval())
	defer beat.Stop()
	for {
		select {
		case <-ended:
			s.sup.stopping()
			return
		case <-beat.C:
			s.sup.beat(s.srv)
		case sig := <-signals:
			switch {
			case sig == syscall.SIGUSR2:
				s.srv.LogStatus(s.log)
			case sig == syscall.SIGUSR1 && s.remap == "SIGTERM":
				s.end(errTerminated)
			default:
				s.sup.reloading()
				err := s.whileBeating(beat.C, s.reload)
				recordReload(s.audit, err)
				if err != nil {
					s.log.Error().Err(err).Str("alarm", "reload").Msg("reload failed: the running configuration stays")
				}
				s.sup.ready(s.srv)
			}
		}
	}
}

// whileBeating does what may take long, as reading from a disk that hangs: the packet path goes on meanwhile, and that
// is what the watchdog looks after.
func (s *serving) whileBeating(beat <-chan time.Time, do func() error) error {
	done := make(chan error)
	go func() { done <- do() }()
	for {
		select {
		case err := <-done:
			return err
		case <-beat:
			s.sup.beat(s.srv)
		}
	}
}

// reload reads the configuration again. Sessions stay.
func (s *serving) reload() error {
	cfg, _, err := s.from.load()
	if err != nil {
		return err
	}
	login, err := s.who.login(cfg)
	if err != nil {
		return err
	}
	adoptNames, restart, err := s.names.prepare(cfg)
	if err != nil {
		return err
	}
	kept, err := s.srv.Reload(cfg, login)
	if err != nil {
		return err
	}
	if restart {
		kept = append(kept, "dns-forward")
	}
	adoptNames()
	s.process.adopt(cfg)
	s.remap = cfg.RemapUSR1
	if stale := s.from.loader.Stale(); len(stale) > 0 {
		s.log.Warn().Strs("files", slices.Compact(slices.Sorted(slices.Values(stale)))).
			Msg("cannot be read again without privileges: what was in them stays in force")
	}
	if len(kept) > 0 {
		s.log.Warn().Strs("directives", slices.Compact(kept)).Msg("changed in the file, but only a restart can change them: they stay as they were")
	}
	s.log.Info().Str("config", cfg.Path).Msg("reloaded")
	return nil
}
