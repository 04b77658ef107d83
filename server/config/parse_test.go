package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSplitWords(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
		err  string
	}{
		{"", nil, ""},
		{" \t ", nil, ""},
		{"# comment", nil, ""},
		{";comment", nil, ""},
		{"port 1194", []string{"port", "1194"}, ""},
		{"port\t1194 # comment", []string{"port", "1194"}, ""},
		{"port 1194;comment", []string{"port", "1194;comment"}, ""},
		{"x#y", []string{"x#y"}, ""},
		{`a"b it's`, []string{`a"b`, "it's"}, ""},
		{`push "route 10.0.0.0 255.0.0.0"`, []string{"push", "route 10.0.0.0 255.0.0.0"}, ""},
		{`push 'dhcp-option DNS 1.1.1.1'`, []string{"push", "dhcp-option DNS 1.1.1.1"}, ""},
		{`x ""`, []string{"x", ""}, ""},
		{`x ''`, []string{"x", ""}, ""},
		{`"a"b`, []string{"a", "b"}, ""},
		{`"# no comment"`, []string{"# no comment"}, ""},
		{`a\ b`, []string{"a b"}, ""},
		{`a\\b`, []string{`a\b`}, ""},
		{`\"a`, []string{`"a`}, ""},
		{`"a\"b"`, []string{`a"b`}, ""},
		{`'a\b'`, []string{`a\b`}, ""},
		{`'a\'`, []string{`a\`}, ""},
		{`push "open`, nil, `No closing quotation (")`},
		{`push 'open`, nil, `No closing quotation (')`},
		{`"a\"`, nil, `No closing quotation (")`},
		{`up C:\temp`, nil, `Bad backslash ('\') usage`},
		{`it\'s`, nil, `Bad backslash ('\') usage`},
		{`end\`, nil, `Bad backslash ('\') usage`},
	} {
		got, err := Words(tt.line)
		if !slices.Equal(got, tt.want) || tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)) {
			t.Errorf("Words(%q) = %q, %v; want %q, %q", tt.line, got, err, tt.want, tt.err)
		}
	}
}

// What is shown in a report reads back as the same words.
func TestQuoteWord(t *testing.T) {
	for _, w := range []string{"", "a", "a b", `a"b`, `a\b`, "it's", "#x", ";", "x#y", " "} {
		if got, err := Words("x " + quoteWord(w)); err != nil || len(got) != 2 || got[1] != w {
			t.Errorf("%q comes back as %q, %v", w, got, err)
		}
	}
}

// lines reads text and writes down what was found: the line, the words, and what is wrong.
func lines(text string, files map[string]string) []string {
	r := &reader{
		chdir: func(*directive) error { return nil },
		include: func(_ *directive, name string) (string, []byte, error) {
			src, ok := files[name]
			if !ok {
				return "", nil, errors.New("no such file")
			}
			return name, []byte(src), nil
		},
	}
	r.read("f", []byte(text), 0)
	var out []string
	for _, d := range r.found {
		s := fmt.Sprintf("%s:%d %s", d.file, d.line, d.name)
		if len(d.args) > 0 {
			s += fmt.Sprintf(" %q", d.args)
		}
		if d.isBlock {
			s += fmt.Sprintf(" block %q", d.block)
		}
		if d.optional != "" {
			s += " optional"
		}
		if d.fault != nil {
			s += " fault: " + d.fault.Error()
		}
		out = append(out, s)
	}
	return out
}

