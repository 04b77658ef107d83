package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A process is a server on this machine whose cost is looked at; 0: none.
type process int

// usage is what a process has used so far, and holds now.
type usage struct {
	cpu float64 // seconds, user and system
	rss int64   // bytes
}

// now reads the usage of the process; all zero where there is none to look at.
func (p process) now() usage {
	if p == 0 {
		return usage{}
	}
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return u
	}
	// Behind the name, which is in parentheses and may hold anything, the state is the first field, utime the 12th.
	if i := bytes.LastIndexByte(stat, ')'); i > 0 {
		if f := strings.Fields(string(stat[i+1:])); len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			u.cpu = (user + system) / 100 // USER_HZ of every Linux that Go runs on
		}
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p))
	if f := strings.Fields(string(statm)); err == nil && len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		u.rss = pages * int64(os.Getpagesize())
	}
	return u
}
