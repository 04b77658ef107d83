package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"postern/tlsctl"
)

// keyCommand makes the keys around the control channel, in the files that `openvpn --genkey` would make.
func keyCommand() *cli.Command {
	out := &cli.StringFlag{Name: "out", Usage: "write the key to `FILE`, readable by its owner only and not replacing one; otherwise to the standard output"}
	simple := func(name, usage string, make func() []byte) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, Flags: []cli.Flag{out}, Action: func(c *cli.Context) error {
			if args, err := positional(c); err != nil {
				return err
			} else if len(args) > 0 {
				return fmt.Errorf("usage: postern key %s [--out FILE]", name)
			}
			return writeKey(c, make())
		}}
	}
	return &cli.Command{
		Name:  "key",
		Usage: "make a key for tls-auth, tls-crypt, tls-crypt-v2 or auth-gen-token",
		Subcommands: []*cli.Command{
			simple("tls-auth", "a key that server and all clients share, to sign the control channel", tlsctl.GenerateStaticKey),
			simple("tls-crypt", "a key that server and all clients share, to encrypt the control channel", tlsctl.GenerateStaticKey),
			simple("tls-crypt-v2-server", "the server's key, from which each client's own is made", tlsctl.GenerateServerKeyV2),
			{
				Name: "tls-crypt-v2-client", Usage: "one client's own key (postern profile makes it by itself)",
				Flags: []cli.Flag{
					out,
					&cli.StringFlag{Name: "server-key", Required: true, Usage: "the server's tls-crypt-v2 `FILE`"},
					&cli.StringFlag{Name: "metadata", Usage: "`BASE64` to carry in the key; otherwise the time of its making"},
				},
				Action: clientKeyAction,
			},
			simple("auth-token", "the key that signs login tokens, for auth-gen-token-secret", tlsctl.GenerateAuthTokenKey),
		},
	}
}

func clientKeyAction(c *cli.Context) error {
	if args, err := positional(c); err != nil {
		return err
	} else if len(args) > 0 {
		return errors.New("usage: postern key tls-crypt-v2-client --server-key FILE [--metadata BASE64] [--out FILE]")
	}
	key, err := clientKeyFrom(c.String("server-key"), c.String("metadata"))
	if err != nil {
		return err
	}
	return writeKey(c, key)
}

// clientKeyFrom makes a client's tls-crypt-v2 key from the server's key file, to carry metadata in base64, or "" for
// the time of its making.
func clientKeyFrom(serverKey, metadata string) ([]byte, error) {
	text, err := os.ReadFile(serverKey)
	if err != nil {
		return nil, err
	}
	var data []byte
	if metadata != "" {
		if data, err = base64.StdEncoding.DecodeString(metadata); err != nil {
			return nil, fmt.Errorf("the metadata: %w", err)
		}
	}
	key, err := clientKeyV2(text, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", serverKey, err)
	}
	return key, nil
}

// clientKeyV2 makes a client's tls-crypt-v2 key from the text of the server's key file.
func clientKeyV2(serverKey, metadata []byte) ([]byte, error) {
	raw, err := tlsctl.ParseServerKeyV2(serverKey)
	if err != nil {
		return nil, err
	}
	key, err := tlsctl.NewServerKey(raw)
	if err != nil {
		return nil, err
	}
	return key.GenerateClientKey(metadata, time.Now())
}

// ownedAsDirectory gives a file that root has made to the owner of its directory: to the server, mostly, which has to
// read it.
func ownedAsDirectory(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(name))
	if err != nil {
		return err
	}
	dir := info.Sys().(*syscall.Stat_t)
	return os.Lchown(name, int(dir.Uid), int(dir.Gid))
}

// writeKey writes a new key. It never replaces a file: whoever still uses the old key would be locked out.
func writeKey(c *cli.Context, key []byte) error {
	name := c.String("out")
	if name == "" || name == "-" {
		_, err := c.App.Writer.Write(key)
		return err
	}
	if err := writeNew(name, key); err != nil {
		return err
	}
	return ownedAsDirectory(name)
}
