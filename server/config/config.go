// Package config is the configuration language: OpenVPN's server.conf with Postern's own directives in it. It
// turns files into plain values and opens nothing but those files.
package config

import (
	"crypto"
	"encoding/asn1"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Config is one server's configuration. It is validated once and never changed after.
type Config struct {
	Path string // the file it came from
	Dir  string // directory that relative names start from (the working directory, or cd)

	Listen  []Listen
	SendBuf int // SO_SNDBUF bytes; 0 leaves ours
	RecvBuf int
	// Multihome: answer from the address that was asked; SameInterface: also by the interface.
	Multihome, SameInterface bool
	BindDev                  string // the one interface to listen on; "" all
	Mark                     uint32 // SO_MARK; 0 none
	MTUDisc                  string // no, maybe, yes; "" leaves it to the system
	PortShare                PortShare
	Balancers                []netip.Prefix // Postern: proxy-protocol-from
	BlockIPv6                bool
	PassTOS                  bool

	MaxClients int
	// ConnectFreq bounds new sessions over UDP, ConnectFreqInitial answers to first packets that lead to none.
	ConnectFreq, ConnectFreqInitial Frequency
	TCPQueue                        int // tcp-queue-limit, packets

	Dev      string // "tun" picks the next free number
	MTU      int
	TxQueue  int
	Tap      bool             // Ethernet frames, not IP packets
	Bridge   bool             // server-bridge: Addr4 belongs to a bridge that the device will be part of, not to the device
	LLAddr   net.HardwareAddr // of a tap device; nil: any
	MaxMACs  int              // max-routes-per-client: addresses that are learned behind one client of a tap server
	StaleMAC time.Duration    // stale-routes-check: how long an unused one is kept; 0: for good
	Topology Topology
	// Server's own addresses inside, with the network's prefix length. Zero when the family is not served.
	Addr4, Addr6            netip.Prefix
	Peer4                   netip.Addr // the other end of Addr4, in Net30 and P2P
	Pool4                   Range      // first..last; zero without a pool
	Pool6                   Range      // first address and, by Last, the size of the pool
	Pool6Bits               int        // prefix length pushed with IPv6 addresses
	PoolPersist             string
	PoolPersistEvery        time.Duration // 0: read only, entries fixed
	Routes                  []Route       // kernel routes into the tunnel
	RouteTable              int           // where those go; 0: the main table
	NoRouteExec, NoIfconfig bool
	NAT                     bool // Postern: nat yes
	NoOffload               bool // Postern: tun-offload no
	NoLeakGuard             bool // Postern: leak-guard no

	Pools         []Pool   // Postern: pool blocks; AllPools has the one of server too
	Policies      []Policy // Postern: policy blocks, in order; none: everybody may do the same
	GatewayAccess []Rule   // Postern: gateway-access
	DNSForward    []DNSForward

	Push              []string     // in the order they go on the wire, macros' pushes included
	PushConstraint    netip.Prefix // what fixed IPv4 addresses should be in; others are warned of
	ClientConfigDir   string
	CCDExclusive      bool
	ClientToClient    bool
	DuplicateCN       bool
	UsernameAsCN      bool
	VerifyClientCert  CertMode
	Ping, PingRestart time.Duration // server side (keepalive has been doubled)
	PingExit          time.Duration
	Inactive          time.Duration
	InactiveBytes     int64
	SessionTimeout    time.Duration
	ExitNotify        int // explicit-exit-notify N

	CA, Cert, Key, ExtraCerts Material
	CRL                       Material
	CRLDir                    bool // crl-verify DIR dir
	TLSAuth                   Material
	TLSAuthDirection          int // -1 both ways, 0, 1
	TLSCrypt                  Material
	TLSCryptV2                Material
	ForceCookie               bool
	Auth                      string   // digest, canonical upper case: SHA1, SHA256...
	TLSMin, TLSMax            uint16   // crypto/tls version numbers; TLSMax 0: none
	CipherSuites              []uint16 // crypto/tls ids for TLS 1.2; nil: default
	Curves                    []uint16 // crypto/tls CurveIDs; nil: default
	RemoteCertTLS             bool     // remote-cert-tls client
	VerifyX509Name            string
	VerifyX509Type            string   // subject, name, name-prefix
	PeerFingerprints          [][]byte // SHA-256 of leaves
	X509NameField             string   // x509-username-field; "": CN
	RemoteCertKU              []uint8  // sets of key usages, one of which must be there; 0: any
	RemoteCertEKU             asn1.ObjectIdentifier
	IssuerHashes              []CertHash // verify-hash
	TLSCryptV2MaxAge          time.Duration
	ForceExporter             bool // force-tls-key-material-export

	HandWindow, TranWindow, TLSTimeout   time.Duration
	Renegotiate                          time.Duration // 0: never
	RenegotiateMin                       time.Duration // lower bound of the random choice; 0: 90 % of Renegotiate
	RenegotiateBytes, RenegotiatePackets int64

	DataCiphers    []string // canonical names
	CipherFallback string
	ReplayWindow   int // packets
	MSSFix         MSSFix
	MaxPacket      int // max-packet-size, IP and UDP headers included

	Status        string
	StatusEvery   time.Duration
	StatusVersion int
	Verb          int
	Log           string
	LogAppend     bool
	NoTimestamps  bool // suppress-timestamps
	// MachineReadable is the form of log lines of machine-readable-output.
	MachineReadable bool
	Mute            int    // lines that say the same; 0: all
	Daemon          bool   // go into the background
	Syslog          string // the name to log to syslog with; "" does not, nor with Log
	Nice            int
	RemapUSR1       string // what SIGUSR1 means: "" or SIGHUP, SIGTERM
	User, Group     string
	WritePID        string
	SetEnv          [][2]string
	Audit           string // Postern: audit FILE; "": none
	AuditContinue   bool   // Postern: audit-failure continue
	Control         string // Postern: control-socket PATH, for postern status

	Management Management

	Scripts Scripts

	LDAP   *LDAP
	Realms []*LDAP // further directories
	// LDAPRefresh is how often the directory is asked about those who are connected; 0: never.
	LDAPRefresh     time.Duration
	LDAPMaxFailures int  // of one user that a directory may see; 0: the default
	LoginByCert     bool // the directory judges the certificate's name, without a password

	AuthLDAP AuthLDAP

	Users string // auth-users-file
	// LoginMustMatchCert: login = certificate CN. Default yes.
	LoginMustMatchCert bool
	LoginOptional      bool // auth-user-pass-optional

	GenToken      bool          // auth-gen-token
	TokenLifetime time.Duration // 0: as long as can be
	TokenRenewal  time.Duration
	TokenExternal bool     // external-auth
	TokenSecret   Material // not set: one of the process's own
	TokenOpenVPN  bool     // Postern: auth-gen-token-format openvpn

	// One-time codes, all Postern's.
	TOTPFile     string // auth-totp-file; "": none
	TOTPOptional bool
	TOTPPlace    TOTPPlace
	TOTPText     string // "": the default
	TOTPUsed     string // auth-totp-used
}

// CertHash is the hash of a certificate.
type CertHash struct {
	Hash crypto.Hash
	Sum  []byte
}

// A Frequency is so many in a period; zero: any number.
type Frequency struct {
	N      int
	Period time.Duration
}

// WantLogin reports whether clients must send a user name and password.
func (c *Config) WantLogin() bool {
	return c.Management.ClientAuth || c.LDAP != nil && !c.LoginByCert || c.AuthLDAP.File != "" || c.Users != "" || c.Scripts.Commands["auth-user-pass-verify"] != nil
}

// PortShare is the service that shares TCP ports with the server. Host "": none.
type PortShare struct {
	Host string
	Port int
	Dir  string // of files by which it learns its clients' addresses; "": none
}

// Target is the service's address.
func (p PortShare) Target() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }

