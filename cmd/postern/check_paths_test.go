package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// A full tunnel's leaks are told for each system, with what to do.
func TestCheckTellsLeaks(t *testing.T) {
	t.Chdir(checkDir(t, "leak-guard no\npush \"redirect-gateway def1\"\npush \"dhcp-option DNS 10.9.0.1\"\n"))
	out, status := runCheck(t, "--config", "server.conf")
	if status != 0 {
		t.Fatalf("exit status %d:\n%s", status, out)
	}
	for _, want := range []string{
		"full tunnel: clients without a file of their own send\n",
		"                        DNS     IPv6   local networks\n",
		"  Windows               LEAKS   LEAKS  outside\n",
		"  macOS                 tunnel  LEAKS  outside\n",
		"  Linux, no DNS script  LEAKS   LEAKS  outside\n",
		"  Windows: Windows asks the name servers of all networks at once",
		"  Linux, no DNS script: OpenVPN up to 2.6 leaves the name server as it is",
		"  everywhere: IPv6 goes past the tunnel: push \"redirect-gateway def1 ipv6\", or write leak-guard yes\n",
		"no push prevents it\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _ = runCheck(t, "--json", "--config", "server.conf")
	var got struct {
		Paths struct {
			FullTunnel bool `json:"full_tunnel"`
			Platforms  []struct {
				Platform, DNS, IPv6 string
				Local               string `json:"local_networks"`
				Why                 []string
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if p := got.Paths.Platforms; !got.Paths.FullTunnel || len(p) != 7 || p[0].Platform != "Windows" || p[0].DNS != "leaks" || p[0].IPv6 != "leaks" || p[0].Local != "outside" || len(p[0].Why) != 2 {
		t.Errorf("as JSON: %+v", got)
	}
}

// What is as it should be needs no more than a line.
func TestCheckTellsOfSplitTunnel(t *testing.T) {
	t.Chdir(checkDir(t, "push \"route 172.16.0.0 255.255.0.0\"\n"))
	out, _ := runCheck(t, "--config", "server.conf")
	if !strings.Contains(out, "\nsplit tunnel: clients send through it what is routed to it") {
		t.Errorf("no word of the tunnel in\n%s", out)
	}
	t.Chdir(checkDir(t, "dev null\n"))
	if out, status := runCheck(t, "--config", "server.conf"); status != 1 || strings.Contains(out, " tunnel") {
		t.Errorf("a refused configuration has paths:\n%s", out)
	}
}
