package hooks

import "time"

// A Kind is one of the events that a script can be run at, named as its directive is.
type Kind string

const (
	Up                 Kind = "up"
	Down               Kind = "down"
	RouteUp            Kind = "route-up"
	RoutePreDown       Kind = "route-pre-down"
	TLSCryptV2Verify   Kind = "tls-crypt-v2-verify"
	TLSVerify          Kind = "tls-verify"
	AuthUserPassVerify Kind = "auth-user-pass-verify"
	ClientCRResponse   Kind = "client-crresponse"
	ClientConnect      Kind = "client-connect"
	LearnAddress       Kind = "learn-address"
	ClientDisconnect   Kind = "client-disconnect"
)

// scriptType is what the script is told in script_type.
func (k Kind) scriptType() string {
	if k == AuthUserPassVerify {
		return "user-pass-verify"
	}
	return string(k)
}

// DefaultLimit is how long a script of the kind may take when Options.Limit does not say otherwise.
func (k Kind) DefaultLimit() time.Duration {
	switch k {
	case TLSCryptV2Verify, TLSVerify, LearnAddress:
		return 5 * time.Second
	case Up, Down, RouteUp, RoutePreDown:
		return time.Minute
	default:
		return 30 * time.Second
	}
}

// beforeLogin tells the hooks that somebody who has not logged in can cause.
func (k Kind) beforeLogin() bool {
	switch k {
	case TLSCryptV2Verify, TLSVerify, AuthUserPassVerify, ClientCRResponse:
		return true
	}
	return false
}

// forgiving tells the hooks whose failure changes nothing for anybody.
func (k Kind) forgiving() bool {
	return k == Down || k == RouteUp || k == RoutePreDown || k == ClientDisconnect
}
