package auth

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

const (
	// maxGroupDepth is how deep groups may lie within groups (security S059). What is deeper does not count.
	maxGroupDepth = 10
	// groupsAsked is how many names one search for the groups that they are in has.
	groupsAsked = 25
	// inChain is Active Directory's rule for members of members.
	inChain = "1.2.840.113556.1.4.1941"
)

// groupRules is which groups count, and where they are. Immutable.
type groupRules struct {
	required []group
	searches []groupSearch
	base     string
	given    bool // base was configured: that it does not exist is an error
	all      bool
	nested   bool
}

// A group is a required group.
type group struct {
	text   string // as configured
	normal string
}

func newGroupRules(o *LDAPOptions, userBase *ldap.DN) (groupRules, error) {
	r := groupRules{base: o.GroupBase, given: o.GroupBase != "", all: o.AllGroups || o.GroupBase != "", nested: !o.DirectOnly}
	if r.given {
		if _, err := parseDN(o.GroupBase); err != nil {
			return r, fmt.Errorf("group base: %w", err)
		}
	} else {
		r.base = suffix(userBase)
	}
	for _, text := range o.RequireGroups {
		dn, err := NormalDN(text)
		if err != nil {
			return r, fmt.Errorf("required group: %w", err)
		}
		r.required = append(r.required, group{text, dn})
	}
	for _, g := range o.GroupSearches {
		s, err := parseGroupSearch(g)
		if err != nil {
			return r, err
		}
		r.searches = append(r.searches, s)
	}
	return r, nil
}

// suffix is the top of the tree that a DN is in, as far as its form tells: its trailing dc= parts, or its last part.
func suffix(dn *ldap.DN) string {
	n := len(dn.RDNs)
	for n > 0 && len(dn.RDNs[n-1].Attributes) == 1 && strings.EqualFold(dn.RDNs[n-1].Attributes[0].Type, "dc") {
		n--
	}
	if n == len(dn.RDNs) {
		n--
	}
	return normalDN(&ldap.DN{RDNs: dn.RDNs[n:]})
}

// memberships is the groups that a user is in, and how it came to that.
type memberships struct {
	by    map[string]membership // by normal DN
	order []string              // of them, as they were found
}

// A membership is how a user, or a group, comes to be in a group.
type membership struct {
	text string // the group's DN as the directory writes it
	via  string // normal DN of the group in between; "" when it is the user
	how  string
}

// add reports whether the group was not known yet. What is no DN is no group: some directories keep such.
func (m *memberships) add(text, via, how string) bool {
	dn, err := NormalDN(text)
	if err != nil {
		return false
	}
	if _, known := m.by[dn]; known {
		return false
	}
	m.by[dn] = membership{text, via, how}
	m.order = append(m.order, dn)
	return true
}

func (m *memberships) has(required []group) bool {
	return slices.ContainsFunc(required, func(g group) bool { _, in := m.by[g.normal]; return in })
}

// names returns the groups' normal DNs, sorted.
func (m *memberships) names() []string {
	list := slices.Clone(m.order)
	slices.Sort(list)
	return list
}

// path is how the user came to be in a group: the groups from the user's own to that one.
func (m *memberships) path(dn string) (list []string) {
	for range maxGroupDepth + 2 {
		step, ok := m.by[dn]
		if !ok {
			break
		}
		list = append(list, step.text)
		if step.via == "" {
			break
		}
		dn = step.via
	}
	slices.Reverse(list)
	return list
}

// errNoGroup is inside the *Denied of who is in no required group.
var errNoGroup = fmt.Errorf("in no required group: %w", errNotTried)

// of returns the groups that the entry is in: all, or as many as it takes to find a required one. It is a *Denied when
// groups are required and the entry is in none of them.
func (r *groupRules) of(ctx context.Context, s *server, c *directoryConn, entry *ldap.Entry) (*memberships, error) {
	m := &memberships{by: make(map[string]membership)}
	if err := r.find(ctx, s, c, entry, m); err != nil {
		return nil, err
	}
	found, err := r.searched(c, entry, r.all || tracing(ctx), m)
	if err != nil {
		return nil, err
	}
	if tracing(ctx) {
		r.tell(ctx, m)
	}
	if len(r.required)+len(r.searches) > 0 && !found && !m.has(r.required) {
		return nil, &Denied{Reason: fmt.Sprintf("%q is in no required group", entry.DN), Public: PublicRefusal, Err: errNoGroup}
	}
	return m, nil
}

