package auth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"postern/auth"
)

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../testdata/vectors/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestChallengeVectors(t *testing.T) {
	var v struct {
		Dynamic []struct {
			Challenge string
			Flags     []string
			State     string `json:"state_id"`
			Username  string
			Text      string
			Reply     *struct{ Username, Password, Response string } `json:"client_reply"`
		}
		Static []struct{ Password, Response, Encoded string }
	}
	readVectors(t, "challenge.json", &v)
	if len(v.Dynamic) != 2 || len(v.Static) != 3 {
		t.Fatalf("%d and %d vectors", len(v.Dynamic), len(v.Static))
	}
	for _, d := range v.Dynamic {
		want := auth.Challenge{State: d.State, Username: d.Username, Text: d.Text, Echo: slices.Contains(d.Flags, "E")}
		if got, err := auth.ParseCRV1(d.Challenge); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s is %+v, %v, want %+v", d.Challenge, got, err, want)
		}
		if got := want.CRV1(); got != d.Challenge {
			t.Errorf("formatted as %s, want %s", got, d.Challenge)
		}
		if r := d.Reply; r != nil {
			if got := auth.FormatReply(d.State, []byte(r.Response)); string(got) != r.Password {
				t.Errorf("reply is %s, want %s", got, r.Password)
			}
			if state, response, err := auth.ParseReply([]byte(r.Password)); err != nil || state != d.State || string(response) != r.Response {
				t.Errorf("%s is %q, %q, %v", r.Password, state, response, err)
			}
		}
	}
	for _, s := range v.Static {
		password, response, err := auth.ParseStatic([]byte(s.Encoded))
		if err != nil || string(password) != s.Password || string(response) != s.Response {
			t.Errorf("%s is %q, %q, %v", s.Encoded, password, response, err)
		}
		if got := auth.FormatStatic([]byte(s.Password), []byte(s.Response)); string(got) != s.Encoded {
			t.Errorf("formatted as %s, want %s", got, s.Encoded)
		}
	}
}

func TestParseStaticRefuses(t *testing.T) {
	zero := base64.StdEncoding.EncodeToString([]byte("a\x00b"))
	for _, text := range []string{
		"", "SCRV1", "SCRV1:", "SCRV1:YmFy", "scrv1:YmFy:MQ==", " SCRV1:YmFy:MQ==", "SCRV2:YmFy:MQ==",
		"SCRV1:YmFy:MQ==:", "SCRV1:YmFy:MQ==:MQ==", "SCRV1::YmFy:MQ==",
		"SCRV1:YmF:MQ==", "SCRV1:YmFy:MQ", "SCRV1:YmFy:MQ=", "SCRV1:YmFy:MQ===", "SCRV1:YmFy:MR==", // padding, and bits that are none
		"SCRV1:Ym\nFy:MQ==", "SCRV1:YmFy:MQ==\r\n", "SCRV1:Ym Fy:MQ==", "SCRV1:Ym-_:MQ==", "SCRV1:YmFy:\xff",
		"SCRV1:" + zero + ":MQ==", "SCRV1:YmFy:" + zero, "SCRV1:YmFy\x00:MQ==",
	} {
		if password, response, err := auth.ParseStatic([]byte(text)); err == nil || password != nil || response != nil {
			t.Errorf("%q is %q and %q, %v", text, password, response, err)
		}
	}
}

func TestParseReplyRefuses(t *testing.T) {
	for _, text := range []string{
		"", "CRV1", "CRV1:", "CRV1::", "CRV1:::", "CRV1::::", "CRV1::::1", "CRV1::s", "CRV1::s:", "CRV1::s:1", "CRV1:s::1",
		"crv1::s::1", "CRV1:R:s::1", "CRV1::a:b::1", "CRV1::s::1\x00", "CRV1::s\x00::1", "CRV1::" + strings.Repeat("s", 129) + "::1",
	} {
		if state, response, err := auth.ParseReply([]byte(text)); err == nil || state != "" || response != nil {
			t.Errorf("%q is %q and %q, %v", text, state, response, err)
		}
	}
	// What was typed is not encoded: its colons are its own.
	if state, response, err := auth.ParseReply([]byte("CRV1::s:::1::2:")); err != nil || state != "s" || string(response) != ":1::2:" {
		t.Errorf("%q, %q, %v", state, response, err)
	}
	if _, response, err := auth.ParseReply([]byte("CRV1::s::")); err != nil || response == nil || len(response) != 0 {
		t.Errorf("an empty answer is %q, %v", response, err)
	}
}

func TestParseCRV1Refuses(t *testing.T) {
	for _, text := range []string{
		"", "CRV1", "CRV1:", "CRV1:R:s:Y3Ix", "CRV1:X:s:Y3Ix:t", "CRV1::s:Y3Ix:t", "CRV1:E:s:Y3Ix:t", "CRV1:R::Y3Ix:t", "CRV1:R:s:Y3I:t", "SCRV1:R:s:Y3Ix:t",
	} {
		if c, err := auth.ParseCRV1(text); err == nil {
			t.Errorf("%q is %+v", text, c)
		}
	}
}

// What is taken apart goes together again to the letter: there is one way only to write each answer.
func FuzzSCRV1(f *testing.F) {
	for _, text := range []string{"SCRV1::", "SCRV1:YmFy:ODY3NTMwOQ==", "SCRV1:YmFy", "SCRV1:YmFy:MR==", "SCRV1:\n:", "SCRV1:AA==:", "secret"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		password, response, err := auth.ParseStatic(text)
		if err != nil {
			return
		}
		if got := auth.FormatStatic(password, response); !bytes.Equal(got, text) {
			t.Fatalf("%q is written %q", text, got)
		}
		if bytes.IndexByte(password, 0) >= 0 || bytes.IndexByte(response, 0) >= 0 || password == nil || response == nil {
			t.Fatalf("%q, %q", password, response)
		}
	})
}

func FuzzCRV1(f *testing.F) {
	for _, text := range []string{
		"CRV1::abc::123456", "CRV1::abc::", "CRV1::::", "CRV1::a::b::c", "CRV1:R,E:Om01u7:Y3Ix:Please enter", "CRV1:E,R:s:Y3Ix:a:b", "CRV1:R:s::",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if state, response, err := auth.ParseReply(text); err == nil {
			if got := auth.FormatReply(state, response); !bytes.Equal(got, text) || state == "" || strings.Contains(state, ":") {
				t.Fatalf("%q is %q", text, got)
			}
		}
		if c, err := auth.ParseCRV1(string(text)); err == nil {
			again, err := auth.ParseCRV1(c.CRV1())
			if err != nil || !reflect.DeepEqual(*again, *c) {
				t.Fatalf("%q is %+v, and then %+v, %v", text, c, again, err)
			}
		}
	})
}
