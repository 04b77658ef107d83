package tlsctl

import "strings"

// chooseCipher picks the data cipher: the first of the server's list that the client names in its peer info or, if it
// cannot name any there, in its options string. The fallback serves clients that name none at all. Names compare
// without regard to case; the result is in the server's spelling.
func chooseCipher(server []string, fallback string, peer PeerInfo, options string) (string, bool) {
	theirs := peer.Ciphers()
	var legacy string
	if _, named := peer.Get("IV_CIPHERS"); !named {
		legacy = optionValue(options, "cipher")
		if legacy == "[null-cipher]" {
			legacy = ""
		}
	}
	for _, ours := range server {
		if strings.EqualFold(ours, legacy) {
			return ours, true
		}
		for _, c := range theirs {
			if strings.EqualFold(ours, c) {
				return ours, true
			}
		}
	}
	if len(theirs) == 0 && legacy == "" && fallback != "" {
		return fallback, true
	}
	return "", false
}

// optionValue returns the value of an item of an options string, as in "dev-type tun".
func optionValue(options, name string) string {
	for item := range strings.SplitSeq(options, ",") {
		if key, value, ok := strings.Cut(item, " "); ok && key == name {
			return value
		}
	}
	return ""
}

// hasOption reports whether an options string has an item without a value, as in "comp-lzo".
func hasOption(options, name string) bool {
	for item := range strings.SplitSeq(options, ",") {
		if item == name {
			return true
		}
	}
	return false
}

// standardOptions is what we say to a client whose own options string is not fit to be mirrored.
const standardOptions = "V4,dev-type tun,link-mtu 1549,tun-mtu 1500,proto UDPv4,cipher AES-256-GCM," +
	"auth [null-digest],keysize 256,key-method 2,tls-server"

// mirrorOptions answers a client's options string with its counterpart. Clients compare the two only to warn their
// users, so the counterpart of whatever they said is the right answer.
func mirrorOptions(client string) string {
	if !strings.HasPrefix(client, "V4,") || len(client) >= maxOptions-8 || !printable(client) {
		return standardOptions
	}
	items := strings.Split(client, ",")
	for i, item := range items {
		switch item {
		case "tls-client":
			items[i] = "tls-server"
		case "tls-server":
			items[i] = "tls-client"
		case "proto TCPv4_CLIENT":
			items[i] = "proto TCPv4_SERVER"
		case "proto TCPv4_SERVER":
			items[i] = "proto TCPv4_CLIENT"
		case "keydir 0":
			items[i] = "keydir 1"
		case "keydir 1":
			items[i] = "keydir 0"
		}
	}
	return strings.Join(items, ",")
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
