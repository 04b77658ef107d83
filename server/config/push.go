package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxPush = 256 // bytes of one pushed option that every client accepts

// notPulled are options that clients refuse to take from a server; seen in many files, and without effect.
var notPulled = map[string]bool{
	"ca": true, "cert": true, "key": true, "remote": true, "proto": true, "port": true, "fragment": true, "mssfix": true,
	"reneg-sec": true, "setenv": true, "up": true, "down": true, "script-security": true, "data-ciphers": true,
	"auth-nocache": true, "auth": true, "dev": true, "user": true, "group": true,
}

// errCompression is about a push that must not be sent, and need not be.
var errCompression = errors.New("it is not sent: clients that are set up for compression are told to send packets as they are, and others would add a header that nobody expects")

// checkPush tells whether text can be pushed: printable, short, and one option (S091). note is worth knowing.
func checkPush(text string) (note string, err error) {
	switch {
	case len(text) > maxPush:
		return "", fmt.Errorf("the text has %d bytes: clients take at most %d, split it into several lines", len(text), maxPush)
	case strings.Contains(text, ","):
		return "", errors.New("PUSH OPTION FAILED (illegal comma (',') in string): write one push line for each option")
	case !utf8.ValidString(text):
		return "", errors.New("the text is not valid UTF-8: write it in plain ASCII")
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return "", fmt.Errorf("the text holds the character %U, which cannot be printed: remove it", r)
		}
	}
	words, err := Words(text)
	if err != nil {
		return "", fmt.Errorf("clients could not read the text (%w): quote inside it as \\\"...\\\"", err)
	}
	if len(words) == 0 || words[0] == "" || text[0] == ' ' {
		return "", errors.New("the text does not begin with the name of an option: write it directly behind the quotation mark")
	}
	switch words[0] {
	case "push-continuation":
		return "", errors.New("the server adds it where it is needed: remove the line")
	case "comp-lzo", "compress":
		return "", errCompression
	}
	if (words[0] == "route" || words[0] == "route-ipv6") && slices.Contains(words, "net_gateway") {
		return "this route leads past the tunnel, through the client's own network: whoever rules that can read and change the traffic", nil
	}
	if notPulled[words[0]] {
		return "clients do not take " + words[0] + " from a server; it belongs into their profiles", nil
	}
	return "", nil
}
