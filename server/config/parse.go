package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Limits of the file syntax. They are OpenVPN's own, but for maxFiles and maxConfigSize, which bound what a file that
// includes others can cost.
const (
	maxLine       = 255 // bytes, without the line's end; lines of a block have no limit
	maxWords      = 16
	maxNesting    = 10
	maxFiles      = 1000
	maxConfigSize = 32 << 20 // all files together: room for blocks with large revocation lists
)

const commandLine = "[CMD-LINE]" // stands for the file of directives that came from nowhere else

// A directive is one line, or one block, as it was written.
type directive struct {
	file  string
	line  int
	name  string
	args  []string
	block []byte // contents of an inline block; isBlock tells an empty one from none
	// optional says why an unknown name is no error: which directive above allowed it. "" when it is one.
	optional string
	named    bool // optional is about this very directive, not about all unknown ones
	isBlock  bool
	fault    error // why the line could not be read at all

	row   *row // its row of the table; nil for an unknown name
	entry *Entry
}

// Words cuts one line into words: separated by blanks, quoted whole with " or ', up to a comment. A backslash
// escapes a backslash, a double quote or a blank, except between single quotes.
func Words(line string) ([]string, error) {
	var words []string
	for i := 0; ; {
		for i < len(line) && blank(line[i]) {
			i++
		}
		if i == len(line) || line[i] == '#' || line[i] == ';' {
			return words, nil
		}
		quote := byte(0)
		if line[i] == '"' || line[i] == '\'' {
			quote = line[i]
			i++
		}
		var word []byte
		for ; ; i++ {
			if i == len(line) {
				if quote != 0 {
					return nil, fmt.Errorf("No closing quotation (%c)", quote)
				}
				break
			}
			c := line[i]
			if quote == 0 && blank(c) || quote != 0 && c == quote {
				break
			}
			if c == '\\' && quote != '\'' {
				i++
				if i == len(line) || line[i] != '\\' && line[i] != '"' && !blank(line[i]) {
					return nil, errors.New(`Bad backslash ('\') usage: write \\ for one backslash, or put the word between single quotes`)
				}
				c = line[i]
			}
			word = append(word, c)
		}
		if quote != 0 {
			i++
		}
		words = append(words, string(word))
	}
}

func blank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// A reader turns configuration files into directives, in order. What has to act while reading happens here: include
// files, cd (which moves where include files are looked for), and the directives that let unknown ones pass.
type reader struct {
	// include opens the file that a config directive names, and returns the name for messages.
	include func(from *directive, name string) (path string, src []byte, err error)
	chdir   func(*directive) error
	found   []*directive

	tolerated map[string]string // unknown names that are let pass -> why
	forward   string            // why all unknown names are let pass, if they are
	files     int
	size      int
}

// read reads one file. depth is how many files include it.
func (r *reader) read(file string, src []byte, depth int) {
	r.files++
	r.size += len(src)
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	for n := 1; len(src) > 0; n++ {
		text, rest, _ := bytes.Cut(src, []byte("\n"))
		src = rest
		d := &directive{file: file, line: n}
		text = bytes.TrimSuffix(text, []byte("\r"))
		switch {
		case len(text) > maxLine:
			d.name, d.fault = "line", fmt.Errorf("Maximum option line length (%d) exceeded: long contents go into a file or an inline block", maxLine+1)
			r.found = append(r.found, d)
			continue
		case bytes.IndexByte(text, 0) >= 0:
			d.name, d.fault = "line", errors.New("the line holds a zero byte: this is not a text file")
			r.found = append(r.found, d)
			continue
		}
		words, err := Words(string(text))
		if err != nil {
			d.name, d.fault = firstWord(string(text)), err
			r.found = append(r.found, d)
			continue
		}
		if len(words) == 0 {
			continue
		}
		if tag, ok := blockTag(words); ok {
			d.isBlock = true
			var lines int
			d.block, src, lines, ok = cutBlock(src, tag)
			n += lines
			words[0] = tag
			if !ok {
				d.fault = fmt.Errorf("Endtag </%s> missing", tag)
			}
		}
		r.take(d, words, depth)
	}
}

// blockTag returns the tag when a line is the start of an inline block: the single word <tag>.
func blockTag(words []string) (string, bool) {
	w := words[0]
	if len(words) != 1 || len(w) < 3 || w[0] != '<' || w[len(w)-1] != '>' || w[1] == '/' {
		return "", false
	}
	return w[1 : len(w)-1], true
}

