package hooks

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxAnswer is how much of a file that a script has written is read.
const maxAnswer = 1 << 20

// makeFile makes a file for a script, readable by the server's user alone, and returns its path. The name is
// OpenVPN's: openvpn_KIND_HEX.tmp.
func makeFile(dir, kind string, content []byte) (path string, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // it never fails
	path = filepath.Join(dir, fmt.Sprintf("openvpn_%s_%x%x.tmp", kind, binary.BigEndian.Uint64(random[:8]), binary.BigEndian.Uint64(random[8:])))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("file for the script: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return "", fmt.Errorf("file for the script: %w", err)
	}
	return path, nil
}

// readAnswer reads what a script left in a file; one that is gone was left empty. What is not a plain file is an
// error: a pipe could hold the reader up for ever.
func readAnswer(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("answer of the script: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("answer of the script: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("answer of the script: %s is not a file any more", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("answer of the script: %w", err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("answer of the script: larger than %d bytes", maxAnswer)
	}
	return b, nil
}
