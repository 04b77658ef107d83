// Package tlsctl is the OpenVPN control channel: TLS over OpenVPN's own reliability layer, with the wraps around it and
// the key exchange inside. It knows no socket, no policy and no TUN device. It is the server's side; a Client on the same
// layers is there for whoever measures a server (client.go).
//
// The layers, from the wire up:
//
//	datagram, or frame of a stream
//	  |
//	  |  address unknown                     address known
//	  v                                        v
//	Gate  cookie, limits; keeps nothing      Session.Deliver
//	  |                                        |
//	  +--- Opening: the cookie came back ----> Session.Run
//	                                           |
//	  wrapper    none, tls-auth, tls-crypt,    |   is it from who has the key, and new?
//	             tls-crypt-v2, dynamic         v
//	  Packet     opcode, key id, session ids,  |   whose negotiation is it?
//	             acks, message id              v
//	  reliable   windows, order, repetition    |   bytes in order, once
//	             (pure; one a negotiation)     v
//	  conn       a net.Conn for crypto/tls     |
//	                                           v
//	  TLS        handshake, then records: key exchange (exchange.go), messages (message.go)
//	                                           |
//	                                           v
//	  Owner      Admit decides, and may have the user asked for more first (question.go);
//	             Install takes the data keys, with what else was agreed on about them (terms.go)
//
// A stranger costs nothing before the Gate: no memory, no log line, no goroutine; what he is sent is never more than
// what came from his address. The Gate's answer carries a session id that is a keyed hash of that address, and only
// its return makes a Session. Replay is judged by the wrapper, once a packet is authentic; a bad packet is an error
// without text, counted by whoever branches on it.
//
// Parsers and wraps lend their results: a Packet's Payload points into the packet that was opened. What must live
// longer is copied, which reliable does with what it holds.
package tlsctl
