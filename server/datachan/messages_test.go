package datachan_test

import (
	"testing"

	"postern/server/datachan"
)

func TestClassify(t *testing.T) {
	ping := string(datachan.AppendPing(nil))
	exit := string(datachan.AppendExit(nil))
	magic := exit[:16]
	for _, c := range []struct {
		name, payload string
		want          datachan.Message
	}{
		{"nothing", "", datachan.NoMessage},
		{"ping cut short", ping[:15], datachan.NoMessage},
		{"ping and a byte more", ping + "x", datachan.NoMessage},
		{"magic cut short", magic[:15], datachan.NoMessage},
		{"magic without a type", magic, datachan.UnknownMessage},
		{"type beyond the last", magic + "\x07", datachan.UnknownMessage},
		{"type 255", magic + "\xff", datachan.UnknownMessage},
		{"exit with a tail", exit + "tail", datachan.Exit},
		{"an IPv4 packet", "\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x01\x66\xcc\x0a\x09\x00\x02\x0a\x09\x00\x01", datachan.NoMessage},
	} {
		if got := datachan.Classify([]byte(c.payload)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
