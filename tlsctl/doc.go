// Package tlsctl is the OpenVPN control channel, server side: TLS over OpenVPN's own reliability layer, with the
// wraps around it and the key exchange inside. It knows no socket, no policy and no TUN device.
package tlsctl
