package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// S101, S096: with all that watches the server switched on, what can be reached from other machines is the VPN's own
// ports; and of who is connected a profile tells nothing.
func TestE2ES101OnlyTheVPNIsReachable(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice")
	pw, profiles := f.write("management.pw", "secret"), filepath.Join(f.Dir, "pprof.sock")
	conf := f.serverConf("local "+f.Host("router").Wan4.String()+" 1194 udp", "local "+f.Host("router").Wan4.String()+" 443 tcp-server",
		"management 127.0.0.1 7505 "+pw, "status "+f.Dir+"/status.log", "audit "+f.Dir+"/audit.log")
	p, err := f.Host("router").Start("server.log", programs.postern, "serve", "--config", conf, "--pprof", "unix:"+profiles)
	f.must(err)
	f.must(p.Expect(" serving ", 1, 20*time.Second))
	f.connect("alice")
	out, err := f.Host("router").Run(f.ctx, "ss", "-H", "-l", "-n", "-t", "-u")
	f.must(err)
	open := 0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		host, port, err := net.SplitHostPort(fields[4])
		f.must(err)
		switch {
		case port == "1194" && fields[0] == "udp" || port == "443" && fields[0] == "tcp":
			open++
		case port == "7505" && host == "127.0.0.1":
		default:
			t.Errorf("something listens: %s", line)
		}
	}
	if open == 0 {
		t.Errorf("nobody listens:\n%s", out)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", profiles)
	}}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://postern/debug/pprof/goroutine?debug=2")
	f.must(err)
	profile, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	f.must(err)
	if !bytes.Contains(profile, []byte("goroutine")) || bytes.Contains(profile, []byte("alice")) {
		t.Errorf("the profile:\n%.500s", profile)
	}
}
