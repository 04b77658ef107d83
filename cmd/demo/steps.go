package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postern/auth/slapdtest"
	"postern/cmd/lab"
)

// patience is how long anything may take that usually takes a second or two.
const patience = 30 * time.Second

// transfer is how many bytes go each way.
const transfer = "50000000"

type step struct {
	title string
	do    func() error
}

func (d *demo) steps() []step {
	return []step{
		{"A network in namespaces of its own", d.makeNetwork},
		{"A directory: slapd, filled from testdata/ldap", d.startDirectory},
		{"A certificate authority, certificates and keys", d.makeKeys},
		{"The server's configuration", d.writeConfig},
		{"The gateway starts", d.startServer},
		{"A profile for alice", d.writeProfile},
		{"A wrong password is refused", d.refuse},
		{"The stock client logs in as alice", d.logIn},
		{"Who is connected", d.status},
		{"Ping through the tunnel", d.ping},
		{"A download and an upload through the tunnel", d.move},
		{"Everybody leaves", d.leave},
	}
}

func (d *demo) makeNetwork() (err error) {
	if d.net, err = lab.New(d.dir); err != nil {
		return err
	}
	if d.laptop, err = d.net.AddHost("laptop"); err != nil {
		return err
	}
	d.screen.say(`
   depot              router                      laptop
   %s         %s  %v      %v
   +-------+         +------------------+         +---------+
   | files |---------|  slapd, postern  |---wan---| openvpn |
   +-------+         +------------------+         +---------+

This host's own network is left alone.`, lab.Lan4, lab.RouterLan4, d.net.Host("router").Wan4, d.laptop.Wan4)
	files, err := d.net.Host("lan").Start("depot.log", d.depot, "serve", ":5001")
	if err != nil {
		return err
	}
	return files.Expect("depot serves", 1, patience)
}

func (d *demo) startDirectory() (err error) {
	router := d.net.Host("router")
	if d.directory, err = slapdtest.Start(slapdtest.Options{Netns: router.NS}); err != nil {
		return err
	}
	for name, text := range map[string]string{"directory-ca.pem": string(d.directory.CA), "bind-password": slapdtest.BindPassword} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	d.screen.say("It answers on %s. Who may use the VPN is in a group:", d.directory.URLTLS)
	search := []string{"ldapsearch", "-LLL", "-o", "ldif_wrap=no", "-x", "-H", d.directory.URLTLS, "-D", slapdtest.BindDN, "-w", slapdtest.BindPassword}
	for _, query := range [][]string{
		{"-b", slapdtest.UserBase, "(uid=alice)", "cn", "uid"},
		{"-b", slapdtest.UsersGroup, "(objectClass=*)", "member"},
	} {
		line := append(search, query...)
		d.screen.command(append([]string{"ldapsearch"}, query...)...)
		out, err := router.Run(d.ctx, append([]string{"env", "LDAPTLS_CACERT=" + d.directory.CAFile}, line...)...)
		if err != nil {
			return err
		}
		d.screen.lines(out)
	}
	return nil
}