// find puts groups into m, and ends as soon as it is known what is asked.
func (r *groupRules) find(ctx context.Context, s *server, c *directoryConn, entry *ldap.Entry, m *memberships) error {
	done := func() bool { return !r.all && !tracing(ctx) && (len(r.required) == 0 || m.has(r.required)) }
	for _, text := range entry.GetEqualFoldAttributeValues("memberOf") {
		m.add(text, "", "memberOf")
	}
	if err := m.bounded(); err != nil {
		return err
	}
	if done() {
		return nil
	}
	ad, err := s.isActiveDirectory(c)
	if err != nil {
		return inStep(stepGroups, err)
	}
	start := member{dns: []string{entry.DN}, uids: entry.GetEqualFoldAttributeValues("uid")}
	if ad {
		start.uids = nil
		primary, err := r.primary(c, entry)
		if err != nil {
			return err
		}
		if primary != "" {
			m.add(primary, "", "primaryGroupID")
			start.dns = append(start.dns, primary)
		}
		if done() {
			return nil
		}
	}
	ask := func() error {
		for _, g := range r.required {
			if _, known := m.by[g.normal]; known {
				continue
			}
			if err := r.list(c, g, start, ad && r.nested, m); err != nil || done() {
				return err
			}
		}
		return nil
	}
	if !tracing(ctx) && (!r.all || !within(r.required, r.base)) {
		if err := ask(); err != nil || done() {
			return err
		}
	}
	switch {
	case !r.all && (ad || !r.nested || len(r.required) == 0) && !tracing(ctx):
		return nil // the groups were asked, as far as they can tell
	case ad && r.nested && !tracing(ctx):
		return r.chain(c, start.dns, m)
	}
	if err := r.walk(c, start, m); err != nil {
		return err
	}
	if ad && r.nested {
		if err := r.chain(c, start.dns, m); err != nil { // the walk was for showing the way
			return err
		}
	}
	if tracing(ctx) {
		if err := ask(); err != nil { // after the walk, which shows more
			return err
		}
	}
	if m.has(r.required) || !r.nested {
		return nil
	}
	// A required group elsewhere may have one of these as its member.
	all := member{}
	for _, dn := range m.order {
		all.dns = append(all.dns, m.by[dn].text)
	}
	for _, g := range r.required {
		if under(g.normal, r.base) {
			continue // the walk would have found it
		}
		for part := range slices.Chunk(all.dns, groupsAsked) {
			if err := r.list(c, g, member{dns: part}, ad, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func within(groups []group, base string) bool {
	return !slices.ContainsFunc(groups, func(g group) bool { return !under(g.normal, base) })
}

// under reports whether a normal DN is below another name or that name itself.
func under(normal, base string) bool {
	top, err := NormalDN(base)
	return err == nil && (normal == top || strings.HasSuffix(normal, ","+top))
}

func (m *memberships) bounded() error {
	if len(m.order) > maxGroups {
		return &oddAnswer{inStep(stepGroups, fmt.Errorf("user is in more than %d groups, and no more are read", maxGroups))}
	}
	return nil
}

// A member is somebody by all the names that groups may list them under.
type member struct {
	dns  []string
	uids []string // of a user, for memberUid
}

// filter finds the groups that list the member.
func (m member) filter(chain bool) string {
	var b strings.Builder
	b.WriteString("(|")
	for _, dn := range m.dns {
		dn = ldap.EscapeFilter(dn)
		if chain {
			b.WriteString("(member:" + inChain + ":=" + dn + ")")
			continue
		}
		b.WriteString("(member=" + dn + ")(uniqueMember=" + dn + ")")
	}
	for _, uid := range m.uids[:min(len(m.uids), 4)] {
		if uid != "" {
			b.WriteString("(memberUid=" + ldap.EscapeFilter(uid) + ")")
		}
	}
	b.WriteString(")")
	return b.String()
}

// list adds a required group that lists the member. The directory compares the names, so a group of any size costs one
// small answer.
func (r *groupRules) list(c *directoryConn, g group, who member, chain bool, m *memberships) error {
	result, err := c.search(g.text, ldap.ScopeBaseObject, 1, who.filter(chain), "1.1")
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return nil
	}
	if err != nil {
		return inStep(stepGroups, fmt.Errorf("search group %q: %w", g.text, answered(err)))
	}
	for _, found := range result.Entries {
		if dn, err := NormalDN(found.DN); err == nil && dn == g.normal {
			m.add(found.DN, "", "it lists the user, or a group that the user is in")
		}
	}
	return nil
}

// chain adds, at an Active Directory, all groups that have these as members of members.
func (r *groupRules) chain(c *directoryConn, dns []string, m *memberships) error {
	found, err := r.search(c, member{dns: dns}.filter(true))
	if err != nil {
		return err
	}
	for _, e := range found {
		m.add(e.DN, "", "member of a member")
	}
	return m.bounded()
}

// primary returns the group that Active Directory keeps as a number only: the domain's SID and that number are its SID.
func (r *groupRules) primary(c *directoryConn, entry *ldap.Entry) (string, error) {
	id, err := strconv.ParseUint(entry.GetEqualFoldAttributeValue("primaryGroupID"), 10, 32)
	sid := entry.GetEqualFoldRawAttributeValue("objectSid")
	if err != nil || len(sid) < 12 {
		return "", nil
	}
	sid = binary.LittleEndian.AppendUint32(slices.Clone(sid[:len(sid)-4]), uint32(id))
	var value strings.Builder
	for _, b := range sid {
		fmt.Fprintf(&value, `\%02x`, b)
	}
	found, err := r.search(c, "(objectSid="+value.String()+")")
	if err != nil || len(found) != 1 {
		return "", err
	}
	return found[0].DN, nil
}

// walk adds the groups that list the member, those that list them, and so on. A group that is known is not looked at
// again, so cycles end; what lies too deep does not count (security S059).
func (r *groupRules) walk(c *directoryConn, start member, m *memberships) error {
	next := slices.Clone(m.order) // normal DNs
	found, err := r.search(c, start.filter(false))
	if err != nil {
		return err
	}
	for _, e := range found {
		if m.add(e.DN, "", "member") {
			next = append(next, m.order[len(m.order)-1])
		}
	}
	for depth := 1; r.nested && depth < maxGroupDepth && len(next) > 0; depth++ {
		var after []string
		for part := range slices.Chunk(next, groupsAsked) {
			if err := m.bounded(); err != nil {
				return err
			}
			var who member
			for _, dn := range part {
				who.dns = append(who.dns, m.by[dn].text)
			}
			found, err := r.search(c, who.filter(false), "member", "uniqueMember")
			if err != nil {
				return err
			}
			for _, e := range found {
				if m.add(e.DN, between(e, part), "member") {
					after = append(after, m.order[len(m.order)-1])
				}
			}
		}
		next = after
	}
	return m.bounded()
}

// between returns which of these normal DNs a group lists.
func between(e *ldap.Entry, dns []string) string {
	if len(dns) == 1 {
		return dns[0]
	}
	for _, attribute := range []string{"member", "uniqueMember"} {
		for _, value := range e.GetEqualFoldAttributeValues(attribute) {
			if dn, err := NormalDN(value); err == nil && slices.Contains(dns, dn) {
				return dn
			}
		}
	}
	return dns[0] // a part of a very long list
}

// search looks for groups. A base that was guessed need not be there.
func (r *groupRules) search(c *directoryConn, filter string, attributes ...string) ([]*ldap.Entry, error) {
	if len(attributes) == 0 {
		attributes = []string{"1.1"}
	}
	result, err := c.search(r.base, ldap.ScopeWholeSubtree, maxGroups+1, filter, attributes...)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) && !r.given:
		return nil, nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded):
		return nil, &oddAnswer{inStep(stepGroups, fmt.Errorf("user is in more than %d groups, and no more are read", maxGroups))}
	case err != nil:
		return nil, inStep(stepGroups, fmt.Errorf("search below %q: %w", r.base, answered(err)))
	}
	return result.Entries, nil
}

