package slapdtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// configure writes slapd.conf and makes the directory for the database.
func (s *Server) configure(o Options) error {
	database := filepath.Join(s.Dir, "db")
	if err := os.Mkdir(database, 0o700); err != nil {
		return err
	}
	var c strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&c, format+"\n", args...) }
	for _, schema := range []string{"core", "cosine", "inetorgperson", "nis"} {
		line("include /etc/ldap/schema/%s.schema", schema)
	}
	line("modulepath /usr/lib/ldap")
	for _, module := range []string{"back_mdb", "ppolicy", "memberof"} {
		line("moduleload %s", module)
	}
	line("pidfile %s", filepath.Join(s.Dir, "slapd.pid"))
	line("argsfile %s", filepath.Join(s.Dir, "slapd.args"))
	line("logfile %s", s.log.Name())
	line("TLSCACertificateFile %s", s.CAFile)
	line("TLSCertificateFile %s", filepath.Join(s.Dir, "server.pem"))
	line("TLSCertificateKeyFile %s", filepath.Join(s.Dir, "server.key"))
	line("TLSVerifyClient never")
	line("database mdb")
	line("suffix %q", BaseDN)
	line("rootdn %q", rootDN)
	line("rootpw %s", rootPassword)
	line("directory %s", database)
	line("maxsize 16777216")
	line("dbnosync") // what a crash loses was made for this test only
	line("index objectClass,uid eq")
	readers := fmt.Sprintf("by dn.exact=%q read", BindDN)
	if o.Anonymous {
		readers = "by * read"
	}
	line("access to attrs=userPassword by anonymous auth by * none")
	line("access to * %s by anonymous auth by self read", readers)
	line("overlay ppolicy")
	line("ppolicy_default %q", "cn=policy,"+BaseDN)
	line("ppolicy_use_lockout") // say "locked", and not the same as for a wrong password
	if !o.NoMemberOf {
		line("overlay memberof")
	}
	return os.WriteFile(filepath.Join(s.Dir, "slapd.conf"), []byte(c.String()), 0o600)
}
