package main

import (
	"fmt"
	"strings"
	"testing"

	"postern/server/config"
	"postern/server/firewall"
)

// Where the kernel has no nftables the server does not start, and says which policies need it.
func TestPoliciesWithoutFilter(t *testing.T) {
	err := fmt.Errorf("table postern_tun0: %w", firewall.ErrUnsupported)
	with := &config.Config{Policies: []config.Policy{{Name: "staff"}, {Name: "guests"}}}
	if got := guardError(with, err).Error(); !strings.HasPrefix(got, "policy staff, guests: ") || !strings.Contains(got, "load nf_tables, or remove the policies") {
		t.Errorf("with policies: %s", got)
	}
	if got := guardError(&config.Config{}, err).Error(); !strings.HasPrefix(got, "nat: ") {
		t.Errorf("with nat alone: %s", got)
	}
}
