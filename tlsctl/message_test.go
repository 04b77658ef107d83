package tlsctl

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The replies of stock servers, with what they add by themselves for the client, come out as they sent them.
func TestPushVectors(t *testing.T) {
	var v struct {
		Scenarios []struct {
			Name     string
			Messages []string `json:"control_messages"`
			Client   string   `json:"client_version"`
		}
	}
	readVectors(t, "data-push.json", &v)
	split, epochs := 0, 0
	for _, s := range v.Scenarios {
		var options []string
		for _, m := range s.Messages {
			for o := range strings.SplitSeq(strings.TrimPrefix(m, "PUSH_REPLY,"), ",") {
				if !strings.HasPrefix(o, "push-continuation ") {
					options = append(options, o)
				}
			}
		}
		got, err := pushReplies(options)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		if len(got) > 1 {
			split++
		}
		if !slices.EqualFunc(got, s.Messages, func(m Message, want string) bool { return string(m) == want }) {
			t.Errorf("%s: got\n%q, want\n%q", s.Name, got, s.Messages)
		}
		// Behind the grant's options come ours.
		i := slices.IndexFunc(options, func(o string) bool { return strings.HasPrefix(o, "peer-id ") })
		want := strings.Join(options[i:], ",")
		info := "IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\nIV_MTU=1600\n"
		if strings.Contains(want, " aead-epoch") {
			info, epochs = strings.Replace(info, "990", "8094", 1), epochs+1
		}
		cfg := &Config{TunMTU: 1500, Epoch: true}
		if got := ownOptions(t, cfg, info, "V4", Grant{}, true); got != want {
			t.Errorf("%s: own options %q, want %q", s.Name, got, want)
		}
	}
	if split == 0 || epochs == 0 {
		t.Error("no vector has more than one message, or none the epoch format")
	}
}

func TestPushReplies(t *testing.T) {
	if got, err := pushReplies(nil); err != nil || !slices.Equal(got, []Message{"PUSH_REPLY"}) {
		t.Errorf("no options: %q, %v", got, err)
	}
	longest := strings.Repeat("x", maxPushBundle-len(pushReply)-1)
	for _, test := range []struct {
		options []string
		parts   int // 0: an error
	}{
		{[]string{longest}, 1},
		{[]string{longest + "x"}, 0},
		{[]string{longest, "ping 10"}, 2},
		{[]string{"ping 10", longest}, 2},
		{[]string{longest, longest, longest}, 3},
		{[]string{"ping 10,ping-restart 60"}, 0},
		{[]string{"ping\n10"}, 0},
		{[]string{"ping\x7f"}, 0},
	} {
		got, err := pushReplies(test.options)
		if len(got) != test.parts || (err == nil) != (test.parts > 0) {
			t.Errorf("%.20q: %d parts, %v, want %d", test.options, len(got), err, test.parts)
		}
		for _, m := range got {
			if n := len(m.record()); n > maxMessage {
				t.Errorf("a message of %d bytes", n)
			}
		}
	}
}

