// Package server is the running server: the one hub where control channel, logins, data path and devices meet.
// The packages it joins do not know each other.
//
//	           UDP socket i                    TUN queue i
//	               |  ^                            |  ^
//	        Receive|  |Send                    Read|  |Write
//	               v  |                            v  |
//	 lane i:    uplink  sender  <-- downlink ------+  coalescer <-- uplink
//	               |      ^
//	control packets|      |pings
//	  (copied)     v      |
//	           control   keeper (1/s)
//	          /       \
//	 known session    stranger
//	session.Deliver   gatekeeper -> tlsctl.Gate -> Opening -> open: a client with a session of its own
//
// # Uplink: a datagram to the TUN
//
// One recvmmsg leaves trains in the socket's buffers. A data packet names its client (peer id), which names the key;
// the key is locked once for the run of packets that share it. Each packet is opened where it lies, its inner source
// must be the client's, and it goes to the coalescer, which writes superpackets when the batch is through. Pings end
// here. A packet from a new address moves the client there if it was the newest (the float rule), after the run. An
// address names a client only together with the door it came to: a listener, or a stream.
//
// # Downlink: a packet from the TUN
//
// A Read gives what is at hand, superpackets left whole. The destination finds the client, the client its home
// sender, nearly always this lane's own. Under the sender's mutex ids are reserved, segments cut and sealed into the
// arena back to back; equal ones for one client make a train. One sendmmsg sends all.
//
// # Pools
//
// Every pool is a zone with a device of its own (zone.go); lane i has queue i of each. Which zone a client is in, and what
// it may do there, is its policy's matter (policy.go), at Admit and whenever groups or policies change; the kernel's
// packet filter is told by the enforcer (enforce.go), and rates are held in the lanes (limit.go). A plain configuration
// is one zone without policies.
//
// # Handshake
//
// A control packet of a known (address, session id) is delivered to its session, which copies it. Any other goes to
// the gatekeeper, a goroutine of its own, through a bounded queue that drops when full; it answers from the packet
// alone. When a cookie comes back, open makes a client and starts Session.Run. The session asks Admit (logins may
// take as long as they like: nobody else waits), then hands over the key (Install), which publishes the client to
// the lanes, and says Established when the PUSH_REPLY is out.
//
// # Goroutines
//
//	lane uplink           one for each UDP socket             ends when its socket is closed
//	lane downlink         one for each queue of each device   ends when its queue is closed
//	gatekeeper            one for each UDP listener           ends with the server
//	accept, stream        one a TCP listener, one a stream    end when listener, stream are closed
//	keeper                one                                 ends with the server
//	watch, enforcer       one each                            end with the server
//	share                 one                                 ends with the server
//	files                 one, which a disk may hang          ends when all else has
//	Session.Run           one a client                        client gone, denied, or the server ends
//
// Run starts all of them and waits for all of them, a few seconds only for files.
//
// # Locks
//
// Server.reevaluating, past.mu, then table.mu, then client.mu, then the locks of a client's keys. pool.mu, halfOpen.mu and sender.mu stand alone, and no
// two senders are held at once. A key's lock and sender.mu are never held while calling into tlsctl, auth or the table's
// writers. No lock is held over Admit.
//
// # Management
//
// A management.Interface calls a ManagementOwner (manage.go), which finds the clients in the table, and is told of
// states and clients as they come and go. Telling never waits; no lock is held over it.
//
// # Panics
//
// What one peer sends may cost that peer its session and nobody else anything: a batch, a greeting and a stream each
// recover, unlock what they held, count, log the stack, and end the client that was at work (panic.go). tlsctl does the
// same for its sessions.
package server
