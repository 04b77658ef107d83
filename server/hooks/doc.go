// Package hooks runs the scripts that an administrator names in the configuration: up and down, tls-verify,
// auth-user-pass-verify, client-connect and the rest. It knows what a script is told (arguments, environment, files),
// what its answer means, and how to end one that does not end by itself. It knows nothing of TLS, logins, devices or
// the configuration language: the server hands it facts and acts on the answers.
//
//	session's goroutine                    Runner                               the script
//	---------------------------------      ---------------------------------    ------------------------
//	s := runner.Session()
//	s.TLSVerify(ctx, info)            -->  wait for the session's turn
//	                                       wait for one of 16 places       -->  own process group, no shell
//	                                       wait: ended | limit | ctx       <--  exit status, files
//	s.AuthUserPassVerify(ctx, ...)    -->  the same                        <--  exit status 2: later
//	login.Wait(ctx)                   -->  look at auth_control_file       <--  "1" or "0", by whoever
//	s.ClientConnect(ctx, info)        -->  the same                        <--  lines for this client
//	s.LearnAddress, ClientDisconnect
//	s.Close()                         -->  what is left of its files goes
//
// Every call blocks the caller and nobody else. No lock is held while a script runs but the session's turn: scripts
// of one session run one after the other in the order of the calls, those of different sessions side by side. A login
// that waits for its control file holds neither the turn nor a place.
//
// # What a script gets
//
// There is no shell and no search in PATH: the command comes as words, the arguments that belong to the hook are
// appended, and that is executed in the directory that the server was told to work in. The environment is what the hook defines and
// what the configuration sets with setenv, and nothing of the server's own: not even PATH. Names come from a fixed
// list or carry a fixed prefix (X509_n_, IV_, UV_), so no client can set LD_PRELOAD. Control bytes in values become
// '_'. Standard input is empty, standard output and error go to the log, and there is no other descriptor.
//
// # How long a script may take
//
// The security table has 5 s for every hook (S090). OpenVPN has no limit, and scripts that ask a directory or a
// second factor's service do take longer, so a limit of 5 s would turn away people whom the old server let in. The
// default is 5 s for what runs before anybody has logged in and for what is called for every address (tls-verify,
// tls-crypt-v2-verify, learn-address), 30 s for logins and for the start and end of a session (half of hand-window,
// so that the client still hears the answer), and 60 s for up, down and route-up, which run when nobody is connected.
// Options.Limit replaces all of them. At the limit, or when the caller's context ends, the script's process group is
// killed. What a script leaves in the background when it ends by itself goes on: that is how a deferred login is
// written.
//
// Of the 16 places, at most 12 are for those who have not logged in yet, so that logins that hang do not hold up
// learn-address and client-disconnect of the others.
package hooks