func TestAuthFailed(t *testing.T) {
	const crv1 = "CRV1:R,E:Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l:Y3Ix:Please enter token PIN"
	for _, test := range []struct {
		d        Denial
		old, new Message
	}{
		{Denial{}, "AUTH_FAILED", "AUTH_FAILED"},
		{Denial{Public: "no"}, "AUTH_FAILED,no", "AUTH_FAILED,no"},
		{Denial{Temporary: true}, "AUTH_FAILED", "AUTH_FAILED,TEMP"},
		{Denial{Temporary: true, Public: "later"}, "AUTH_FAILED,later", "AUTH_FAILED,TEMP:later"},
		{Denial{Temporary: true, Public: "later", Backoff: 7500 * time.Millisecond}, "AUTH_FAILED,later", "AUTH_FAILED,TEMP[backoff 7]:later"},
		{Denial{Temporary: true, Backoff: time.Millisecond, Advance: "no"}, "AUTH_FAILED", "AUTH_FAILED,TEMP[backoff 1,advance no]"},
		{Denial{Temporary: true, Public: "full", Advance: "remote"}, "AUTH_FAILED,full", "AUTH_FAILED,TEMP[advance remote]:full"},
		{Denial{Session: true}, "AUTH_FAILED,SESSION:", "AUTH_FAILED,SESSION:"},
		{Denial{Session: true, Public: "token expired"}, "AUTH_FAILED,SESSION: token expired", "AUTH_FAILED,SESSION: token expired"},
		{Denial{Challenge: crv1, Public: "no"}, "AUTH_FAILED," + crv1, "AUTH_FAILED," + crv1},
		{Denial{Challenge: crv1 + strings.Repeat("x", 1011-len(crv1))}, "AUTH_FAILED," + crv1 + Message(strings.Repeat("x", 1011-len(crv1))), ""},
		// Half a challenge would be none.
		{Denial{Challenge: crv1 + strings.Repeat("x", 1012-len(crv1)), Public: "no"}, "AUTH_FAILED,no", "AUTH_FAILED,no"},
		{Denial{Challenge: crv1 + "\n", Public: "no"}, "AUTH_FAILED,no", "AUTH_FAILED,no"},
		{Denial{Challenge: "TEMP", Public: "no"}, "AUTH_FAILED,no", "AUTH_FAILED,no"},
	} {
		if test.new == "" {
			test.new = test.old
		}
		if got := authFailed(&test.d, ParsePeerInfo("IV_PROTO=30\n")); got != test.old {
			t.Errorf("%+v: old client %q, want %q", test.d, got, test.old)
		}
		if got := authFailed(&test.d, ParsePeerInfo("IV_PROTO=990\n")); got != test.new {
			t.Errorf("%+v: new client %q, want %q", test.d, got, test.new)
		}
	}
}

func TestMessageRecord(t *testing.T) {
	for m, want := range map[Message]string{
		Restart:                            "RESTART\x00",
		"AUTH_FAILED,a\nb\x00c":            "AUTH_FAILED,a_b_c\x00",
		Message(strings.Repeat("x", 2000)): strings.Repeat("x", 1023) + "\x00",
	} {
		if got := string(m.record()); got != want {
			t.Errorf("%.20q: %q, want %q", m, got, want)
		}
	}
}

// read returns the messages in some records, bad ones as "!".
func (in *inbound) read(records ...string) (got []string) {
	for _, r := range records {
		in.add([]byte(r), func(m []byte) { got = append(got, string(m)) }, func([]byte) { got = append(got, "!") })
	}
	return got
}