// cutBlock returns what stands before the line that begins with </tag>, what stands behind that line, and how many
// lines both the contents and the end take.
func cutBlock(src []byte, tag string) (block, rest []byte, lines int, ok bool) {
	end := []byte("</" + tag + ">")
	for len(src) > 0 {
		text, after, _ := bytes.Cut(src, []byte("\n"))
		src = after
		lines++
		if bytes.HasPrefix(bytes.TrimLeft(text, " \t\v\f\r"), end) {
			return block, src, lines, true
		}
		block = append(append(block, bytes.TrimSuffix(text, []byte("\r"))...), '\n')
	}
	return block, nil, lines, false
}

// take adds the directive d made of words, after doing what is to be done while reading.
func (r *reader) take(d *directive, words []string, depth int) {
	if d.fault == nil && len(words) > maxWords {
		d.fault = fmt.Errorf("more than %d words: OpenVPN would ignore the rest; quote what belongs together, or use several lines", maxWords)
	}
	d.optional = r.forward
	if len(words) > 2 && words[0] == "setenv" && words[1] == "opt" {
		words = words[2:]
		d.optional, d.named = "setenv opt makes it optional", true
	}
	d.name, d.args = words[0], words[1:]
	if len(d.name) > 2 && strings.HasPrefix(d.name, "--") {
		d.name = d.name[2:]
	}
	if why := r.tolerated[d.name]; why != "" && !d.named {
		d.optional, d.named = why, true
	}
	r.found = append(r.found, d)
	if d.fault != nil || d.isBlock {
		return
	}
	switch {
	case d.name == "ignore-unknown-option":
		if r.tolerated == nil {
			r.tolerated = make(map[string]string)
		}
		for _, name := range d.args {
			r.tolerated[name] = fmt.Sprintf("ignore-unknown-option at %s:%d allows it to be unknown", d.file, d.line)
		}
	case d.name == "setenv" && len(d.args) == 2 && d.args[0] == "FORWARD_COMPATIBLE" && d.args[1] == "1":
		r.forward = fmt.Sprintf("setenv FORWARD_COMPATIBLE at %s:%d allows it to be unknown", d.file, d.line)
	case d.name == "cd" && len(d.args) == 1:
		d.fault = r.chdir(d)
	case d.name == "config" && len(d.args) == 1:
		d.fault = r.nest(d, depth)
	}
}

// nest reads the file that the config directive d names.
func (r *reader) nest(d *directive, depth int) error {
	if depth+1 >= maxNesting {
		return errors.New("Maximum recursive include levels exceeded: does a configuration file include itself?")
	}
	if r.files >= maxFiles {
		return fmt.Errorf("more than %d included files: does a configuration file include itself?", maxFiles)
	}
	path, src, err := r.include(d, d.args[0])
	if err != nil {
		return fmt.Errorf("Error opening configuration file: %w", err)
	}
	if r.size+len(src) > maxConfigSize {
		return fmt.Errorf("all files together are larger than %d bytes", maxConfigSize)
	}
	r.read(path, src, depth+1)
	return nil
}

// firstWord names a line that could not be cut into words.
func firstWord(line string) string {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return "line"
	}
	return strings.TrimPrefix(fields[0], "--")
}

// beside returns name as seen from the directory of the file that d stands in; "" if it stands in none.
func (d *directive) beside(name string) string {
	if d.file == commandLine || d.file == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(d.file), name)
}

// arg returns the i-th parameter, or "" when it was not written.
func (d *directive) arg(i int) string {
	if i < len(d.args) {
		return d.args[i]
	}
	return ""
}

// text is the directive as a report shows it: quoted anew, a block by its tag, and without what may be a secret.
func (d *directive) text() string {
	switch {
	case d.isBlock:
		return "<" + d.name + ">"
	case d.fault != nil && d.row == nil:
		return d.name
	case d.row == nil:
		return strings.TrimSpace(d.name + strings.Repeat(" ...", min(len(d.args), 1)))
	}
	words := []string{d.name}
	for i, a := range d.args {
		if i > 0 && strings.HasPrefix(d.name, "setenv") || d.name == "push" && strings.HasPrefix(a, "auth-token ") {
			a = "..."
		}
		words = append(words, quoteWord(a))
	}
	return strings.Join(words, " ")
}

// quoteWord writes a word so that Words reads it back.
func quoteWord(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\n\v\f\r\"'\\#;") {
		return w
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
}
