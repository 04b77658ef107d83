package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"postern/auth"
)

func TestUserCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	run := func(input string, args ...string) (string, error) {
		var out bytes.Buffer
		app := &cli.App{
			Name: "postern", Commands: []*cli.Command{userCommand()},
			Reader: strings.NewReader(input), Writer: &out, ErrWriter: &out,
		}
		err := app.Run(append([]string{"postern", "user"}, args...))
		return out.String(), err
	}
	for _, c := range []struct {
		input string
		args  []string
		out   string
		fails bool
	}{
		{"secret\n", []string{"add", "--file", file, "alice"}, "", false},
		{"secret\r\n", []string{"add", "--file", file, "bob"}, "", false},
		{"secret", []string{"add", "--file", file, "alice"}, "", true},
		{"\n", []string{"add", "--file", file, "carol"}, "", true},
		{"", []string{"add", "--file", file, "carol"}, "", true},
		{"secret\n", []string{"add", "--file", file}, "", true},
		{"secret\n", []string{"add", "--file", file, "carol", "dave"}, "", true},
		{"", []string{"list", "--file", file}, "alice\nbob\n", false},
		{"another\n", []string{"passwd", "--file", file, "alice"}, "", false},
		{"another\n", []string{"passwd", "--file", file, "carol"}, "", true},
		{"", []string{"del", "--file", file, "carol"}, "", true},
		{"", []string{"del", "--file", file, "bob"}, "", false},
		{"", []string{"list", "--file", file}, "alice\n", false},
	} {
		out, err := run(c.input, c.args...)
		if (err != nil) != c.fails || err == nil && out != c.out {
			t.Errorf("postern user %s: %q, %v", strings.Join(c.args, " "), out, err)
		}
	}
	if names, err := auth.ListUsers(file); err != nil || len(names) != 1 {
		t.Errorf("users %v, %v", names, err)
	}
}
