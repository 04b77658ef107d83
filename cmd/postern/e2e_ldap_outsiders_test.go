package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/auth"
	"postern/auth/slapdtest"
	"postern/cmd/lab"
)

// Who is outside the group is refused by every path a stock client has: a password, a password and a code, and a token that
// it got while it was in (L11; TestE2ELDAPCertificateAlone has the certificate alone).
func TestE2ELDAPOutsiders(t *testing.T) {
	f := newField(t, "alice", "carol")
	d, ldap := f.directory("ldaps")
	totp := filepath.Join(f.Dir, "totp")
	inCode, err := auth.AddTOTP(totp, "alice")
	f.must(err)
	// Nobody looks at those who are connected: it is the token that is to be refused.
	srv := f.serve(append(ldap, "ldap-refresh 0", "auth-gen-token", "auth-totp-file "+totp, "auth-totp-used "+filepath.Join(f.Dir, "used"), "auth-totp optional")...)
	refused := func(n int) {
		t.Helper()
		f.must(srv.Expect("in no required group", n, 20*time.Second))
	}
	outside := func(password string, n int) {
		t.Helper()
		v := f.dial("carol", f.credentials("carol-login", "carol", password))
		f.must(v.Expect("AUTH_FAILED,"+auth.PublicRefusal, 1, 20*time.Second))
		f.must(ended(v.Wait(10 * time.Second)))
		refused(n)
	}
	outside("carol-secret", 1)
	outCode, err := auth.AddTOTP(totp, "carol")
	f.must(err)
	outside("carol-secret"+outCode.Code(time.Now()), 2)

	a := f.connect("alice", f.credentials("alice-login", "alice", "alice-secret"+inCode.Code(time.Now())))
	a.ping(lab.Lan4, 3, 56)
	f.must(a.Signal(syscall.SIGUSR1))
	a.up(2) // by the token: the code is spent
	f.must(d.Modify(fmt.Sprintf("dn: %s\nchangetype: modify\ndelete: member\nmember: uid=alice,%s\n", slapdtest.UsersGroup, slapdtest.UserBase)))
	f.must(a.Signal(syscall.SIGUSR1))
	f.must(a.Expect("AUTH_FAILED", 1, 20*time.Second))
	refused(3)
	if n := strings.Count(a.Output(), completed); n != 2 {
		t.Errorf("alice came in %d times, want twice", n)
	}
}
