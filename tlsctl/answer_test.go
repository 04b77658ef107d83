package tlsctl

import (
	"encoding/base64"
	"strings"
	"testing"
)

// Questions and answers come out as the vectors have them.
func TestAskVectors(t *testing.T) {
	var v struct {
		CRText []struct{ Message, Reply, Response string }
	}
	readVectors(t, "challenge.json", &v)
	if len(v.CRText) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.CRText {
		flags, text, _ := strings.Cut(strings.TrimPrefix(c.Message, "INFO_PRE,CR_TEXT:"), ":")
		q := Question{Method: AskText, Flags: strings.Split(flags, ","), Text: text}
		if got, err := q.info(); string(got) != c.Message || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, c.Message)
		}
		if got, err := parseAnswer([]byte(strings.TrimPrefix(c.Reply, responsePrefix))); string(got) != c.Response || err != nil {
			t.Errorf("got %q, %v, want %q", string(got), err, c.Response)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"ODY3NTMwOQ==", "", "====", "MTIz\n", "AAAA", strings.Repeat("QUFB", 253)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseAnswer(b)
		if err != nil {
			if len(b) > 8 && strings.Contains(err.Error(), string(b)) {
				t.Errorf("the error quotes the answer: %v", err)
			}
			return
		}
		// No other text means the same.
		if again := base64.StdEncoding.EncodeToString(got); again != string(b) {
			t.Errorf("%q and %q are one answer", b, again)
		}
	})
}
