package server

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"postern/server/config"
	"postern/tlsctl"
)

// repushAll tells those who are connected what a reload changes of their pushes. Who takes no update, and what cannot be
// changed while connected, is left for the next connect; the log says how many that are.
func (s *Server) repushAll(l *live) {
	var told, later int
	for _, c := range s.table.all(nil) {
		if !c.isIn() {
			continue // Established looks after it
		}
		switch t, rest := c.repush(l); {
		case rest:
			later++
		case t:
			told++
		}
	}
	if told+later > 0 {
		s.log.Info().Int("told", told).Int("at_next_connect", later).Msg("pushes changed for clients that are connected")
	}
}

// repush brings what c was pushed in line with a configuration, and with what its client file says now. A client whose file
// says disable is told to go. told reports
// whether it was told anything, later whether something is left for its next connect.
func (c *client) repush(l *live) (told, later bool) {
	c.srv.repushing.Lock()
	defer c.srv.repushing.Unlock()
	g := c.decided()
	set := g.set
	file, err := c.settings(l, g.name)
	if err == nil {
		file, err = withAttributes(l.view(&g.ruling), file, g.who)
	}
	switch {
	case errors.Is(err, errDisabled):
		c.srv.deny(c, "", err)
		return false, false
	case err != nil:
		c.log.Warn().Err(err).Msg("client file cannot be used: its pushes stay as they are")
	case reflect.DeepEqual(file, g.file):
	case g.set == g.file:
		set = file
	default:
		later = true // it was not the file alone that made the settings
	}
	fixed := *set
	fixed.IRoutes = g.iroutes // networks and addresses stay what they are
	next := PushList(l.view(&g.ruling), &fixed, Addresses{g.addr4, g.addr6, g.peer4}, g.peerInfo)
	update, rest := updates(g.pushed, next)
	later = later || len(rest) > 0 || set.IfconfigPush4 != g.set.IfconfigPush4 || set.IfconfigPush6 != g.set.IfconfigPush6 ||
		!slices.Equal(set.IRoutes, g.iroutes)
	if len(update) == 0 {
		return false, later
	}
	switch err := c.session.Update(update); {
	case errors.Is(err, tlsctl.ErrNoUpdate):
		return false, true
	case err != nil:
		c.log.Error().Err(err).Msg("pushes cannot be updated")
		return false, true
	}
	c.log.Debug().Strs("options", update).Msg("pushes updated")
	c.mu.Lock()
	defer c.mu.Unlock()
	now := *c.grant
	now.pushed = slices.Concat(ofNames(next, updatable), ofNames(g.pushed, func(name string) bool { return !updatable(name) }))
	c.grant = &now
	return true, later
}

// updatable reports whether an option may be in our updates. A client's addresses may not: the table and the pool know
// it by them.
func updatable(name string) bool {
	return tlsctl.Updatable(name) && name != "ifconfig" && name != "ifconfig-ipv6"
}

// updates returns the items of a PUSH_UPDATE that makes of one push list the other, and the names of options that differ
// and that none can change.
func updates(was, next []string) (items, rest []string) {
	var names []string
	for _, o := range slices.Concat(was, next) {
		if name := nameOf(o); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		is := func(n string) bool { return n == name }
		before, after := ofNames(was, is), ofNames(next, is)
		switch {
		case slices.Equal(before, after):
		case !updatable(name):
			rest = append(rest, name)
		case len(after) == 0:
			items = append(items, "-"+name)
		default:
			items = append(items, after...) // they replace all of the name
		}
	}
	return items, rest
}

func nameOf(option string) string {
	name, _, _ := strings.Cut(option, " ")
	return name
}

func ofNames(list []string, is func(name string) bool) (found []string) {
	for _, o := range list {
		if is(nameOf(o)) {
			found = append(found, o)
		}
	}
	return found
}

// catchUp has a client that was admitted under a configuration that is not in force any more get what changed since.
func (c *client) catchUp(admitted *config.Config) {
	l := c.srv.live.Load()
	if l.cfg == admitted {
		return
	}
	c.srv.wg.Go(func() { // its file is read again, and the session has no time to wait for that
		c.srv.reevaluate(c)
		if _, later := c.repush(l); later {
			c.log.Info().Msg("pushes changed while the client logged in: it has some of them at its next connect")
		}
	})
}