// All bytes in all positions (S026): control bytes spoil a message, CR and LF at its end do not.
func TestInboundBytes(t *testing.T) {
	for c := range 256 {
		b := string([]byte{byte(c)})
		end := b == "\r" || b == "\n"
		fine := c >= 0x20 && c != 0x7f
		for _, test := range []struct {
			text string
			want []string
		}{
			{b + "INFO\x00", map[bool][]string{true: {b + "INFO"}, false: {"!"}}[fine]},
			{"IN" + b + "FO\x00", map[bool][]string{true: {"IN" + b + "FO"}, false: {"!"}}[fine]},
			{"INFO" + b + "\x00", map[bool][]string{true: {"INFO" + b}, false: {"!"}}[fine]},
		} {
			switch {
			case c == 0: // an end, not a byte of a text
				test.want = slices.DeleteFunc(strings.Split(test.text, "\x00"), func(s string) bool { return s == "" })
			case end && strings.HasPrefix(test.text, "INFO"):
				test.want = []string{"INFO"}
			}
			if got := new(inbound).read(test.text); !slices.Equal(got, test.want) {
				t.Errorf("%q: got %q, want %q", test.text, got, test.want)
			}
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"PUSH_REQUEST\x00", "EXIT\x00", "CR_RESPONSE,MTIz\x00", "a\x00b\x00", "\r\n\x00", strings.Repeat("x", 5000) + "\x00EXIT\x00"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole := new(inbound).read(string(b))
		for _, m := range whole {
			if m != "!" && (m == "" || len(m) >= maxClientText || !cleanText([]byte(m))) {
				t.Errorf("message %q", m)
			}
		}
		// However it is cut, the messages are the same.
		var parts []string
		if cut < 1 {
			cut = 1
		}
		for rest := string(b); rest != ""; {
			n := min(cut, len(rest))
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		if got := new(inbound).read(parts...); !slices.Equal(got, whole) {
			t.Errorf("cut by %d: %q, whole: %q", cut, got, whole)
		}
		if replies, err := pushReplies([]string{string(b)}); err == nil {
			for _, r := range replies {
				if len(r.record()) > maxMessage || !cleanText([]byte(r)) {
					t.Errorf("reply %q", r)
				}
			}
		}
	})
}

func TestChooseCipher(t *testing.T) {
	server := []string{"AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"}
	for _, test := range []struct {
		info, options, fallback string
		want                    string
	}{
		{"IV_CIPHERS=AES-128-GCM:AES-256-GCM\n", "", "", "AES-256-GCM"}, // the server's order decides
		{"IV_CIPHERS=CHACHA20-POLY1305\nIV_NCP=2\n", "", "", "CHACHA20-POLY1305"},
		{"IV_CIPHERS=aes-128-gcm\n", "", "", "AES-128-GCM"},
		{"IV_NCP=2\n", "", "", "AES-256-GCM"},
		{"IV_NCP=1\n", "", "", ""},
		{"", "V4,cipher AES-128-GCM,auth SHA1", "", "AES-128-GCM"},
		{"", "V4,cipher BF-CBC", "AES-256-CBC", ""}, // it has a cipher, so the fallback is not for it
		{"", "V4", "AES-256-CBC", "AES-256-CBC"},
		{"", "V4,cipher [null-cipher]", "AES-256-CBC", "AES-256-CBC"},
		{"", "V4", "", ""},
		{"IV_CIPHERS=BF-CBC\n", "V4,cipher AES-256-GCM", "", ""}, // what it says there does not count then
		{"IV_CIPHERS=BF-CBC\nIV_NCP=2\n", "V4", "AES-256-CBC", ""},
	} {
		got, ok := chooseCipher(server, test.fallback, ParsePeerInfo(test.info), test.options)
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%q %q: %q, %v, want %q", test.info, test.options, got, ok, test.want)
		}
	}
}

