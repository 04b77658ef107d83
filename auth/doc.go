// Package auth decides whether a login is good: local users, LDAP, second factors, tokens, and combinations of them.
//
// Everything is an Authenticator around others. Those further out see more of a login, those further in may cost more:
//
//	Tokens.Login            a token in place of the password ends here: nobody below is asked
//	 └ ByToken              unless that is not enough by itself: then who knows its user is
//	  └ Answers             takes what is inside a password apart: SCRV1, CRV1
//	    └ TOTP.Require      password and code, neither of which tells about the other
//	       └ MatchCertificate   the login is the certificate's
//	          └ Throttle.Limit     so many guesses
//	             └ All                everybody who has a say:
//	                └ FileFirst          the user file,
//	                │  └ Throttle.Spare     or, within what locks no account there,
//	                │     └ Realms             the directory that has the name
//	                └ Scripted           the administrator's script
//
// A certificate may do where the directory says so: CertificateAlone asks Realms about its name, for everything but a
// password. Whoever is in is looked at now and then by a Watcher, which Realms are, too.
//
// # Directories
//
//	Realms ── LDAP ── serverList ── server ── directoryConn
//	          │       configured,   well, failed,   of one goroutine; what comes in is checked
//	          │       or from DNS   or being tried  before the LDAP library sees it
//	          ├ idlePool      connections of the service account, and of nobody else
//	          ├ groupRules    which groups an entry is in: memberships, with the way to each
//	          └ census        what the last look at those who are connected has found
//
// A login finds the entry, its groups and the state of its account (judge), binds as it on a connection of its own
// (bind), and makes sure that the directory means the same entry (confirm). Each step is told to whoever traces it:
// Test walks through them for an administrator, and Explain says what to do about the one that failed.
//
// # Second factors
//
// A user proves more than a password in one of four ways, of which the first two need no question:
//
//	code in the password      secret123456                  split by TOTP.Require
//	static challenge          SCRV1:cGFzcw==:MTIzNDU2       the client has asked: Request.Response
//	in the session            AUTH_PENDING; INFO_PRE,CR_TEXT:R,E:text;  CR_RESPONSE,MTIzNDU2
//	dynamic challenge         AUTH_FAILED,CRV1:...;  a new session with the password CRV1::state::123456
//
// For the other two Authenticate is called twice. At first it returns a *Challenge, whoever the user is and whatever
// the password was (security S045), and remembers what it has found out under Challenge.State. The server picks what
// the client knows out of Request.Can, asks, and comes back with an answer:
//
//	                       Authenticate{Username, Password, Can}
//	                                    │
//	    ┌────────────────┬──────────────┴──┬─────────────────────────┐
//	*Identity         *Denied          *Challenge                other error
//	come in         AUTH_FAILED            │                   AUTH_FAILED,TEMP
//	                          CR_TEXT ─────┴───── CRV1
//	                             │                  │
//	           the session asks and waits;     the session ends with AUTH_FAILED,CRV1;
//	           the server sets r.State and     the client's next one brings the answer as
//	           r.Response                      its password, and Answers sets the same
//	                             │                  │
//	                       Authenticate{Username, State, Response}
//
// A state is good once, for Challenge.Within, and for the user and certificate that it was given to. A challenge with
// a URL, or with nothing but the wish that the client waits, has no Response: the second Authenticate waits until the
// user has been there, or ctx ends, which is after Challenge.Within.
//
// A text within the session has to be answered in the time that any login has: a login is only to be prolonged for a
// right password (security S010), and doing so for that one alone would tell. The others do prolong it, and so come
// behind a password that is right, and tell that it is.
package auth
