package auth

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// VouchFirst asks the user file about the names it holds, and next about every other, as FileFirst does.
func VouchFirst(file *File, next Voucher) Voucher { return vouchFirst{file, next} }

type vouchFirst struct {
	file *File
	next Voucher
}

func (v vouchFirst) Vouch(ctx context.Context, name string) (*Identity, error) {
	if v.file.Holds(name) {
		return v.file.Vouch(ctx, name)
	}
	return v.next.Vouch(ctx, name)
}

// Vouch says yes to the users in the file.
func (f *File) Vouch(_ context.Context, name string) (*Identity, error) {
	if !f.Holds(name) {
		return nil, &Denied{Reason: "not in the user file", Public: PublicRefusal, Err: ErrUnknownUser}
	}
	return &Identity{Name: name, By: "file"}, nil
}

// Epoch is for TokenOptions: another password ends the tokens that were got with the old one, and so does the end of
// the user. Users of other back ends have none here.
func (f *File) Epoch(name string) string {
	f.refresh()
	f.mu.Lock()
	defer f.mu.Unlock()
	if hash := f.users[name]; hash != nil {
		return hash.String()
	}
	return ""
}

// Vouch looks for the user's entry and groups as a login does, and for what says that the entry is disabled; it binds
// with no password but the service account's.
func (l *LDAP) Vouch(ctx context.Context, name string) (*Identity, error) {
	name, err := CanonicalName(name)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	return l.consult(ctx, func(ctx context.Context, s *server) (*Identity, bool, error) {
		entry, groups, err := l.lookup(ctx, s, name)
		if err != nil {
			return nil, false, err
		}
		if reason := disabled(entry); reason != "" {
			return nil, false, &Denied{Reason: fmt.Sprintf("%s: %q", reason, entry.DN), Public: PublicRefusal}
		}
		return &Identity{Name: name, Groups: groups, By: "ldap"}, false, nil
	})
}

// disabled returns how an entry says of itself that it is, where a bind would have told: in Active Directory,
// 389 Directory Server, and servers with the password policy of OpenLDAP. "" when it does not.
func disabled(entry *ldap.Entry) string {
	const accountDisable, lockedOut = 0x2, 0x10
	if control, err := strconv.ParseInt(entry.GetEqualFoldAttributeValue("userAccountControl"), 10, 64); err == nil {
		switch {
		case control&accountDisable != 0:
			return "account disabled"
		case control&lockedOut != 0:
			return "account locked"
		}
	}
	if strings.EqualFold(entry.GetEqualFoldAttributeValue("nsAccountLock"), "true") {
		return "account inactivated"
	}
	// Any other time is when a lock began that may be over by now; only this one is for good.
	if entry.GetEqualFoldAttributeValue("pwdAccountLockedTime") == "000001010000Z" {
		return "account locked"
	}
	return ""
}