func TestReadFile(t *testing.T) {
	long := strings.Repeat("x", maxLine+1)
	for _, tt := range []struct {
		name, text string
		files      map[string]string
		want       []string
	}{
		{"byte order mark", "\xef\xbb\xbfport 1\n", nil, []string{`f:1 port ["1"]`}},
		{"byte order mark only at the start", "x\n\xef\xbb\xbfport 1\n", nil, []string{"f:1 x", "f:2 \ufeffport [\"1\"]"}},
		{"CR LF", "port 1\r\nbind\r\n", nil, []string{`f:1 port ["1"]`, "f:2 bind"}},
		{"no newline at the end", "port 1", nil, []string{`f:1 port ["1"]`}},
		{"dashes", "--port 1\n", nil, []string{`f:1 port ["1"]`}},
		{"only dashes", "--\n", nil, []string{"f:1 --"}},
		{"empty name", "\"\" x\n", nil, []string{`f:1  ["x"]`}},
		{"longest line", "# " + long[:maxLine-2] + "\nbind\n", nil, []string{"f:2 bind"}},
		{"line too long", "# " + long + "\nbind\n", nil,
			[]string{"f:1 line fault: Maximum option line length (256) exceeded: long contents go into a file or an inline block", "f:2 bind"}},
		{"zero byte", "a\x00b\n", nil, []string{"f:1 line fault: the line holds a zero byte: this is not a text file"}},
		{"words", "a 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", nil,
			[]string{`f:1 a ["1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12" "13" "14" "15" "16"] fault: more than 16 words: OpenVPN would ignore the rest; quote what belongs together, or use several lines`}},
		{"block", "<ca>\nline 1\r\n# no comment\n" + long + "\n  </ca> rest\nbind\n", nil,
			[]string{`f:1 ca block "line 1\n# no comment\n` + long + `\n"`, "f:6 bind"}},
		{"empty block", "<ca>\n</ca>\n", nil, []string{`f:1 ca block ""`}},
		{"no block with more words", "<ca> x\n", nil, []string{`f:1 <ca> ["x"]`}},
		{"block with a comment", " <ca> # here\nx\n</ca>\n", nil, []string{`f:1 ca block "x\n"`}},
		{"stray end", "</ca>\n", nil, []string{"f:1 </ca>"}},
		{"endless block", "<ca>\nx\nbind\n", nil, []string{`f:1 ca block "x\nbind\n" fault: Endtag </ca> missing`}},
		{"include", "config a\nbind\n", map[string]string{"a": "port 1\nconfig b\nport 3\n", "b": "port 2\n"},
			[]string{`f:1 config ["a"]`, `a:1 port ["1"]`, `a:2 config ["b"]`, `b:1 port ["2"]`, `a:3 port ["3"]`, "f:2 bind"}},
		{"include of nothing", "config a\n", nil, []string{`f:1 config ["a"] fault: Error opening configuration file: no such file`}},
		{"optional", "setenv opt foo bar\nsetenv opt\n", nil, []string{`f:1 foo ["bar"] optional`, `f:2 setenv ["opt"]`}},
		{"unknown names", "foo\nignore-unknown-option foo baz\nfoo 1\nbaz\nbar\n<foo>\nx\n</foo>\n", nil,
			[]string{"f:1 foo", `f:2 ignore-unknown-option ["foo" "baz"]`, `f:3 foo ["1"] optional`, "f:4 baz optional", "f:5 bar", `f:6 foo block "x\n" optional`}},
		{"all unknown names", "foo\nsetenv FORWARD_COMPATIBLE 1\nfoo\n", nil,
			[]string{"f:1 foo", `f:2 setenv ["FORWARD_COMPATIBLE" "1"]`, "f:3 foo optional"}},
		{"quote", "push \"open\nbind\n", nil, []string{`f:1 push fault: No closing quotation (")`, "f:2 bind"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lines(tt.text, tt.files); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// A file that includes itself, once or many times over, ends with an error and not with all the memory.
func TestIncludeEnds(t *testing.T) {
	for _, text := range []string{"config f\n", strings.Repeat("config f\n", 50)} {
		got := lines(text, map[string]string{"f": text})
		last := got[len(got)-1]
		if !strings.Contains(last, "itself?") {
			t.Errorf("last of %d lines: %s", len(got), last)
		}
		if limit := maxFiles*50 + 50; len(got) > limit {
			t.Errorf("%d lines, want at most %d", len(got), limit)
		}
	}
}

// cd moves where relative names start; a file that is only beside the configuration is found there.
func TestDirectories(t *testing.T) {
	m := newMachine()
	m["/srv/vpn/keys/ca.crt"] = m["/etc/openvpn/ca.crt"]
	m["/srv/vpn/more.conf"] = "verb 4\n"
	text := "cd /srv/vpn\nconfig more.conf\nca keys/ca.crt\ncert server.crt\nkey server.key\nserver 10.9.0.0 255.255.255.0\nkeepalive 10 60\nstatus status.log\n"
	c, r, err := load(m, "/root", "/etc/openvpn/server.conf", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ what, got, want string }{
		{"Dir", c.Dir, "/srv/vpn"},
		{"CA", c.CA.Name, "/srv/vpn/keys/ca.crt"},
		{"Cert", c.Cert.Name, "/etc/openvpn/server.crt"},
		{"Status", c.Status, "/srv/vpn/status.log"},
		{"verb", fmt.Sprint(c.Verb), "4"},
		{"report", why(r, "cd"), "notice 2 file(s) that are not in /srv/vpn were found beside the configuration file"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

// Directives from a command line follow the file, or stand around it when it is one of them; the last one counts.
func TestCommandLine(t *testing.T) {
	c, r := mustLoad(t, basic+"verb 3\n", []string{"verb", "5"}, []string{"--status", "/run/openvpn/s", "10"})
	if c.Verb != 5 || c.Status != "/run/openvpn/s" {
		t.Errorf("verb %d, status %q", c.Verb, c.Status)
	}
	if got, want := r.Entries[6].Why, "said again at [CMD-LINE]:1, and the last one counts"; got != want {
		t.Errorf("report says %q, want %q", got, want)
	}
	m := newMachine()
	m["/etc/openvpn/server.conf"] = basic + "status own.log\n"
	c, _, err := load(m, "/etc/openvpn", "", nil, [][]string{{"status", "/run/openvpn/s", "10"}, {"status-version", "2"}, {"config", "server.conf"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Status != "/etc/openvpn/own.log" || c.StatusVersion != 2 || c.StatusEvery.Seconds() != 10 {
		t.Errorf("status %q version %d every %v", c.Status, c.StatusVersion, c.StatusEvery)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(basic))
	f.Add([]byte("auth-users-file users\nauth-gen-token 1 2 external-auth\nauth-gen-token-format openvpn\nauth-totp-file t\nauth-totp-text 'a b'\nauth-totp-place first\nreneg-sec 0\n"))
	f.Add([]byte("<ca>\n</ca>\nserver-ipv6 fd00::/64\nkeepalive 1 2\nreneg-sec 1\nhand-window 99999\n"))
	f.Add([]byte("mode server\nifconfig 10.0.0.1 255.255.255.0\nifconfig-pool 10.0.0.2 10.0.0.9\nverify-client-cert none\n"))
	f.Add([]byte("local :: 1 tcp6\nlocal *\nproto udp6\nldap-url ldap://x\nldap-user-filter (a=%u)\n"))
	f.Add([]byte("config loop.conf\nsetenv opt up x\nplugin a.so\ntls-version-max 1.2\ntls-version-min 1.3\nkey-direction 1\n"))
	f.Add([]byte("ccd-exclusive\nmssfix 1 fixed\ncompat-mode 2.4\ncipher x\nlog a\nlog-append b\ndev tap\nping 1\nkeepalive 1 9\n"))
	f.Add([]byte(pools))
	f.Add([]byte("pool a\npolicy b\nend\npolicy c\nmatch any\nallow policy c\nend\nend\npool d\nnetwork 10.0.0.0/24\n"))
	m := newMachine()
	f.Fuzz(func(t *testing.T, src []byte) {
		c, r, err := load(m, "/etc/openvpn", "/etc/openvpn/server.conf", src, nil)
		if (c == nil) != (err != nil) || (err != nil) != (r.Count(Refused) > 0) {
			t.Fatalf("config %v, error %v, %d refused", c != nil, err, r.Count(Refused))
		}
		for _, e := range r.Entries {
			if e.Verdict != Used && e.Why == "" {
				t.Fatalf("%s: %s is %s without a reason", e.At(), e.Directive, e.Verdict)
			}
		}
	})
}
