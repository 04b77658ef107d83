package auth

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// bindService binds as the service account; dn "" is nobody, and needs no bind.
func (c *directoryConn) bindService(ctx context.Context, dn, password string) error {
	if dn == "" {
		trace(ctx, stepService, "none is configured: the search is anonymous")
		return nil
	}
	if err := c.step(opBindResponse); err != nil {
		return inStep(stepService, err)
	}
	if err := c.ldap.Bind(dn, password); err != nil {
		return inStep(stepService, c.answers.explain(err))
	}
	trace(ctx, stepService, "bound as %s", dn)
	return nil
}

// bind binds as a user. The error is a *Denied when the directory has said no, and anything else when it has said
// nothing about the password: busy, unavailable, broken.
func (c *directoryConn) bind(ctx context.Context, as string, password []byte) error {
	if err := c.step(opBindResponse); err != nil {
		return inStep(stepBind, err)
	}
	// The library wants a string, so one copy of the password lives until it is collected.
	request := ldap.NewSimpleBindRequest(as, string(password), []ldap.Control{ldap.NewControlBeheraPasswordPolicy()})
	result, err := c.ldap.SimpleBind(request)
	if result == nil {
		result = &ldap.SimpleBindResult{}
	}
	if err := judgeBind(as, result.Controls, c.answers.explain(err)); err != nil {
		return err
	}
	trace(ctx, stepBind, "the directory takes the password of %s", as)
	return nil
}

// confirm makes sure that the directory means the entry when it has said yes to a bind as that name.
func (c *directoryConn) confirm(ctx context.Context, as string, entry *ldap.Entry) error {
	if err := c.step(opExtendedResponse); err != nil {
		return inStep(stepWhoAmI, err)
	}
	who, err := c.ldap.WhoAmI(nil)
	switch {
	case ldap.IsErrorAnyOf(err, notOffered...):
		// The bind was as a DN then, and has to be this entry's: what another name means, only the directory knows.
		bound, err := NormalDN(as)
		if own, _ := NormalDN(entry.DN); err == nil && own == bound {
			trace(ctx, stepWhoAmI, "not offered here")
			return nil
		}
		return &oddAnswer{inStep(stepWhoAmI, fmt.Errorf("the directory does not say whom it takes %q for, and the entry is %q", as, entry.DN))}
	case err != nil:
		return inStep(stepWhoAmI, answered(c.answers.explain(err)))
	case !isEntry(who.AuthzID, entry):
		// A yes that was not about this entry, as some directories give for what they take for anonymous.
		return &Denied{Reason: fmt.Sprintf("bound as %q for %q, the directory says it is %q", as, entry.DN, clip(who.AuthzID)), Public: PublicRefusal, Err: errOtherEntry}
	}
	trace(ctx, stepWhoAmI, "%s", clip(who.AuthzID))
	return nil
}

var (
	// errWrongPassword is inside the *Denied of a bind that was refused, and for no other reason than that.
	errWrongPassword = errors.New("wrong password")
	// errOtherEntry is inside the *Denied of a bind that meant somebody else.
	errOtherEntry = errors.New("bound as another")
	// errState is inside the *Denied of a bind that was refused for the state that the account is in.
	errState = errors.New("the account may not log in")
)

// notOffered is how directories without WhoAmI answer it, or those that do not let everyone ask.
var notOffered = []uint16{
	ldap.LDAPResultProtocolError, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultInsufficientAccessRights,
}

// refused is how directories answer the bind of an account that may not log in, besides invalid credentials:
// 389 Directory Server has two of its own for locked and for inactive accounts.
var refused = []uint16{
	ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultConstraintViolation,
	ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultInsufficientAccessRights,
}

// judgeBind turns the answer to a user's bind into a yes, a *Denied that says why, or another error.
func judgeBind(dn string, controls []ldap.Control, err error) error {
	policy := policyReason(controls)
	deny := func(reason string) error {
		cause := errState
		if reason == reasonWrongPassword {
			cause = errWrongPassword
		}
		return &Denied{Reason: fmt.Sprintf("%s: %q", reason, dn), Public: PublicRefusal, Err: cause}
	}
	var answer *ldap.Error
	switch {
	case err == nil && policy == "":
		return nil
	case err == nil:
		return deny(policy)
	case !errors.As(err, &answer) || !slices.Contains(refused, answer.ResultCode):
		return inStep(stepBind, answered(err))
	case policy != "":
		return deny(policy)
	case answer.ResultCode != ldap.LDAPResultInvalidCredentials:
		return deny(fmt.Sprintf("directory refuses the account (%s: %s)", ldap.LDAPResultCodeMap[answer.ResultCode], clip(answer.Err.Error())))
	}
	return deny(activeDirectoryReason(answer.Err.Error()))
}

// policyReason returns what password policy controls have against the login, "" when nothing.
func policyReason(controls []ldap.Control) string {
	for _, c := range controls {
		switch c := c.(type) {
		case *ldap.ControlBeheraPasswordPolicy:
			switch c.Error {
			case -1:
			case 0:
				return "password expired"
			case 1:
				return "account locked"
			case 2:
				return "password must be changed first"
			default:
				return fmt.Sprintf("password policy error %d", c.Error)
			}
		case *ldap.ControlVChuPasswordMustChange:
			return "password must be changed first"
		}
	}
	return ""
}

var activeDirectoryCode = regexp.MustCompile(`\bdata ([0-9a-fA-F]{3,8})\b`)

// activeDirectoryReason returns why invalid credentials are invalid. Active Directory says so in its message only:
// "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 533, v3839".
func activeDirectoryReason(message string) string {
	m := activeDirectoryCode.FindStringSubmatch(message)
	if m == nil {
		return reasonWrongPassword
	}
	switch m[1] {
	case "525":
		return "account not found"
	case "530":
		return "not allowed to log in at this hour"
	case "531":
		return "not allowed to log in from this machine"
	case "532":
		return "password expired"
	case "533":
		return "account disabled"
	case "701":
		return "account expired"
	case "773":
		return "password must be changed first"
	case "775":
		return "account locked"
	}
	return reasonWrongPassword
}

const reasonWrongPassword = "wrong password"

// clip bounds what a directory says before it goes into a log line.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
