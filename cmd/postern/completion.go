package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"postern/server/config"
)

// completionFlag is what the scripts below add to a command line to be told what may stand at its end. It is cli's.
const completionFlag = "--generate-bash-completion"

// The scripts ask the program itself, which knows its commands from cli and directives from the table.
var completionScripts = map[string]string{
	"bash": `_postern() {
	local cur="${COMP_WORDS[COMP_CWORD]}" words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $cur == -* ]] && words+=("$cur")
	COMPREPLY=($(compgen -W "$("${words[@]}" ` + completionFlag + ` 2>/dev/null)" -- "$cur"))
	[[ ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$cur"))
}
complete -o bashdefault -o default -F _postern postern
`,
	"zsh": `#compdef postern
_postern() {
	local -a found words_before
	words_before=("${(@)words[1,CURRENT-1]}")
	[[ "${words[CURRENT]}" == -* ]] && words_before+=("${words[CURRENT]}")
	found=("${(@f)$("${words_before[@]}" ` + completionFlag + ` 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _postern postern
`,
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script that lets a shell complete postern's command lines",
		ArgsUsage: "bash|zsh",
		Description: "For bash, put into ~/.bashrc: source <(postern completion bash)\n" +
			"For zsh, put into ~/.zshrc, behind compinit: source <(postern completion zsh)",
		Action: func(c *cli.Context) error {
			args, err := positional(c)
			if err != nil {
				return err
			}
			if len(args) != 1 || completionScripts[args[0]] == "" {
				return fmt.Errorf("usage: postern completion bash|zsh")
			}
			_, err = io.WriteString(c.App.Writer, completionScripts[args[0]])
			return err
		},
	}
}

// completeDirectives prints what may stand at the end of an openvpn command line: directives, or what the last one
// takes, as far as that is one of a few words.
func completeDirectives(out io.Writer, args []string) {
	last := ""
	if len(args) > 0 {
		last = strings.TrimPrefix(args[len(args)-1], "--")
	}
	for _, d := range config.Directives() {
		if d.Name != last || len(args) == 0 || !strings.HasPrefix(args[len(args)-1], "--") {
			continue
		}
		words := strings.Fields(strings.Trim(strings.TrimPrefix(d.Usage, d.Name), " []"))
		if len(words) > 0 && strings.Contains(words[0], "|") {
			fmt.Fprintln(out, strings.Join(strings.Split(strings.Trim(words[0], "[]"), "|"), "\n"))
		}
		return // a file, a number, a name
	}
	for _, d := range config.Directives() {
		if d.Usable {
			fmt.Fprintln(out, "--"+d.Name)
		}
	}
	for name := range standAlone {
		fmt.Fprintln(out, "--"+name)
	}
}