// Directories is every directory that is asked, the first one first.
func (c *Config) Directories() []*LDAP {
	if c.LDAP == nil {
		return nil
	}
	return append([]*LDAP{c.LDAP}, c.Realms...)
}

// Listen is one address to listen on.
type Listen struct {
	Network string         // udp or tcp
	Proto   string         // the same as scripts are told, and as it was written: udp4, tcp6-server, ...
	Addr    netip.AddrPort // unspecified address: all; 4-in-6 never
	V6Only  bool
	Any4    bool // an unspecified IPv4 address: IPv4 only
}

type Topology uint8

const (
	Subnet Topology = iota // one network, in which each client has an address
	Net30                  // four addresses for a client: it and the server's end stand in the middle
	P2P                    // one address for a client, whose other end is the server
)

func (t Topology) String() string { return [...]string{"subnet", "net30", "p2p"}[t] }

type CertMode uint8

const (
	CertRequire CertMode = iota
	CertOptional
	CertNone
)

// Range is addresses from First to Last, both included.
type Range struct{ First, Last netip.Addr }

// Route is a kernel route into the tunnel.
type Route struct {
	Net     netip.Prefix
	Gateway netip.Addr // zero: through the device
	Metric  int
}

// Material is PEM or other file contents: by name or inline. Name is for messages, and for reading again.
type Material struct {
	Name  string // absolute path, or "[inline]"
	Bytes []byte `json:"-"` // contents, read when the configuration was
}

