package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/go-ldap/ldap/v3"
)

// Test goes through a login and tells each step that went well. Without a password it ends before the bind as the user.
// The error says what a login would have said; Explain says what to do about it.
func (l *LDAP) Test(ctx context.Context, name string, password []byte, tell func(LDAPStep)) (*Identity, error) {
	name, err := CanonicalName(name)
	if err != nil {
		return nil, &Denied{Reason: err.Error(), Public: PublicRefusal}
	}
	if err := l.holds(name); err != nil {
		return nil, err
	}
	told := func(url string) func(step, detail string) {
		return func(step, detail string) { tell(LDAPStep{url, step, detail}) }
	}
	return consult(withTrace(ctx, told("")), l, func(ctx context.Context, s *server) (id *Identity, tried bool, err error) {
		ctx = withTrace(ctx, told(s.url))
		switch {
		case password == nil && l.bindAs != nil && l.o.BindDN == "":
			return nil, false, errNoService
		case password == nil:
			err = l.withService(ctx, s, func(c *directoryConn) error {
				_, id, err = l.judge(ctx, s, c, name)
				return err
			})
			return id, false, err
		case l.bindAs != nil && l.o.BindDN == "":
			return l.bindFirst(ctx, s, name, password)
		}
		return l.ask(ctx, s, name, password)
	})
}

// An Advice is what an LDAP login can fail with, and what to do about it. docs/ldap.md has a line for each.
type Advice struct {
	Problem string
	Remedy  string
	is      func(err error, step string) bool
}

// Explain returns the advice for an error of Test, or of any login that asks a directory.
func Explain(err error) Advice {
	step := ""
	var at *stepError
	if errors.As(err, &at) {
		step = at.step
	}
	for _, a := range LDAPAdvice {
		if a.is(err, step) {
			return a
		}
	}
	return LDAPAdvice[len(LDAPAdvice)-1]
}

func deniedFor(cause error) func(error, string) bool {
	return func(err error, _ string) bool { return isDenied(err) && errors.Is(err, cause) }
}

func deniedAs(text string) func(error, string) bool {
	return func(err error, _ string) bool {
		var d *Denied
		return errors.As(err, &d) && strings.HasPrefix(d.Reason, text)
	}
}

func atStep(step string, also func(error) bool) func(error, string) bool {
	return func(err error, at string) bool { return at == step && (also == nil || also(err)) }
}

func resultCode(codes ...uint16) func(error) bool {
	return func(err error) bool {
		var result *ldap.Error
		if !errors.As(err, &result) {
			return false
		}
		for _, c := range codes {
			if result.ResultCode == c {
				return true
			}
		}
		return false
	}
}

// anyResult reports whether the directory has answered, whatever it was.
func anyResult(err error) bool {
	var result *ldap.Error
	return errors.As(err, &result) && result.ResultCode < ldap.ErrorNetwork
}

func isA[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout() || strings.Contains(err.Error(), "i/o timeout")
}

// certificateRefused reports whether the server has refused our certificate, or that there is none: in the handshake up to
// TLS 1.2, where OpenSSL calls the latter a handshake failure, and at the first thing said behind it since.
func certificateRefused(err error) bool {
	var alert *net.OpError
	if !errors.As(err, &alert) || alert.Op != "remote error" {
		return false
	}
	text := alert.Error()
	return strings.Contains(text, "certificate") || strings.Contains(text, "access denied") || strings.Contains(text, "handshake failure")
}

// noVersion reports whether it is the versions of TLS in which we and the server do not agree.
func noVersion(err error) bool {
	return strings.Contains(err.Error(), "protocol version not supported") || strings.Contains(err.Error(), "unsupported protocol version")
}

