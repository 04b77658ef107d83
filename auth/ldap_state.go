package auth

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// stateAttributes say of an account that it may not log in, each in the words of some directory.
var stateAttributes = []string{
	"userAccountControl", "msDS-User-Account-Control-Computed", "accountExpires", // Active Directory
	"nsAccountLock", "krbPrincipalExpiration", // 389 Directory Server and FreeIPA
	"pwdAccountLockedTime", "pwdEndTime", // the password policy of OpenLDAP
	"shadowExpire",
}

// A state is what an entry says of its account.
type state struct {
	reason  string // why it may not log in; "" when it may
	passing bool   // that ends by itself
}

// accountState reads what an entry says of itself where a bind would have told. Whether a password has expired or must
// be changed, only the bind tells.
func accountState(entry *ldap.Entry, now time.Time) state {
	const accountDisable, lockedOut = 0x2, 0x10
	number := func(attribute string) (int64, bool) {
		n, err := strconv.ParseInt(entry.GetEqualFoldAttributeValue(attribute), 10, 64)
		return n, err == nil
	}
	past := func(attribute string) bool {
		at, err := generalizedTime(entry.GetEqualFoldAttributeValue(attribute))
		return err == nil && !at.After(now)
	}
	control, _ := number("userAccountControl")
	computed, _ := number("msDS-User-Account-Control-Computed")
	switch {
	case control&accountDisable != 0:
		return state{reason: "account disabled"}
	case control&lockedOut != 0:
		return state{reason: "account locked"}
	case strings.EqualFold(entry.GetEqualFoldAttributeValue("nsAccountLock"), "true"):
		return state{reason: "account inactivated"}
	case entry.GetEqualFoldAttributeValue("pwdAccountLockedTime") == "000001010000Z":
		return state{reason: "account locked"} // any other time is when a lock began that may be over by now
	case past("krbPrincipalExpiration"), past("pwdEndTime"):
		return state{reason: "account expired"}
	}
	if n, ok := number("accountExpires"); ok && n > 0 && !fileTime(n).After(now) {
		return state{reason: "account expired"}
	}
	if days, ok := number("shadowExpire"); ok && days > 0 && now.Unix()/86400 >= days {
		return state{reason: "account expired"}
	}
	if computed&lockedOut != 0 {
		return state{reason: "account locked", passing: true}
	}
	return state{}
}

// fileTime is a time in Active Directory: in units of 100 ns since 1601. Its largest values are "never".
func fileTime(n int64) time.Time {
	const unix = 116444736000000000 // 1970 in it
	return time.Unix((n-unix)/1e7, 0)
}

// generalizedTime reads the form 20260102030405Z, with or without a fraction.
func generalizedTime(s string) (time.Time, error) {
	return time.Parse("20060102150405Z0700", s)
}