// String and GoString leave the contents out: they may be a private key.
func (m Material) String() string   { return m.Name }
func (m Material) GoString() string { return strconv.Quote(m.Name) }

// Set reports whether the directive was given.
func (m Material) Set() bool { return m.Name != "" }

// MSSFix is how TCP maximum segment sizes are lowered. Max 0: not at all.
type MSSFix struct {
	Max  int
	Mode MSSMode
}

type MSSMode uint8

const (
	MSSLink  MSSMode = iota // Max bounds the UDP payload
	MSSMTU                  // Max includes outer IP and UDP or TCP headers
	MSSFixed                // MSS = Max - 40 (60 for IPv6)
)

// AuthLDAP is the file of openvpn-auth-ldap, the plugin, whose language is another. Who knows it makes an LDAP of it.
type AuthLDAP struct {
	File      string // absolute; "" without the plugin
	Dir       string // from which relative names in it start
	Cleartext bool   // ldap-allow-cleartext stands beside it
}

// LDAP is the directory login.
type LDAP struct {
	Realm          string // of logins NAME@Realm; "" all others
	URLs           []string
	Domain         string // whose SRV records name servers
	StartTLS       bool
	CA             Material
	Cert, Key      Material // our own
	BindDN         string
	BindPassword   string `json:"-"` // from ldap-bind-password-file
	BindAs         string // %u is the login; "" the entry that was found
	UserBase       string
	UserFilter     string // %u is the login, escaped
	RequireGroups  []string
	GroupSearches  []GroupSearch
	GroupBase      string
	AllGroups      bool // all groups of a user are wanted: policies go by them
	DirectGroups   bool // ldap-nested-groups no
	Addr4Attr      string
	Addr6Attr      string
	PoolAttr       string
	RouteAttr      string
	Timeout        time.Duration // per step
	AllowCleartext bool
	NamedByCert    bool // the certificate's name is the login, whatever was typed
}

// A GroupSearch finds groups that are as good as those of RequireGroups.
type GroupSearch struct {
	Base, Filter string
	Attribute    string // of a group, holds its members
	ByName       bool   // as the value that their DNs begin with
}

// String and GoString leave the password out.
func (l LDAP) String() string {
	return fmt.Sprintf("%v as %q below %q", l.URLs, l.BindDN, l.UserBase)
}
func (l LDAP) GoString() string { return l.String() }

// Client is what a client-config-dir file says of one client.
type Client struct {
	Path          string
	Disable       bool
	IfconfigPush4 netip.Addr
	IfconfigMask  netip.Addr // mask or peer, as written
	Alias4        netip.Addr // pushed in place of IfconfigPush4, which is what it is known by here; zero: none
	IfconfigPush6 netip.Prefix
	Gateway6      netip.Addr
	IRoutes       []netip.Prefix
	PushReset     bool
	PushRemove    []PushRemove
	Push          []string
	// Timers of its own, where it has them; nil: the configuration's.
	Ping, PingTimeout, Inactive, SessionTimeout *time.Duration
	InactiveBytes                               int64    // with Inactive
	Warnings                                    []string // lines that were skipped, with file and line
}

// PushRemove is one push-remove and how many of Client.Push stood before it.
type PushRemove struct {
	Prefix string
	At     int
}
