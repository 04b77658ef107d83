package management

import "errors"

// words splits a line as a line of a configuration file is split: at blanks, quoted whole with " or ', up to a
// comment. A backslash escapes a backslash, a double quote or a blank, except between single quotes.
func words(line string) ([]string, error) {
	var list []string
	for i := 0; ; {
		for i < len(line) && blank(line[i]) {
			i++
		}
		if i == len(line) || line[i] == '#' || line[i] == ';' {
			return list, nil
		}
		word, n, err := firstWord(line[i:])
		if err != nil {
			return nil, err
		}
		list, i = append(list, word), i+n
	}
}

// firstWord reads the word that s begins with, and says how many bytes of s it takes.
func firstWord(s string) (word string, n int, err error) {
	quote := byte(0)
	if s[0] == '"' || s[0] == '\'' {
		quote, s, n = s[0], s[1:], 1
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0 && c == quote:
			return string(b), n + i + 1, nil
		case quote == 0 && blank(c):
			return string(b), n + i, nil
		case c == '\\' && quote != '\'':
			if i++; i == len(s) || s[i] != '\\' && s[i] != '"' && !blank(s[i]) {
				return "", 0, errors.New(`bad backslash: write \\ for one, or put the word between single quotes`)
			}
			c = s[i]
		}
		b = append(b, c)
	}
	switch quote {
	case '"':
		return "", 0, errors.New(`no closing quotation (")`)
	case '\'':
		return "", 0, errors.New("no closing single quotation (')")
	}
	return string(b), n + len(s), nil
}

func blank(c byte) bool { return c == ' ' || c == '\t' }
