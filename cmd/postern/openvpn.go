package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postern/server/config"
	"postern/tlsctl"
	"postern/tun"
)

// calledAsOpenVPN reports whether the program stands in for openvpn: a link of that name leads to it.
func calledAsOpenVPN(args []string) bool {
	return len(args) > 0 && filepath.Base(args[0]) == "openvpn"
}

// openvpnCommand is openvpn's own command line.
func openvpnCommand() *cli.Command {
	return &cli.Command{
		Name:  "openvpn",
		Usage: "take openvpn's own command line, as when called by a link of the name openvpn",
		Description: "postern openvpn FILE, or any directives as --NAME PARAMETERS, in order: the last one counts. --config FILE\n" +
			"stands for the file's directives. Also --genkey, --version, --help, --show-ciphers, --show-digests, --show-tls,\n" +
			"--show-groups, --mktun and --rmtun.",
		SkipFlagParsing: true,
		BashComplete: func(c *cli.Context) {
			completeDirectives(c.App.Writer, c.Args().Slice())
		},
		Action: func(c *cli.Context) error {
			return openvpn(c.Context, c.App.Writer, c.Args().Slice())
		},
	}
}

// openvpn does what openvpn does with these arguments.
func openvpn(ctx context.Context, out io.Writer, args []string) error {
	if n := len(args); n > 0 && args[n-1] == completionFlag {
		completeDirectives(out, args[:n-1])
		return nil
	}
	directives, err := openvpnDirectives(args)
	if err != nil {
		return err
	}
	for _, d := range directives {
		if alone := standAlone[d[0]]; alone != nil {
			return alone(out, directives)
		}
	}
	return serve(ctx, source{args: directives}, serveOptions{})
}

// openvpnDirectives cuts a command line into directives: each --NAME takes the words up to the next that begins so. One
// word alone is the name of a configuration.
func openvpnDirectives(args []string) (directives [][]string, err error) {
	switch {
	case len(args) == 0:
		return [][]string{{"help"}}, nil
	case len(args) == 1 && !strings.HasPrefix(args[0], "--"):
		return [][]string{{"config", args[0]}}, nil
	}
	for _, word := range args {
		name, begins := strings.CutPrefix(word, "--")
		switch {
		case begins && name != "":
			directives = append(directives, []string{name})
		case len(directives) == 0:
			return nil, fmt.Errorf("I'm trying to parse %q as an --option parameter but I don't see a leading '--'", word)
		default:
			last := &directives[len(directives)-1]
			*last = append(*last, word)
		}
	}
	return directives, nil
}

// standAlone are the options that make openvpn do something else than serve.
var standAlone = map[string]func(out io.Writer, directives [][]string) error{
	"version":      showVersion,
	"help":         showHelp,
	"genkey":       genkey,
	"show-ciphers": showList("Ciphers for --data-ciphers:", config.DataCipherNames),
	"show-digests": showList("Digests for --auth:", config.DigestNames),
	"show-groups":  showList("Groups for --tls-groups:", config.GroupNames),
	"show-curves":  showList("Groups for --ecdh-curve:", config.GroupNames),
	"show-tls":     showTLS,
	"mktun":        persistentTUN,
	"rmtun":        persistentTUN,
}

// openvpnTitle begins as the first line of openvpn --version: scripts take its second word.
func openvpnTitle() string {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if machine == "" {
		machine = runtime.GOARCH
	}
	return "OpenVPN 2.6.14 " + machine + "-pc-linux-gnu [SSL (Go)] [EPOLL] [AEAD] [Postern " + version + "]"
}

func showVersion(out io.Writer, _ [][]string) error {
	_, err := fmt.Fprintf(out, "%s\nPostern %s takes the place of this OpenVPN as a server.\n", openvpnTitle(), version)
	return err
}

// showHelp lists the directives. Like openvpn it ends with status 1.
func showHelp(out io.Writer, _ [][]string) error {
	fmt.Fprintf(out, "%s\n\nDirectives, here with -- before them, or one a line in the FILE of --config:\n\n", openvpnTitle())
	for _, d := range config.Directives() {
		if d.Usable {
			fmt.Fprintf(out, "--%s\n", d.Usage)
		}
	}
	return cli.Exit("", 1)
}