func TestPeerInfo(t *testing.T) {
	p := ParsePeerInfo("IV_VER=2.6.14\nIV_PLAT=linux\r\nIV_PROTO=990\nIV_PROTO=1\nIV_MTU=1600\nIV_COMP_STUBv2=1\n" +
		"UV_NOTE=a b$(x)`y`\x1b\xc3\xa4\nPATH=/evil\nIV_=x\nIV_A-B=1\nUV_NOVALUE\nID=7\nUV_LONG=" + strings.Repeat("x", 257) + "\nIV_CIPHERS=A:B\n")
	var got []string
	for name, value := range p.All {
		got = append(got, name+"="+value)
	}
	want := []string{"IV_VER=2.6.14", "IV_PLAT=linux", "IV_PROTO=990", "IV_MTU=1600", "IV_COMP_STUBv2=1", "UV_NOTE=a_b__x)_y____", "IV_CIPHERS=A:B"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if p.Proto() != 990 || p.MTU() != 1600 || p.Version() != "2.6.14" || p.Platform() != "linux" || !slices.Equal(p.Ciphers(), []string{"A", "B"}) {
		t.Errorf("%d %d %q %q %q", p.Proto(), p.MTU(), p.Version(), p.Platform(), p.Ciphers())
	}
	if !p.Can(FeatureDynamicCrypt|FeatureExit) || p.Can(FeatureEpoch) {
		t.Error("features are misread")
	}
	if !p.Has("IV_COMP_STUBv2") || p.Has("IV_MTU") || p.Has("IV_LZO") || len(p.SSO()) > 0 {
		t.Errorf("%v %v %v %q", p.Has("IV_COMP_STUBv2"), p.Has("IV_MTU"), p.Has("IV_LZO"), p.SSO())
	}
	if got := ParsePeerInfo("IV_SSO=webauth,,crtext\n").SSO(); !slices.Equal(got, []string{"webauth", "crtext"}) {
		t.Errorf("ways to ask: %q", got)
	}
	if none := ParsePeerInfo(""); none.Proto() != 0 || none.MTU() != 0 || none.Ciphers() != nil || none.takesCipher() {
		t.Error("nothing is taken for something")
	}
	for _, bad := range []string{"IV_PROTO=-1\n", "IV_PROTO=99999999999\n", "IV_PROTO=0x3de\n", "IV_PROTO=\n"} {
		if got := ParsePeerInfo(bad).Proto(); got != 0 {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]Release{
		"2.6.14":       {2, 6, 14},
		"2.4_rc2":      {2, 4, 0},
		"2.7_beta1":    {2, 7, 0},
		"3.11.3":       {3, 11, 3},
		"3.git:master": {3, 0, 0},
		"3":            {3, 0, 0},
		"3.":           {3, 0, 0},
		"2.6.14.1":     {2, 6, 14},
		"2.99999":      {2, 0, 0},
		"99999.1":      {},
		"v2.6":         {},
		".6":           {},
		"":             {},
	} {
		if got := ParsePeerInfo("IV_VER=" + version + "\n").Release(); got != want {
			t.Errorf("%q: %v, want %v", version, got, want)
		}
	}
	order := []Release{{}, {2, 4, 12}, {2, 6, 1}, {2, 6, 14}, {2, 7, 0}, {3, 6, 7}, {3, 11, 0}}
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v against %v: %d", a, b, got)
			}
		}
	}
}

// S028: 4 KiB, 64 lines.
func TestPeerInfoBounds(t *testing.T) {
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "UV_%d=x\n", i)
	}
	if got := len(ParsePeerInfo(text.String()).vars); got != maxPeerLines {
		t.Errorf("%d lines, want %d", got, maxPeerLines)
	}
	text.Reset()
	for i := range 40 {
		fmt.Fprintf(&text, "UV_%d=%s\n", i, strings.Repeat("x", 200))
	}
	p := ParsePeerInfo(text.String())
	if n := len(p.vars); n != maxPeerInfo/207 {
		t.Errorf("%d lines", n)
	}
	for name, value := range p.All {
		if len(value) != 200 {
			t.Errorf("%s was cut to %d bytes", name, len(value))
		}
	}
}

func FuzzPeerInfo(f *testing.F) {
	f.Add("IV_VER=2.6.14\nIV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n")
	f.Add("UV_A=$(x)\n=\nIV_\n")
	f.Fuzz(func(t *testing.T, s string) {
		p := ParsePeerInfo(s)
		if len(p.vars) > maxPeerLines {
			t.Errorf("%d lines", len(p.vars))
		}
		for name, value := range p.All {
			if !goodPeerName(name) || len(value) > maxPeerValue || !printable(value) || strings.ContainsAny(value, " $(`") {
				t.Errorf("%q=%q", name, value)
			}
		}
		p.Proto()
		p.MTU()
		p.SSO()
		if r := p.Release(); r.Compare(Release{}) < 0 || r.Major > 9999 || r.Minor > 9999 || r.Patch > 9999 {
			t.Errorf("release %v", r)
		}
		chooseCipher([]string{"AES-256-GCM"}, "", p, s)
	})
}
