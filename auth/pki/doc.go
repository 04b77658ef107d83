// Package pki is a certificate authority kept in easy-rsa 3's directory layout, so that a tree made by easy-rsa is
// adopted as it is, and easy-rsa can go on working on a tree made or changed here:
//
//	pki/                       0700; the directory that Open and Init are given
//	  ca.crt  private/ca.key   the authority; the key may be encrypted
//	  index.txt                every certificate ever issued and what became of it, as `openssl ca` keeps it
//	  index.txt.attr           unique_subject = no
//	  serial                   easy-rsa's next serial number; ours are random and leave it alone
//	  issued/NAME.crt          the current certificate of NAME, private/NAME.key its key, reqs/NAME.req its request
//	  certs_by_serial/HEX.pem  a copy of every certificate that is not revoked
//	  renewed/...              what a renewal replaced, still valid until it expires or NAME is revoked
//	  revoked/*_by_serial/     certificate, key and request of what was revoked
//	  crl.pem                  the revocation list
//
// Every change goes through one journal file. What is to be done is worked out first (keys made, certificates and
// the revocation list signed), written down durably in .postern-journal, and only then done, one file after the
// other, each by temporary file, fsync, rename and fsync of its directory. Whoever comes next after a crash finishes
// what the journal says. So a kill at any point leaves the old tree or the new one, and an answer that was given is
// on disk. A lock file keeps two processes of ours apart; easy-rsa 3.1 takes no lock, so do not run both at once.
package pki
