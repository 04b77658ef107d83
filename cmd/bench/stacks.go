package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A stack is where a program was, innermost function first, and how much speaks for it: samples, nanoseconds or bytes.
type stack struct {
	frames []string
	weight float64
}

// parseGo reads a profile of Go's as `go tool pprof -raw` prints it: the stacks, with the values of one type, such as cpu.
// What is inlined has frames of its own.
func parseGo(r io.Reader, kind string) ([]stack, error) {
	type sample struct {
		weight float64
		at     []int
	}
	var (
		section string
		column  = -1
		samples []sample
		places  = make(map[int][]string)
		place   int // to which lines without a number of their own belong
	)
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		text := s.Text()
		switch f := strings.Fields(text); {
		case len(f) == 0:
		case text == "Samples:" || text == "Locations" || text == "Mappings":
			section = text
		case section == "Samples:" && column < 0:
			for i, t := range f {
				if name, _, _ := strings.Cut(t, "/"); name == kind {
					column = i
				}
			}
			if column < 0 {
				return nil, fmt.Errorf("the profile has no %q: it has %s", kind, text)
			}
		case section == "Samples:":
			values, at, ok := strings.Cut(text, ": ")
			v := strings.Fields(values)
			if !ok || column >= len(v) {
				continue // labels of the sample above
			}
			w, err := strconv.ParseFloat(v[column], 64)
			if err != nil {
				continue // likewise
			}
			one := sample{weight: w}
			for _, id := range strings.Fields(at) {
				n, err := strconv.Atoi(id)
				if err != nil {
					return nil, fmt.Errorf("sample %q: %w", text, err)
				}
				one.at = append(one.at, n)
			}
			samples = append(samples, one)
		case section == "Locations":
			// `     1: 0x4a1b2c M=1 function file:line:column s=line`, and lines `function file...` of what inlined it.
			if n, err := strconv.Atoi(strings.TrimSuffix(f[0], ":")); err == nil && strings.HasSuffix(f[0], ":") {
				place, f = n, f[1:]
				places[place] = nil
				for len(f) > 0 && (strings.HasPrefix(f[0], "0x") || strings.HasPrefix(f[0], "M=")) {
					f = f[1:]
				}
			}
			if len(f) > 0 {
				places[place] = append(places[place], f[0])
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if section == "" {
		return nil, fmt.Errorf("this is no profile of Go's")
	}
	var list []stack
	for _, one := range samples {
		st := stack{weight: one.weight}
		for _, id := range one.at {
			st.frames = append(st.frames, places[id]...)
		}
		if st.weight > 0 {
			list = append(list, st)
		}
	}
	return list, nil
}

// parsePerf reads what `perf script -F ip,sym` prints: a line for each frame, and an empty one behind each stack.
func parsePerf(r io.Reader) (list []stack, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	var frames []string
	end := func() {
		if len(frames) > 0 {
			list = append(list, stack{slices.Clone(frames), 1})
		}
		frames = frames[:0]
	}
	for s.Scan() {
		address, symbol, _ := strings.Cut(strings.TrimSpace(s.Text()), " ")
		if address == "" {
			end()
			continue
		}
		if _, err := strconv.ParseUint(address, 16, 64); err != nil {
			return nil, fmt.Errorf("perf script: %q begins with no address", s.Text())
		}
		frames = append(frames, symbol)
	}
	end()
	return list, s.Err()
}
