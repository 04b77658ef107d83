package config

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// pushVector is one scenario of data-push.json: what a real server sent.
type pushVector struct {
	Name     string
	Server   []string `json:"server_conf"`
	Client   []string `json:"ccd_client1"`
	Messages []string `json:"control_messages"`
}

func pushVectors(t *testing.T) []pushVector {
	t.Helper()
	b, err := os.ReadFile("../../testdata/vectors/data-push.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Scenarios []pushVector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Scenarios
}

// bySession are the options that the session adds behind the push list, and the addresses.
var bySession = []string{"ifconfig-ipv6", "ifconfig", "peer-id", "cipher", "protocol-flags", "key-derivation", "tun-mtu", "auth-token", "auth-token-user", "push-continuation", "compress"}

// options joins the messages of one reply and leaves out what the session adds.
func options(messages []string) []string {
	var list []string
	for _, m := range messages {
		for option := range strings.SplitSeq(strings.TrimPrefix(m, "PUSH_REPLY,"), ",") {
			name, _, _ := strings.Cut(option, " ")
			if !slices.Contains(bySession, name) {
				list = append(list, option)
			}
		}
	}
	return list
}

// The push list is, option for option and in order, what a real server of the same configuration sent.
func TestPushListAsRealServers(t *testing.T) {
	for _, v := range pushVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			text := minimal + strings.Join(v.Server, "\n") + "\n"
			c, _ := mustLoad(t, text)
			client := parseClient("ccd", "client1", []byte(strings.Join(v.Client, "\n")), nil)
			if len(client.Warnings) > 0 {
				t.Fatalf("client file: %q", client.Warnings)
			}
			got := client.Pushes(c.Push)
			if want := options(v.Messages); !slices.Equal(got, want) {
				t.Errorf("pushed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// S091: what cannot be pushed safely is refused when the configuration is read.
func TestS091PushedValues(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"comma", `push "a,b"`, "illegal comma (',') in string"},
		{"unquoted", `push route 10.0.0.0 255.0.0.0`, "with quotes around the whole text"},
		{"empty", `push ""`, "does not begin with the name of an option"},
		{"blank first", `push " route 1.2.3.4"`, "does not begin with the name of an option"},
		{"escape character", "push \"echo \x1b[2J\"", "U+001B"},
		{"tabulator", "push \"route\t1.2.3.4\"", "U+0009"},
		{"C1 control", "push \"echo \u0085\"", "U+0085"},
		{"bidirectional", "push \"echo \u202e\"", "U+202E"},
		{"not UTF-8", "push \"echo \xff\"", "not valid UTF-8"},
		{"open quote", `push 'echo "x'`, "No closing quotation"},
		{"backslash", `push 'echo \x'`, "Bad backslash"},
		{"continuation", `push "push-continuation 2"`, "the server adds it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := loadText(basic + tt.line + "\n")
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "/etc/openvpn/server.conf:7: push: ") {
				t.Errorf("got %v, want %q at line 7", err, tt.want)
			}
		})
	}
	long := "echo " + strings.Repeat("x", maxPush-len("echo ")) // longer than a line of a file may be: from a command line
	if _, _, err := loadText(basic, []string{"push", long}); err != nil {
		t.Errorf("%d bytes: %v", len(long), err)
	}
	if _, _, err := loadText(basic, []string{"push", long + "x"}); err == nil {
		t.Errorf("%d bytes can be pushed", len(long)+1)
	}
	c, r := mustLoad(t, basic+`push "dhcp-option DOMAIN-SEARCH \"a b\""`+"\npush 'reneg-sec 3'\n")
	if c.Push[0] != `dhcp-option DOMAIN-SEARCH "a b"` {
		t.Errorf("quotes inside: %q", c.Push[0])
	}
	if got := why(r, "push"); !strings.Contains(got, "clients do not take reneg-sec") {
		t.Errorf("report says %q", got)
	}
}

// Kylemanna's image, Access Server and many guides push compression settings: they are left out, and the others go.
func TestPushedCompressionIsLeftOut(t *testing.T) {
	c, r := mustLoad(t, basic+"push \"comp-lzo no\"\npush \"compress lz4-v2\"\npush \"echo here\"\n")
	if slices.ContainsFunc(c.Push, func(p string) bool { return strings.HasPrefix(p, "comp") }) || !slices.Contains(c.Push, "echo here") {
		t.Errorf("pushed are %q", c.Push)
	}
	if n := r.Count(Ignored); n != 2 {
		t.Errorf("%d lines are ignored, want 2:\n%s", n, judgements(r))
	}
}