// tell traces the groups, each with the way to it.
func (r *groupRules) tell(ctx context.Context, m *memberships) {
	if len(m.order) == 0 {
		trace(ctx, stepGroups, "none")
	}
	for _, dn := range m.order {
		way := m.path(dn)
		text := m.by[dn].text + " (" + m.by[dn].how + ")"
		if len(way) > 1 {
			text += ", through " + strings.Join(way[:len(way)-1], ", then ")
		}
		trace(ctx, stepGroups, "%s", text)
	}
	for _, g := range r.required {
		_, in := m.by[g.normal]
		trace(ctx, stepGroups, "required %s: %s", g.text, map[bool]string{true: "yes", false: "no"}[in])
	}
}

// What kind of directory a server is, as far as that matters.
const (
	kindUnknown = iota
	kindPlain
	kindActiveDirectory
)

// isActiveDirectory asks the server once what it is.
func (s *server) isActiveDirectory(c *directoryConn) (bool, error) {
	if kind := s.kind.Load(); kind != kindUnknown {
		return kind == kindActiveDirectory, nil
	}
	const capability = "1.2.840.113556.1.4.800"
	result, err := c.search("", ldap.ScopeBaseObject, 1, "(objectClass=*)", "supportedCapabilities")
	if _, odd := answered(err).(*oddAnswer); err != nil && !odd {
		return false, fmt.Errorf("ask what it is: %w", err)
	}
	kind := int32(kindPlain)
	if err == nil && len(result.Entries) == 1 && slices.Contains(result.Entries[0].GetEqualFoldAttributeValues("supportedCapabilities"), capability) {
		kind = kindActiveDirectory
	}
	s.kind.Store(kind)
	return kind == kindActiveDirectory, nil
}
