package audit

import (
	"os"

	"golang.org/x/sys/unix"
)

// diskFile is a real file. Its lock is one of the open file: it goes when the file is closed, whoever is killed.
type diskFile struct{ *os.File }

func (f diskFile) Lock() error   { return f.lock(unix.F_OFD_SETLKW, unix.F_WRLCK) }
func (f diskFile) Unlock() error { return f.lock(unix.F_OFD_SETLKW, unix.F_UNLCK) }

func (f diskFile) lock(cmd int, kind int16) error {
	for {
		err := unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: kind})
		if err != unix.EINTR {
			return err
		}
	}
}
