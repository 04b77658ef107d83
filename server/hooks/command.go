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
