package server

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"postern/server/config"
)

func TestSharerLeavesNoNoteThatCouldNotBeWritten(t *testing.T) {
	dir := t.TempDir()
	ours := netip.MustParseAddrPort("127.0.0.1:4000")
	name := filepath.Join(dir, openVPNAddress(ours))
	if err := os.Symlink("/dev/full", name); err != nil { // it opens, and takes nothing
		t.Fatal(err)
	}
	s := newSharer(config.PortShare{Dir: dir})
	if _, err := s.note(netip.MustParseAddrPort("192.0.2.1:5000"), net.TCPAddrFromAddrPort(ours)); err == nil {
		t.Fatal("a full disk was no error")
	}
	if _, err := os.Lstat(name); !os.IsNotExist(err) {
		t.Errorf("the note is still there: %v", err)
	}
}
