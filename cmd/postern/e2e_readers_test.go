package main

import (
	"encoding/csv"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/lab"
)

// The status files of a server with clients, read as collectors read them: the Prometheus exporter, collectd's plugin,
// and the lines of shell that installers and monitoring checks are made of.
func TestE2EStatusReaders(t *testing.T) {
	t.Parallel()
	f := newField(t, "alice", "bob")
	ccd := f.write("alice", "iroute 192.168.66.0 255.255.255.0")
	file := filepath.Join(f.Dir, "status.log")
	for version := 1; version <= 3; version++ {
		srv := f.serve("status "+file+" 1", "status-version "+strconv.Itoa(version), "client-config-dir "+filepath.Dir(ccd), "route 192.168.66.0 255.255.255.0")
		alice, bob := f.connect("alice"), f.connect("bob")
		alice.ping(lab.Lan4, 5, 56)
		var text string
		f.must(lab.Until(20*time.Second, func() error {
			text = f.read(file)
			if !strings.Contains(text, "192.168.66.0/24") || !strings.Contains(text, "bob") || !strings.HasSuffix(text, "END\n") {
				return fmt.Errorf("the file is not there yet:\n%s", text)
			}
			return nil
		}))
		if version > 1 {
			readAsExporter(t, text, version)
		}
		if got := readAsCollectd(text); len(got) != 2 || got["alice"] < 5*84 || got["bob"] == 0 {
			t.Errorf("version %d: collectd finds %v in\n%s", version, got, text)
		}
		for _, line := range map[int][]string{
			// An installer's list of who is connected.
			2: {`grep '^CLIENT_LIST,' "$1" | cut -d, -f2 | sort | paste -sd' '`},
			3: {`awk -F'\t' '$1 == "CLIENT_LIST" { print $2 }' "$1" | sort | paste -sd' '`},
			// A check that counts between two headings, one that takes the client's addresses, and one by numbers of lines.
			1: {`sed -e '1,/^Common Name/d' -e '/^ROUTING TABLE/,$d' "$1" | cut -d, -f1 | sort | paste -sd' '`,
				`sed -n '/^Virtual Address/,/^GLOBAL STATS/p' "$1" | grep '^10\.' | cut -d, -f2 | sort -u | paste -sd' '`,
				`head -5 "$1" | tail -2 | cut -d, -f1 | sort | paste -sd' '`},
		}[version] {
			out, err := exec.Command("sh", "-c", line, "sh", file).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != "alice bob" {
				t.Errorf("version %d: %s\nprints %q, %v; want alice bob", version, line, got, err)
			}
		}
		alice.stop()
		bob.stop()
		f.must(srv.Signal(syscall.SIGTERM))
		f.must(srv.Wait(10 * time.Second))
	}
}

// readAsExporter reads as openvpn_exporter does: CSV whose lines begin with a word it knows, TITLE with two fields, TIME
// with three, and every other line with as many as its HEADER; some columns by name, as numbers.
func readAsExporter(t *testing.T, text string, version int) {
	t.Helper()
	r := csv.NewReader(strings.NewReader(text))
	if version == 3 {
		r.Comma = '\t'
	}
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatalf("version %d is no CSV: %v", version, err)
	}
	headers, clients := make(map[string][]string), 0
	for _, row := range rows {
		kind := row[0]
		switch kind {
		case "TITLE", "TIME":
			if want := map[string]int{"TITLE": 2, "TIME": 3}[kind]; len(row) != want {
				t.Errorf("%q has %d fields, want %d", row, len(row), want)
			}
		case "HEADER":
			headers[row[1]] = row[2:]
		case "END", "GLOBAL_STATS":
		case "CLIENT_LIST", "ROUTING_TABLE":
			header := headers[kind]
			if len(row)-1 != len(header) {
				t.Errorf("%q has %d fields, its header %d", row, len(row)-1, len(header))
				continue
			}
			for i, name := range header {
				if name == "Bytes Received" || name == "Bytes Sent" || strings.HasSuffix(name, "(time_t)") {
					if n, err := strconv.ParseFloat(row[i+1], 64); err != nil || n == 0 {
						t.Errorf("%s of %q: %v, %v", name, row[1], n, err)
					}
				}
			}
			if kind == "CLIENT_LIST" {
				clients++
			}
		default:
			t.Errorf("the exporter knows no line %q", row)
		}
	}
	if clients != 2 {
		t.Errorf("version %d: the exporter finds %d clients", version, clients)
	}
}

// readAsCollectd reads as collectd's openvpn plugin does, and returns the bytes received of each client: version 1 by the
// exact line of its columns, versions 2 and 3 by HEADER.
func readAsCollectd(text string) map[string]float64 {
	found := make(map[string]float64)
	var columns []string
	listing := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		sep := ","
		if strings.Contains(line, "\t") {
			sep = "\t"
		}
		fields := strings.Split(line, sep)
		switch {
		case line == "Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since":
			listing = true
		case line == "ROUTING TABLE":
			listing = false
		case listing && len(fields) == 5:
			found[fields[0]], _ = strconv.ParseFloat(fields[2], 64)
		case fields[0] == "HEADER" && fields[1] == "CLIENT_LIST" && len(fields) <= 20:
			columns = fields[2:]
		case fields[0] == "CLIENT_LIST" && len(fields)-1 == len(columns):
			for i, name := range columns {
				if name == "Bytes Received" {
					found[fields[1]], _ = strconv.ParseFloat(fields[i+1], 64)
				}
			}
		}
	}
	return found
}
