package link

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// No epoll instance of the process asks about room in a socket's send buffer: each train that leaves would wake a thread.
func TestUDPWakesForArrivalsOnly(t *testing.T) {
	u := loopbackUDP(t)
	watched := 0
	err := control(u.conn, func(fd int) error {
		list, err := filepath.Glob("/proc/self/fdinfo/*")
		if err != nil {
			return err
		}
		for _, file := range list {
			info, err := os.ReadFile(file)
			if err != nil {
				continue // closed meanwhile
			}
			for line := range strings.Lines(string(info)) {
				var target int
				var events uint32
				if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &target, &events); n < 2 || target != fd {
					continue
				}
				watched++
				if events&unix.EPOLLOUT != 0 {
					t.Errorf("%s: %s", file, line)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if watched != 1 {
		t.Errorf("%d epoll instances look at the socket, want 1", watched)
	}
}
