package server

import (
	"context"
	"fmt"
	"time"
)

// A StateFile is a file that is read once and replaced as a whole from then on. Both may take as long as the disk does;
// one goroutine at a time calls them.
type StateFile interface {
	Load() ([]byte, error)
	Save(b []byte) error
	// SetAside keeps the contents under another name, which it returns.
	SetAside() (name string, err error)
}

// filesEnd is how long the end of the server waits for its last files to be written.
const filesEnd = 5 * time.Second

// keepFiles does, once a second, all that a disk may delay: it looks at the revocation list, writes the status file and
// the pool's. It has a goroutine of its own, so that a disk that hangs delays no ping, no timeout and no key (F09).
func (s *Server) keepFiles(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var statusDue time.Time
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			s.save()
			if s.parts.Status != nil {
				s.writeStatus(s.live.Load())
			}
			return
		case <-tick.C:
		}
		live := s.live.Load()
		if n%crlCheck == 0 {
			s.checkRevocations(live)
		}
		if every := live.cfg.StatusEvery; s.parts.Status != nil && every > 0 && !time.Now().Before(statusDue) {
			statusDue = time.Now().Add(every)
			s.writeStatus(live)
		}
		s.save()
	}
}

// readPool remembers what the pool's file says. What cannot be read ends no start: the file is set aside, and written anew
// from what could (F08, S112).
func (s *Server) readPool(file StateFile, name string) {
	b, err := file.Load()
	var warnings []string
	if err == nil {
		warnings = readLeases(b, s.zones)
	}
	const most = 10 // lines of log, however broken the file is
	for i, w := range warnings {
		if i == most {
			s.log.Warn().Str("file", name).Msgf("and %d lines more", len(warnings)-most)
			break
		}
		s.log.Warn().Str("file", name).Msg(w)
	}
	if err == nil && len(warnings) == 0 {
		return
	}
	if err == nil {
		err = fmt.Errorf("%s: %d lines make no sense", name, len(warnings))
	}
	aside, failed := file.SetAside()
	if failed != nil {
		aside = "nowhere: " + failed.Error()
	}
	s.log.Error().Err(err).Str("alarm", "pool file").Str("kept", aside).Msg("the pool file cannot be read whole: clients may get other addresses")
	s.zones[0].leases.touch()
}

// save writes what is remembered of the pool, when it changed. A full disk stops nothing: it is tried again (F09).
func (s *Server) save() {
	if s.parts.Pool == nil || s.live.Load().cfg.PoolPersistEvery == 0 {
		return
	}
	changed := false
	for _, z := range s.zones {
		changed = z.leases.changes() || changed
	}
	if !changed {
		return
	}
	b := []byte(nil)
	for _, z := range s.zones {
		b = z.leases.appendTo(b)
	}
	if err := s.parts.Pool.Save(b); err != nil {
		s.zones[0].leases.touch()
		s.alarmOnce("pool file", err)
	}
}