func showList(head string, names func() []string) func(io.Writer, [][]string) error {
	return func(out io.Writer, _ [][]string) error {
		_, err := fmt.Fprintf(out, "%s\n\n%s\n", head, strings.Join(names(), "\n"))
		return err
	}
}

func showTLS(out io.Writer, _ [][]string) error {
	new, old := config.SuiteNames()
	_, err := fmt.Fprintf(out, "For TLS 1.3 (--tls-ciphersuites):\n\n%s\n\nFor TLS 1.2 (--tls-cipher):\n\n%s\n", strings.Join(new, "\n"), strings.Join(old, "\n"))
	return err
}

// argument is the i-th parameter of a directive, "" when it was not given.
func argument(directives [][]string, name string, i int) string {
	for _, d := range slices.Backward(directives) {
		if d[0] == name && len(d) > i+1 {
			return d[i+1]
		}
	}
	return ""
}

// genkey makes keys, in the forms that openvpn has had: `--genkey TYPE [FILE]`, and `--genkey --secret FILE` up to 2.4.
// Without FILE the key goes to out.
func genkey(out io.Writer, directives [][]string) error {
	kind, file := argument(directives, "genkey", 0), argument(directives, "genkey", 1)
	if old := argument(directives, "secret", 0); kind == "" && old != "" {
		kind, file = "secret", old
	}
	var key []byte
	var err error
	switch kind {
	case "secret", "tls-auth", "tls-crypt":
		key = tlsctl.GenerateStaticKey()
	case "tls-crypt-v2-server":
		key = tlsctl.GenerateServerKeyV2()
	case "auth-token":
		key = tlsctl.GenerateAuthTokenKey()
	case "tls-crypt-v2-client":
		server := argument(directives, "tls-crypt-v2", 0)
		if server == "" {
			return errors.New("--genkey tls-crypt-v2-client needs the server's key: add --tls-crypt-v2 FILE")
		}
		key, err = clientKeyFrom(server, argument(directives, "genkey", 2))
	default:
		return fmt.Errorf("--genkey %s: write secret, tls-auth, tls-crypt, tls-crypt-v2-server, tls-crypt-v2-client or auth-token, and a file", kind)
	}
	if err != nil {
		return err
	}
	if file == "" || file == "/dev/stdout" {
		_, err = out.Write(key)
		return err
	}
	// Like openvpn's it replaces a file: scripts run again rely on it.
	if err := replaceFile(file, key); err != nil {
		return fmt.Errorf("--genkey: %w", err)
	}
	return nil
}

// persistentTUN makes or removes a TUN device that stays when nobody uses it, for servers that have no right to make
// one.
func persistentTUN(_ io.Writer, directives [][]string) error {
	name := argument(directives, "dev", 0)
	kind := argument(directives, "dev-type", 0)
	switch {
	case name == "":
		return errors.New("--mktun and --rmtun need a name: add --dev tun0")
	case kind == "tap" || kind == "" && strings.HasPrefix(name, "tap"):
		return errors.New("only tun devices are made here: `ip tuntap add mode tap` makes others")
	}
	if slices.ContainsFunc(directives, func(d []string) bool { return d[0] == "rmtun" }) {
		return tun.RemovePersistent(name)
	}
	var err error
	owner := tun.Owner{UID: -1, GID: -1}
	for _, who := range []struct {
		directive string
		id        *int
		find      func(string) (string, error)
	}{{"user", &owner.UID, userID}, {"group", &owner.GID, groupID}} {
		n, lookup := idOf(argument(directives, who.directive, 0), who.find)
		if lookup != nil {
			err = errors.Join(err, fmt.Errorf("--%s: %w", who.directive, lookup))
		} else if n != nil {
			*who.id = int(*n)
		}
	}
	if err != nil {
		return err
	}
	return tun.MakePersistent(name, owner)
}

// runOpenVPN is main's part when the program is called openvpn. It returns the exit status.
func runOpenVPN(ctx context.Context, args []string) int {
	err := openvpn(ctx, os.Stdout, args)
	if err == nil {
		return 0
	}
	var problems config.Errors
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			fmt.Fprintln(os.Stderr, "Options error:", p)
		}
		fmt.Fprintln(os.Stderr, "Use --help for more information.")
	case err.Error() != "":
		fmt.Fprintln(os.Stderr, err)
	}
	return 1
}
