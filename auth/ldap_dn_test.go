package auth_test

import (
	"testing"

	"postern/auth"
)

// S059: names that mean one group have one form, and no others have it.
func TestNormalDN(t *testing.T) {
	for _, alike := range [][]string{
		{"cn=vpn users,ou=groups,dc=example", "CN=VPN Users, OU=Groups,DC=Example", "cn = vpn users,ou= groups,dc=example"},
		{`cn=a\,b,dc=example`, `CN=A\2CB,dc=example`},
		{`cn=a+uid=b,dc=x`, `UID=B+cn=A,dc=x`},
		{"cn=müller,dc=x", "cn=MÜLLER,dc=x", `cn=m\c3\bcller,dc=x`},
		{`cn=\#1,dc=x`, `cn=\231,dc=x`},
	} {
		want, err := auth.NormalDN(alike[0])
		if err != nil {
			t.Fatal(err)
		}
		if again, err := auth.NormalDN(want); err != nil || again != want {
			t.Errorf("%q became %q, and that %q, %v", alike[0], want, again, err)
		}
		for _, other := range alike[1:] {
			if got, err := auth.NormalDN(other); err != nil || got != want {
				t.Errorf("%q is %q, %v; want %q", other, got, err, want)
			}
		}
	}
	seen := make(map[string]string)
	for _, name := range []string{"cn=vpn,dc=x", "cn=vpn,dc=y", "cn=vpn,ou=vpn,dc=x", `cn=vpn\,dc=x`, "cn=vpn+ou=x,dc=x", "cn=vpn2,dc=x", `cn=\ff,dc=x`, `cn=\fe,dc=x`, "ou=vpn,dc=x"} {
		dn, err := auth.NormalDN(name)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if seen[dn] != "" {
			t.Errorf("%q and %q are both %q", seen[dn], name, dn)
		}
		seen[dn] = name
	}
	for _, bad := range []string{"", " ", "vpn", "cn=vpn,", `cn=\`, `\ =0`, "a b=c", "=x"} {
		if dn, err := auth.NormalDN(bad); err == nil {
			t.Errorf("%q is %q", bad, dn)
		}
	}
}
