package hooks

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Command is a program and the arguments that stand before those of the hook.
type Command []string

// ParseCommand cuts the value of a script directive into words, by the rules of a line in the configuration: blanks
// separate, " and ' quote a word as a whole, a backslash escapes a backslash, a double quote or a blank except
// between single quotes. No shell ever sees it.
func ParseCommand(line string) (Command, error) {
	var words Command
	for i := 0; ; {
		for i < len(line) && blank(line[i]) {
			i++
		}
		if i == len(line) {
			break
		}
		quote := byte(0)
		if line[i] == '"' || line[i] == '\'' {
			quote = line[i]
			i++
		}
		var word []byte
		for ; ; i++ {
			if i == len(line) {
				if quote != 0 {
					return nil, fmt.Errorf("no closing quotation (%c) in the command", quote)
				}
				break
			}
			c := line[i]
			if quote == 0 && blank(c) || quote != 0 && c == quote {
				break
			}
			if c == 0 {
				return nil, errors.New("zero byte in the command")
			}
			if c == '\\' && quote != '\'' {
				i++
				if i == len(line) || line[i] != '\\' && line[i] != '"' && !blank(line[i]) {
					return nil, errors.New(`bad backslash in the command: write \\ for one, or put the word between single quotes`)
				}
				c = line[i]
			}
			word = append(word, c)
		}
		if quote != 0 {
			i++
		}
		words = append(words, string(word))
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("no program in the command")
	}
	return words, nil
}

func blank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// Check reports whether the program is there to be executed by this process.
func (c Command) Check() error {
	if len(c) == 0 {
		return errors.New("no program in the command")
	}
	if !strings.Contains(c[0], "/") {
		return fmt.Errorf("program %q: write its path, PATH is not searched", c[0])
	}
	info, err := os.Stat(c[0])
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("program %s: not a file", c[0])
	}
	if err := unix.Access(c[0], unix.X_OK); err != nil {
		return fmt.Errorf("program %s: not executable: %w", c[0], err)
	}
	return nil
}
