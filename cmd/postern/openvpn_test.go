package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestOpenVPNDirectives(t *testing.T) {
	for _, c := range []struct {
		args string
		want [][]string
	}{
		{"", [][]string{{"help"}}},
		{"server.conf", [][]string{{"config", "server.conf"}}},
		{"--config server.conf", [][]string{{"config", "server.conf"}}},
		{"--daemon ovpn-office --status /run/openvpn/office.status 10 --cd /etc/openvpn --config /etc/openvpn/office.conf --writepid /run/openvpn/office.pid",
			[][]string{{"daemon", "ovpn-office"}, {"status", "/run/openvpn/office.status", "10"}, {"cd", "/etc/openvpn"},
				{"config", "/etc/openvpn/office.conf"}, {"writepid", "/run/openvpn/office.pid"}}},
		{"--genkey --secret ta.key", [][]string{{"genkey"}, {"secret", "ta.key"}}},
		{"--nice -5 --suppress-timestamps", [][]string{{"nice", "-5"}, {"suppress-timestamps"}}},
	} {
		got, err := openvpnDirectives(strings.Fields(c.args))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.args, got, err, c.want)
		}
	}
	for _, bad := range []string{"server.conf --verb 3", "verb 3"} {
		if got, err := openvpnDirectives(strings.Fields(bad)); err == nil || !strings.Contains(err.Error(), "leading '--'") {
			t.Errorf("%s: %q, %v", bad, got, err)
		}
	}
}

// What installation scripts call, in the forms of old and new openvpn.
func TestOpenVPNGenkey(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := openvpn(t.Context(), &out, args)
		return out.String(), err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		args []string
		file string
		head string
	}{
		{[]string{"--genkey", "--secret", file("old")}, "old", "-----BEGIN OpenVPN Static key V1-----"},
		{[]string{"--genkey", "secret", file("ta")}, "ta", "-----BEGIN OpenVPN Static key V1-----"},
		{[]string{"--genkey", "tls-crypt", file("tc")}, "tc", "-----BEGIN OpenVPN Static key V1-----"},
		{[]string{"--genkey", "tls-auth", file("tc")}, "tc", "-----BEGIN OpenVPN Static key V1-----"}, // in its place
		{[]string{"--genkey", "tls-crypt-v2-server", file("v2")}, "v2", "-----BEGIN OpenVPN tls-crypt-v2 server key-----"},
		{[]string{"--tls-crypt-v2", file("v2"), "--genkey", "tls-crypt-v2-client", file("c2")}, "c2", "-----BEGIN OpenVPN tls-crypt-v2 client key-----"},
		{[]string{"--genkey", "auth-token", file("at")}, "at", "-----BEGIN OpenVPN auth-token server key-----"},
		{[]string{"--genkey", "secret"}, "", "-----BEGIN OpenVPN Static key V1-----"},
		{[]string{"--genkey", "secret", "/dev/stdout"}, "", "-----BEGIN OpenVPN Static key V1-----"},
	} {
		out, err := run(c.args...)
		if err == nil && c.file != "" {
			var b []byte
			b, err = os.ReadFile(file(c.file))
			out = string(b)
			if info, err := os.Stat(file(c.file)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%q: the file: %v, %v", c.args, info.Mode(), err)
			}
		}
		if err != nil || !strings.Contains(out, c.head) {
			t.Errorf("%q: %v, %.100q", c.args, err, out)
		}
	}
	for _, bad := range [][]string{{"--genkey"}, {"--genkey", "nonsense", file("x")}, {"--genkey", "tls-crypt-v2-client", file("x")}} {
		if _, err := run(bad...); err == nil {
			t.Errorf("%q makes something", bad)
		}
	}
	if out, err := run("--version"); err != nil || !regexp.MustCompile(`^OpenVPN 2\.\d+\.\d+ \w+-pc-linux-gnu \[`).MatchString(out) {
		t.Errorf("--version: %v, %q", err, out)
	}
	for option, want := range map[string]string{"--show-ciphers": "\nAES-256-GCM\n", "--show-digests": "\nSHA256\n",
		"--show-tls": "\nTLS_AES_256_GCM_SHA384\n", "--show-curves": "\nsecp384r1\n", "--show-groups": "\nx25519\n"} {
		if out, err := run(option); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %q", option, err, out)
		}
	}
	if out, err := run("--help"); err == nil || !strings.Contains(out, "\n--keepalive ") {
		t.Errorf("--help: %v, %.200q", err, out)
	}
}

func FuzzOpenVPNDirectives(f *testing.F) {
	f.Add("--daemon\x00ovpn\x00--status\x00/run/x\x0010")
	f.Add("server.conf")
	f.Add("--\x00---\x00--x")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		directives, err := openvpnDirectives(args)
		words := 0
		for _, d := range directives {
			if len(d) == 0 || d[0] == "" {
				t.Fatalf("%q: a directive without a name", args)
			}
			words += len(d)
		}
		if err == nil && words < len(args) {
			t.Fatalf("%q: %d words of %d are left", args, words, len(args))
		}
	})
}
