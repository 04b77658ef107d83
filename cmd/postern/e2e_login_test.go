package main

import (
	"bufio"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/auth"
	"postern/cmd/lab"
)

// newKey is what a client says when it has another data key.
const newKey = "Incoming Data Channel: Cipher"

// A stock client that forgets its password (auth-nocache) goes on with its token: over renegotiations while the
// directory is away (S062), back to the server while it is away, and in again once it can be asked about the user.
func TestE2ETokenDirectoryAway(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	d, ldap := f.directory("ldaps")
	srv := f.serve(append(ldap, "auth-gen-token 0 60", "reneg-sec 8", "hand-window 5")...)
	v := f.connect("alice", f.credentials("login", "alice", "alice-secret"), "auth-nocache", "reneg-sec 0",
		"connect-retry 1 2", fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4))
	d.Stop()
	f.must(v.Expect(newKey, 3, 40*time.Second))
	v.ping(lab.Lan4, 3, 56)
	if n := strings.Count(v.Output(), completed); n != 1 {
		t.Errorf("the client connected %d times before it was told to", n)
	}
	f.must(v.Signal(syscall.SIGUSR1))
	f.must(v.Expect("AUTH_FAILED,TEMP", 1, 20*time.Second))
	f.must(d.Restart())
	f.must(v.Expect(completed, 2, 90*time.Second)) // a dead server is left alone for 30 s (S061)
	f.must(srv.Expect("by=token+ldap", 1, time.Second))
	v.ping(lab.Lan4, 3, 56)
}

// A token outlives the server where its key is in a file; is over when its time is, or the password another, whereupon the
// client comes in with the password by itself; and a user who is removed is out with it (S049).
func TestE2EToken(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	users, key := filepath.Join(f.Dir, "users"), filepath.Join(f.Dir, "token.key")
	f.posternInput("alice-secret\n", "user", "add", "--file", users, "alice")
	f.postern("key", "auth-token", "--out", key)
	conf := f.serverConf("auth-users-file "+users, "auth-gen-token 25 10", "auth-gen-token-secret "+key, "reneg-sec 8", "hand-window 5", "keepalive 1 4")
	srv := f.serveConf(conf)
	v := f.connect("alice", f.credentials("login", "alice", "alice-secret"), "auth-retry nointeract", "reneg-sec 0",
		"connect-retry 1 1", fmt.Sprintf("remote %v 1194 udp", f.Host("router").Wan4))
	f.must(srv.Expect("by=file", 1, time.Second))
	srv.Kill()
	srv = f.serveConf(conf)
	v.up(2)
	f.must(srv.Expect("by=token+file", 1, time.Second))

	f.must(v.Expect("AUTH_FAILED,SESSION: token expired", 1, 45*time.Second))
	v.up(3)
	f.must(srv.Expect("by=file", 1, time.Second))
	v.ping(lab.Lan4, 3, 56)

	// Set anew, the password is the same, but what was got by the old one is over.
	f.posternInput("alice-secret\n", "user", "passwd", "--file", users, "alice")
	f.must(v.Expect("AUTH_FAILED,SESSION: token expired", 2, 20*time.Second))
	v.up(4)
	f.postern("user", "del", "--file", users, "alice")
	f.must(v.Expect("AUTH_FAILED,"+auth.PublicRefusal, 2, 20*time.Second)) // in the session, and from the next
}

