package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

const (
	// wholeLook is how often groups are looked for whatever the marks of change say: nothing marks a deleted group.
	wholeLook = 5 * time.Minute
	// markSlack is how far our clock and the directory's may be apart for marks to be seen at once.
	markSlack = 10 * time.Minute
)

// A census is what was found of those who are connected, at the last look.
type census struct {
	users map[string]seenUser
	marks groupMarks
	whole time.Time // when groups were last looked for whatever the marks said
	since time.Time // what changed before is in marks
}

// groupMarks is how each group was marked when it changed last: by normal DN, the values of markAttributes.
type groupMarks map[string]string

// markAttributes change when an entry does: in Active Directory, OpenLDAP, 389 Directory Server, and everywhere.
var markAttributes = []string{"uSNChanged", "entryCSN", "entryUSN", "modifyTimestamp"}

type seenUser struct {
	dn     string
	print  string // all of the entry that was read
	answer *Identity
}

// Changes implements Watcher. Each user's entry is read by its name and must still be found by the filter. Groups are
// looked for only when the entry, or any group, has changed.
func (l *LDAP) Changes(ctx context.Context, connected []*Identity) ([]Change, error) {
	if len(connected) == 0 || l.bindAs != nil && l.o.BindDN == "" {
		return nil, nil
	}
	l.mu.Lock()
	before := l.seen
	l.mu.Unlock()
	servers, err := l.servers.candidates(ctx)
	if err != nil {
		return nil, fmt.Errorf("no directory server to ask: %w", err)
	}
	var failures []error
	for _, s := range servers {
		if cause := s.enter(); cause != nil {
			failures = append(failures, cause)
			continue
		}
		began := time.Now()
		changes, after, unclear, err := l.lookAt(ctx, s, connected, before)
		if err == nil {
			s.worked()
			l.mu.Lock()
			l.seen = after
			l.mu.Unlock()
			return changes, unclear
		}
		failures = append(failures, fmt.Errorf("%s: %w", s.url, err))
		var odd *oddAnswer
		if ctx.Err() != nil || errors.As(err, &odd) {
			s.passed()
		} else {
			s.broke(err, began)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("ask the directory: %w", errors.Join(failures...))
}

// lookAt looks once at everybody, at one server. What is unclear about one user is no reason not to look at the others.
func (l *LDAP) lookAt(ctx context.Context, s *server, connected []*Identity, before census) (changes []Change, after census, unclear, err error) {
	defer func() {
		if p := recover(); p != nil { // of the library
			changes, err = nil, fmt.Errorf("looking at the directory panicked: %v", p)
			s.passed()
		}
	}()
	err = l.withService(ctx, s, func(c *directoryConn) error {
		now := time.Now()
		changes, unclear = nil, nil
		after = census{users: make(map[string]seenUser), marks: before.marks, whole: before.whole, since: before.since}
		moved, err := l.groupsMoved(c, s, &after, now)
		if err != nil {
			return err
		}
		for _, who := range connected {
			if err := ctx.Err(); err != nil {
				return err
			}
			if l.holds(who.Name) != nil {
				continue
			}
			change, seen, err := l.lookAtOne(ctx, s, c, who, before.users[who.Name], moved, now)
			var odd *oddAnswer
			if errors.As(err, &odd) {
				unclear = errors.Join(unclear, fmt.Errorf("%s: %w", who.Name, err))
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", who.Name, err)
			}
			after.users[who.Name] = seen
			if change != nil {
				changes = append(changes, *change)
			}
		}
		return nil
	})
	return changes, after, unclear, err
}

// lookAtOne looks at one user. The error is about the directory, or about an answer that cannot be understood: that is
// no reason to end anything.
func (l *LDAP) lookAtOne(ctx context.Context, s *server, c *directoryConn, who *Identity, before seenUser, moved bool, now time.Time) (*Change, seenUser, error) {
	gone := func(reason string) (*Change, seenUser, error) {
		return &Change{Name: who.Name, Reason: reason}, seenUser{}, nil
	}
	filter := l.filter.For(l.login(who.Name))
	entry, err := c.readUser(before.dn, filter, l.attrs)
	if err == nil && entry == nil {
		entry, err = c.findUser(ctx, l.o.UserBase, filter, l.attrs) // new to us, or moved to another name
	}
	var denied *Denied
	switch {
	case errors.As(err, &denied):
		return gone(denied.Reason)
	case err != nil:
		return nil, seenUser{}, err
	}
	if state := accountState(entry, now); state.reason != "" && !state.passing {
		return gone(fmt.Sprintf("%s: %q", state.reason, entry.DN))
	}
	seen := seenUser{dn: entry.DN, print: fingerprint(entry), answer: before.answer}
	if moved || before.answer == nil || seen.print != before.print {
		groups, err := l.groups.of(ctx, s, c, entry)
		if errors.As(err, &denied) {
			return gone(denied.Reason)
		}
		if err == nil {
			seen.answer, err = l.identity(who.Name, &person{entry, groups})
		}
		if errors.As(err, &denied) {
			return gone(denied.Reason)
		}
		if err != nil {
			return nil, seenUser{}, err
		}
	}
	if sameGrounds(who, seen.answer) {
		return nil, seen, nil
	}
	return &Change{Name: who.Name, Now: seen.answer}, seen, nil
}

// sameGrounds reports whether policy has the same to go by.
func sameGrounds(a, b *Identity) bool {
	return slices.Equal(a.Groups, b.Groups) && a.Addr4 == b.Addr4 && a.Addr6 == b.Addr6 && a.Pool == b.Pool && slices.Equal(a.Routes, b.Routes)
}

// readUser reads the entry of that name, if the filter still finds it; nil when not.
func (c *directoryConn) readUser(dn, filter string, attributes []string) (*ldap.Entry, error) {
	if dn == "" {
		return nil, nil
	}
	result, err := c.search(dn, ldap.ScopeBaseObject, 1, filter, attributes...)
	switch {
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultReferral):
		return nil, nil
	case err != nil:
		return nil, inStep(stepSearch, answered(err))
	case len(result.Entries) != 1:
		return nil, nil
	}
	a, err := NormalDN(result.Entries[0].DN)
	if b, _ := NormalDN(dn); err != nil || a != b {
		return nil, nil
	}
	return result.Entries[0], nil
}

// fingerprint is all that was read of an entry.
func fingerprint(e *ldap.Entry) string {
	var lines []string
	for _, a := range e.Attributes {
		values := slices.Clone(a.Values)
		slices.Sort(values)
		lines = append(lines, fmt.Sprintf("%s=%q", strings.ToLower(a.Name), values))
	}
	slices.Sort(lines)
	return e.DN + "\n" + strings.Join(lines, "\n")
}

// groupsMoved reports whether any group may have changed since the last look, which one search tells of all of them.
func (l *LDAP) groupsMoved(c *directoryConn, s *server, seen *census, now time.Time) (bool, error) {
	if len(l.groups.searches) > 0 {
		return true, nil // they may be anywhere, and look like anything
	}
	if len(l.groups.required) == 0 && !l.groups.all {
		return false, nil // only the entry's own memberOf counts
	}
	ad, err := s.isActiveDirectory(c)
	if err != nil {
		return false, inStep(stepGroups, err)
	}
	if seen.marks == nil || now.Sub(seen.whole) >= wholeLook {
		seen.since, seen.whole, seen.marks = now, now, groupMarks{}
		if _, err := l.takeMarks(c, ad, seen); err != nil {
			return false, err
		}
		return true, nil
	}
	return l.takeMarks(c, ad, seen)
}

// takeMarks reads how the groups are marked that have changed lately, and reports whether there are new marks.
func (l *LDAP) takeMarks(c *directoryConn, ad bool, seen *census) (bool, error) {
	filter := "(&(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup))(modifyTimestamp>=" + generalized(seen.since, "Z") + "))"
	if ad { // whose modifyTimestamp is made up when it is read, and not to be searched by
		filter = "(&(objectClass=group)(whenChanged>=" + generalized(seen.since, ".0Z") + "))"
	}
	result, err := c.search(l.groups.base, ldap.ScopeWholeSubtree, maxGroups+1, filter, markAttributes...)
	if err != nil {
		if _, odd := answered(err).(*oddAnswer); odd {
			return true, nil // this directory does not tell; so groups are looked for each time
		}
		return false, inStep(stepGroups, err)
	}
	marks := maps.Clone(seen.marks)
	for _, e := range result.Entries {
		var mark []string
		for _, a := range markAttributes {
			mark = append(mark, e.GetEqualFoldAttributeValue(a))
		}
		marks[e.DN] = strings.Join(mark, " ")
	}
	moved := !maps.Equal(marks, seen.marks)
	seen.marks = marks
	return moved, nil
}

// generalized writes a time as directories compare it, with markSlack for clocks that differ.
func generalized(t time.Time, end string) string {
	return t.Add(-markSlack).UTC().Format("20060102150405") + end
}