// run shows a postern command and runs it to its end, in the demo's directory.
func (d *demo) run(args ...string) (string, error) {
	d.screen.command(append([]string{"postern"}, args...)...)
	cmd := exec.CommandContext(d.ctx, d.postern, args...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	d.screen.lines(string(out))
	if err != nil {
		return "", fmt.Errorf("postern %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

func (d *demo) makeKeys() error {
	for _, args := range [][]string{
		{"pki", "init", "--dir", "pki"},
		{"pki", "server", "--dir", "pki", "gateway"},
		{"pki", "client", "--dir", "pki", "alice"},
		{"pki", "list", "--dir", "pki"},
		{"key", "tls-crypt-v2-server", "--out", "tls-crypt-v2.key"},
	} {
		if _, err := d.run(args...); err != nil {
			return err
		}
	}
	return nil
}

// configuration is the server.conf, but for the addresses of the directory and of the gateway.
const configuration = `# OpenVPN's language ...
port 1194
proto udp
dev tun
topology subnet
server 10.8.0.0 255.255.255.0
push "route 172.29.7.0 255.255.255.0"
keepalive 10 60
ca pki/ca.crt
cert pki/issued/gateway.crt
key pki/private/gateway.key
dh none
crl-verify pki/crl.pem
tls-crypt-v2 tls-crypt-v2.key
remote-cert-tls client
setenv profile_endpoint %v
verb 3

# ... and Postern's own directives
nat yes
control-socket postern.sock
ldap-url %s
ldap-tls-ca directory-ca.pem
ldap-bind-dn %s
ldap-bind-password-file bind-password
ldap-user-base %s
ldap-require-group %s
`

func (d *demo) writeConfig() error {
	text := fmt.Sprintf(configuration, d.net.Host("router").Wan4, d.directory.URLTLS, slapdtest.BindDN, slapdtest.UserBase, slapdtest.UsersGroup)
	if err := os.WriteFile(filepath.Join(d.dir, "server.conf"), []byte(text), 0o600); err != nil {
		return err
	}
	d.screen.command("cat", "server.conf")
	d.screen.lines(text)
	_, err := d.run("check", "--config", "server.conf")
	return err
}

func (d *demo) startServer() (err error) {
	d.screen.command("postern", "serve", "--config", "server.conf")
	if d.server, err = d.net.Host("router").Start("server.log", d.postern, "serve", "--config", "server.conf"); err != nil {
		return err
	}
	err = d.server.Expect(" serving ", 1, patience)
	d.screen.lines(d.server.Output())
	return err
}

func (d *demo) writeProfile() error {
	if _, err := d.run("profile", "--config", "server.conf", "--out", "alice.ovpn", "alice"); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "alice.ovpn"))
	if err != nil {
		return err
	}
	d.screen.say("What is in it, without the certificates and keys:")
	d.screen.lines(withoutBlocks(string(text)))
	return nil
}

// withoutBlocks leaves out what stands between <tag> and </tag>.
func withoutBlocks(profile string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(profile) {
		switch {
		case strings.HasPrefix(line, "</"):
			inside = false
		case strings.HasPrefix(line, "<"):
			inside = true
			fmt.Fprintf(&b, "%s ...\n", strings.TrimSpace(line))
		case !inside:
			b.WriteString(line)
		}
	}
	return b.String()
}

// dial starts the stock client with the profile and a password.
func (d *demo) dial(password string) (*lab.Process, error) {
	login := filepath.Join(d.dir, "login")
	if err := os.WriteFile(login, []byte("alice\n"+password+"\n"), 0o600); err != nil {
		return nil, err
	}
	line := []string{"openvpn", "--config", "alice.ovpn", "--auth-user-pass", "login"}
	d.screen.command(line...)
	return d.laptop.Start("client.log", line...)
}

func (d *demo) refuse() error {
	d.screen.say("alice's own profile, but somebody else guesses the password. The client says:")
	c, err := d.dial("not-her-secret")
	if err != nil {
		return err
	}
	err = c.Expect("AUTH_FAILED", 1, patience)
	d.screen.lines(withWords(c.Output(), "VERIFY OK", "AUTH_FAILED", "auth-failure"))
	if err != nil {
		return err
	}
	if strings.Contains(c.Output(), "Initialization Sequence Completed") {
		return errors.New("the wrong password was let in")
	}
	_ = c.Wait(patience) // it ends with an error: it was refused
	if err := d.server.Expect("login ended", 1, patience); err != nil {
		return err
	}
	d.screen.say("The client is not told what was wrong. The server's log tells:")
	d.screen.lines(withWords(d.server.Output(), "login ended"))
	return nil
}

func (d *demo) logIn() (err error) {
	if d.client, err = d.dial("alice-secret"); err != nil {
		return err
	}
	err = d.client.Expect("Initialization Sequence Completed", 1, patience)
	d.screen.lines(withWords(d.client.Output(), "VERIFY OK", "Control Channel:", "Peer Connection Initiated", "PUSH_REPLY",
		"Data Channel: cipher", "net_addr", "net_route", "Initialization Sequence Completed"))
	if err != nil {
		return err
	}
	if err := d.server.Expect("client connected", 1, patience); err != nil {
		return err
	}
	d.screen.say("The server's log:")
	d.screen.lines(withWords(d.server.Output(), "client connected"))
	return nil
}

func (d *demo) status() error {
	out, err := d.run("status", "--socket", "postern.sock")
	if err == nil && !strings.Contains(out, "1 connected") {
		err = errors.New("alice is not in it")
	}
	return err
}

// onLaptop shows a command and runs it on the client's host.
func (d *demo) onLaptop(args ...string) error {
	d.screen.command(append([]string{filepath.Base(args[0])}, args[1:]...)...)
	out, err := d.laptop.Run(d.ctx, args...)
	d.screen.lines(out)
	return err
}

func (d *demo) ping() error {
	if err := d.onLaptop("ip", "-4", "route"); err != nil {
		return err
	}
	return d.onLaptop("ping", "-n", "-c", "5", "-i", "0.2", "-s", "1400", lab.Lan4)
}

func (d *demo) move() error {
	for _, way := range []string{"get", "put"} {
		if err := d.onLaptop(d.depot, way, lab.Lan4+":5001", transfer); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) leave() error {
	d.screen.say("The client says goodbye:")
	if err := d.client.Stop(); err != nil {
		return err
	}
	if err := d.server.Expect("client disconnected", 1, patience); err != nil {
		return err
	}
	d.screen.lines(withWords(d.server.Output(), "client disconnected"))
	d.screen.say("The server ends, and its tunnel device with it:")
	if err := d.server.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := d.server.Wait(patience); err != nil {
		return err
	}
	d.screen.lines(lastLine(d.server.Output()))
	out, err := d.net.Host("router").Run(d.ctx, "ip", "-br", "link")
	d.screen.command("ip", "-br", "link")
	d.screen.lines(out)
	if err == nil && strings.Contains(out, "tun0") {
		err = errors.New("the device is still there")
	}
	return err
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