// enrol gives a user a secret by the command, as printed for an authenticator app.
func (f *field) enrol(file, name string) auth.TOTPSecret {
	f.t.Helper()
	out := f.postern("user", "totp", "--file", file, name)
	found := regexp.MustCompile(`otpauth://totp/\S*secret=([A-Z2-7]+)`).FindStringSubmatch(out)
	if found == nil {
		f.t.Fatalf("no URL in %q", out)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(found[1])
	f.must(err)
	return secret
}

// A dialogue is a user interface: what answers the questions of a client over its management interface.
type dialogue struct {
	*vpn
	conn  net.Conn
	lines *bufio.Scanner
}

// talk starts a client that asks its user interface.
func (f *field) talk(name, profile string, args ...string) *dialogue {
	f.t.Helper()
	socket := filepath.Join(f.Dir, name+"-ui.sock")
	os.Remove(socket)
	d := &dialogue{vpn: f.dialProfile(name, profile, append(args, "--management", socket, "unix", "--management-query-passwords")...)}
	f.must(lab.Until(10*time.Second, func() (err error) { d.conn, err = net.Dial("unix", socket); return err }))
	f.t.Cleanup(func() { d.conn.Close() })
	d.lines = bufio.NewScanner(d.conn)
	return d
}

// await returns what follows a prefix.
func (d *dialogue) await(prefix string) string {
	d.f.t.Helper()
	d.f.must(d.conn.SetReadDeadline(time.Now().Add(30 * time.Second)))
	for d.lines.Scan() {
		if rest, ok := strings.CutPrefix(d.lines.Text(), prefix); ok {
			return rest
		}
	}
	d.f.t.Fatalf("the client never said %q: %v", prefix, d.lines.Err())
	return ""
}

func (d *dialogue) say(format string, a ...any) {
	d.f.t.Helper()
	_, err := fmt.Fprintf(d.conn, format+"\n", a...)
	d.f.must(err)
}

// login answers the question for name and password, and returns what else it asked for.
func (d *dialogue) login(name, password string) (asked string) {
	d.f.t.Helper()
	asked = d.await(">PASSWORD:Need 'Auth' username/password")
	d.say("username \"Auth\" %q", name)
	d.say("password \"Auth\" %q", password)
	return asked
}

// Users of the directory and of the file come in with a code: asked for beside the password by a profile of ours, behind
// the password, by a dynamic challenge, and within the session. A code is good once, also for a server that was started
// again.
func TestE2ECodes(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob", "dora", "erin")
	_, ldap := f.directory("ldaps")
	users, secrets := filepath.Join(f.Dir, "users"), filepath.Join(f.Dir, "totp-secrets")
	for _, name := range []string{"dora", "erin"} {
		f.posternInput(name+"-secret\n", "user", "add", "--file", users, name)
	}
	code := make(map[string]func() string)
	for _, name := range []string{"alice", "bob", "dora", "erin"} {
		secret := f.enrol(secrets, name)
		code[name] = func() string { return secret.Code(time.Now()) }
	}
	conf := f.serverConf(append(ldap, "auth-users-file "+users, "auth-totp-file "+secrets, "auth-totp-text \"Code from the app\"",
		"auth-totp-used "+filepath.Join(f.Dir, "used"), "auth-gen-token", "remote-cert-tls client")...)
	srv := f.serveConf(conf)
	b64 := base64.StdEncoding.EncodeToString

	// A profile of ours, with a code beside the password.
	profile := filepath.Join(f.Dir, "alice.ovpn")
	f.postern("profile", "alice", "--config", conf, "--pki", f.pki, "--out", profile, "--endpoint", f.Host("router").Wan4.String())
	alice := f.talk("alice", profile)
	if asked := alice.login("alice", "SCRV1:"+b64([]byte("alice-secret"))+":"+b64([]byte(code["alice"]()))); asked != " SC:1,Code from the app" {
		t.Errorf("alice is asked %q", asked)
	}
	alice.up(1)
	f.must(srv.Expect("by=ldap+totp", 1, time.Second))
	alice.ping(lab.Lan4, 3, 56)

	// Behind the password, in one field.
	once := "bob-secret" + code["bob"]()
	bob := f.connect("bob", f.credentials("bob-login", "bob", once))
	bob.ping(lab.Lan4, 3, 56)
	bob.stop()

	// The same again: from the server that has seen it, and from its successor.
	refused := func() {
		t.Helper()
		v := f.dial("bob", f.credentials("bob-login", "bob", once))
		f.must(v.Expect("AUTH_FAILED,"+auth.PublicRefusal, 1, 20*time.Second))
		f.must(ended(v.Wait(10 * time.Second)))
	}
	refused()
	f.must(srv.Signal(syscall.SIGHUP))
	f.must(srv.Expect("reloaded", 1, 10*time.Second))
	refused()
	alice.say("signal SIGTERM")
	srv.Kill()
	srv = f.serveConf(conf)
	refused()

	// A dynamic challenge: the client comes again with the answer.
	dora := f.talk("dora", f.clientConf("dora", "auth-user-pass", "auth-retry interact"))
	dora.login("dora", "dora-secret")
	question := dora.await(">PASSWORD:Verification Failed: 'Auth' ['")
	challenge, err := auth.ParseCRV1(strings.TrimSuffix(question, "']"))
	f.must(err)
	if challenge.Text != "Code from the app" || challenge.Username != "dora" {
		t.Errorf("dora is asked %+v", challenge)
	}
	dora.login("dora", string(auth.FormatReply(challenge.State, []byte(code["dora"]()))))
	dora.up(1)
	f.must(srv.Expect("by=file+totp", 1, time.Second))
	dora.ping(lab.Lan4, 3, 56)

	// Within the session.
	erin := f.talk("erin", f.clientConf("erin", "auth-user-pass", "setenv IV_SSO crtext"))
	erin.login("erin", "erin-secret")
	if asked := erin.await(">INFOMSG:"); asked != "CR_TEXT:R,E:Code from the app" {
		t.Errorf("erin is asked %q", asked)
	}
	erin.say("cr-response %s", b64([]byte(code["erin"]())))
	erin.up(1)
	erin.ping(lab.Lan4, 3, 56)
}

// A client without `auth-user-pass` comes in where a script lets it (auth-user-pass-optional), and one with a login
// beside it.
func TestE2ELoginOptional(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	script := filepath.Join(f.Dir, "judge")
	f.must(os.WriteFile(script, []byte("#!/bin/sh\n[ \"$common_name/$username\" = alice/ ] || [ \"$username\" = bob ]\n"), 0o755))
	srv := f.serve("auth-user-pass-optional", "script-security 2", "auth-user-pass-verify "+script+" via-file", "auth-gen-token")
	a := f.connect("alice")
	b := f.connect("bob", f.credentials("login", "bob", "bob-secret"))
	a.ping(lab.Lan4, 3, 56)
	b.ping(lab.Lan4, 3, 56)
	b.stop()
	c := f.dial("bob")
	f.must(c.Expect("AUTH_FAILED", 1, 20*time.Second))
	f.must(srv.Expect("by=script", 2, time.Second))
}

// With `external-auth` the script is asked at each renegotiation, hears what the token is worth and of which session it is,
// and its no ends the session.
func TestE2EExternalAuth(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	script, heard, no := filepath.Join(f.Dir, "judge"), filepath.Join(f.Dir, "heard"), filepath.Join(f.Dir, "no")
	f.must(os.WriteFile(script, []byte("#!/bin/sh\necho \"$session_state $session_id\" >>"+heard+"\n[ ! -e "+no+" ]\n"), 0o755))
	f.serve("script-security 2", "auth-user-pass-verify "+script+" via-file", "auth-gen-token 0 10 external-auth", "hand-window 5", "reneg-sec 6")
	v := f.connect("alice", f.credentials("login", "alice", "alice-secret"), "auth-nocache", "reneg-sec 0")
	f.must(v.Expect(newKey, 3, 30*time.Second))
	v.ping(lab.Lan4, 3, 56)
	f.must(os.WriteFile(no, nil, 0o600))
	f.must(v.Expect("AUTH_FAILED", 1, 15*time.Second))
	text, err := os.ReadFile(heard)
	f.must(err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 4 {
		t.Fatalf("the script was asked %d times:\n%s", len(lines), text)
	}
	state, session, _ := strings.Cut(lines[0], " ")
	if state != "Initial" || len(session) != 16 {
		t.Errorf("at first it heard %q", lines[0])
	}
	for _, line := range lines[1:4] {
		if line != "Authenticated "+session {
			t.Errorf("then it heard %q, want Authenticated and the same session %s", line, session)
		}
	}
}