func certificateExpired(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// LDAPAdvice is everything Explain may say; the last one is for what fits nowhere else.
var LDAPAdvice = []Advice{
	{"the name of the server cannot be resolved", "Correct the host in `ldap-url`, or the domain in `ldap-domain`; see what `getent hosts NAME` says on this machine.",
		atStep(stepResolve, nil)},
	{"the name of the server cannot be resolved", "Correct the host in `ldap-url`, or the domain in `ldap-domain`; see what `getent hosts NAME` says on this machine.",
		atStep(stepConnect, isA[*net.DNSError])},
	{"the server refuses the connection", "Nothing listens at that port: see whether the directory runs, and whether `ldap-url` names its port (389 for ldap, 636 for ldaps).",
		atStep(stepConnect, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) })},
	{"the server cannot be reached in time", "A firewall or a missing route: let this machine reach the port in `ldap-url` by TCP.",
		atStep(stepConnect, nil)},
	{"the server does not take StartTLS", "Set up a certificate in the directory, or write `ldap-url ldaps://HOST` and remove `ldap-starttls`.",
		atStep(stepStartTLS, func(err error) bool { return !timedOut(err) })},
	{"the CA of the server's certificate is not known", "Name the file with that CA's certificate in `ldap-tls-ca`; without the line it is the system's CAs that count.",
		atStep(stepTLS, isA[x509.UnknownAuthorityError])},
	{"the server's certificate is for another name", "Write the name that is in the certificate into `ldap-url`, or issue a certificate with this name in it.",
		atStep(stepTLS, isA[x509.HostnameError])},
	{"the server's certificate has expired", "Renew it; if it looks good, see whether this machine's clock is right.",
		atStep(stepTLS, certificateExpired)},
	{"the server's certificate is not meant for servers", "Issue one with the extended key usage serverAuth.",
		atStep(stepTLS, isA[x509.CertificateInvalidError])},
	{"the server does not speak TLS at this port", "ldaps:// is usually port 636. For port 389 write ldap:// and `ldap-starttls`.",
		atStep(stepTLS, func(err error) bool {
			return isA[tls.RecordHeaderError](err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
		})},
	{"the server has no TLS 1.2", "Switch on TLS 1.2 or newer in the directory: older ones are not spoken.",
		atStep(stepTLS, noVersion)},
	{"the server wants another certificate of ours", "Name one that the directory accepts in `ldap-tls-cert` and `ldap-tls-key`.",
		func(err error, _ string) bool { return certificateRefused(err) }},
	{"TLS cannot be set up in time", "The server accepts connections and does not answer: it is overloaded, or something in between swallows the packets.",
		func(err error, at string) bool { return (at == stepTLS || at == stepStartTLS) && timedOut(err) }},
	{"TLS cannot be set up", "See what the directory's log says about this connection.",
		atStep(stepTLS, nil)},
	{"the directory is busy or not available", "It says so itself: see what its log says, and try again.",
		func(err error, _ string) bool {
			return resultCode(ldap.LDAPResultBusy, ldap.LDAPResultUnavailable)(err)
		}},
	{"the service account's name or password is wrong", "Correct `ldap-bind-dn` and the file of `ldap-bind-password-file`; see whether the account is locked or its password has expired.",
		atStep(stepService, resultCode(ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax))},
	{"the directory wants encryption before a password", "Write ldaps:// in `ldap-url`, or add `ldap-starttls`.",
		func(err error, _ string) bool {
			return resultCode(ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultStrongAuthRequired)(err)
		}},
	{"the directory does not let the service account in", "See what the directory's log says about it; anonymous searches may be switched off (then set `ldap-bind-dn`).",
		atStep(stepService, anyResult)},
	{"the base of the search does not exist", "Correct `ldap-user-base`; the service account must also be allowed to see it.",
		atStep(stepSearch, resultCode(ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax))},
	{"the search is not allowed", "Give the service account the right to search and read below `ldap-user-base`; without `ldap-bind-dn` the search is anonymous, which many directories refuse.",
		atStep(stepSearch, resultCode(ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultOperationsError, ldap.LDAPResultInappropriateAuthentication))},
	{"the directory refers to another server", "Referrals are never followed: write that server into `ldap-url`, or a base that this one holds into `ldap-user-base`.",
		func(err error, _ string) bool { return resultCode(ldap.LDAPResultReferral)(err) }},
	{"the name is of none of the directories", "Every `ldap-realm` takes the names that end with it, as alice@partner.example: write the name so, or put a directory for all other names above the first `ldap-realm`.",
		deniedFor(errRealm)},
	{"no entry has this name", "Try the filter above with ldapsearch; correct `ldap-user-filter` and `ldap-user-base`. In Active Directory the filter is usually (sAMAccountName=%u).",
		deniedFor(ErrUnknownUser)},
	{"several entries have this name", "Narrow `ldap-user-base`, or add a condition to `ldap-user-filter`: nobody logs in by a name that two have.",
		deniedFor(errAmbiguous)},
	{"the user is in none of the required groups", "Add the user to one of the groups of `ldap-require-group`. If the user is in it: the DN must be the group's whole name; see the groups above, `ldap-group-base` and `ldap-nested-groups`.",
		deniedFor(errNoGroup)},
	{"the user is in too many groups", "More than 1,000 groups are not read: narrow `ldap-group-base`, or write `ldap-nested-groups no`.",
		atStep(stepGroups, func(err error) bool { return strings.Contains(err.Error(), "more than") })},
	{"groups cannot be searched", "Give the service account the right to search below `ldap-group-base`, and correct that base.",
		atStep(stepGroups, nil)},
	{"an attribute of the entry cannot be used", "Correct the attribute in the directory; `ldap-address-attribute` and `ldap-route-attribute` say which are read.",
		deniedFor(errAttribute)},
	{"the account is disabled", "Enable it in the directory, if the user is to come in.",
		func(err error, _ string) bool {
			return deniedAs("account disabled")(err, "") || deniedAs("account inactivated")(err, "")
		}},
	{"the account is locked", "Unlock it in the directory. If wrong passwords keep locking it, lower `ldap-max-failures` below the directory's own limit.",
		deniedAs("account locked")},
	{"the account has expired", "Move its end in the directory, if the user is to come in.",
		deniedAs("account expired")},
	{"the password has expired", "The user must set another one: by webmail, at a workstation, or with the helpdesk. Nobody can do so over this VPN before being let in.",
		deniedAs("password expired")},
	{"the password must be changed first", "The user must set another one before logging in here, as after a reset by the helpdesk.",
		deniedAs("password must be changed")},
	{"the account may not log in now", "The directory limits hours or machines for this account: allow this server, or this time.",
		deniedAs("not allowed to log in")},
	{"the password is wrong", "Type it again. If it is right for sure, the entry above is not the one you think of.",
		deniedFor(errWrongPassword)},
	{"the directory refuses the account", "See the answer in full, and the password policy of the directory.",
		deniedFor(errState)},
	{"the directory means somebody else", "The bind was taken for another entry than the one that was found: correct `ldap-bind-as`, or remove it.",
		deniedFor(errOtherEntry)},
	{"the directory does not say who is bound", "It has no WhoAmI, so `ldap-bind-as` cannot be trusted there: give it a DN, or use `ldap-bind-dn`.",
		atStep(stepWhoAmI, isA[*oddAnswer])},
	{"a password is needed to find this user", "Without `ldap-bind-dn` users are found by themselves only: give a password, or set up a service account.",
		func(err error, _ string) bool { return errors.Is(err, errNoService) }},
	{"the name does not fit", "User names have letters, digits and few signs, and with `ldap-bind-as` no @ or \\ of their own.",
		func(err error, _ string) bool { return isDenied(err) }},
	{"the directory does not answer in time", "It is overloaded, or searches without an index: index the attributes of `ldap-user-filter`, member, uniqueMember and memberUid. `ldap-timeout` is how long a step may take.",
		func(err error, _ string) bool {
			return timedOut(err) || resultCode(ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultAdminLimitExceeded)(err)
		}},
	{"the directory refuses a question", "See the answer in full, and what the directory's log says about it.",
		func(err error, _ string) bool { return anyResult(err) }},
	{"the directory answers what cannot be understood", "See whether it is an LDAP server at that port (at 636 usually one for ldaps://), and what its log says.",
		func(err error, _ string) bool { return true }},
}
