// Package management speaks OpenVPN's management protocol: the text lines over a unix socket or TCP by which tools
// watch a server, answer its logins and end its clients. It knows the protocol and its Owner, nothing else: what a
// client is, who may come in and what a status file looks like is the server's.
//
//	tool      tool            tool                 the server
//	 |         |               |                    |        ^
//	 | lines   |               |                    |        | Owner: kill, client-auth, status, ...
//	 v         v               v                    |        |
//	conn      conn            conn    <-- events ---+        |
//	 reader: words -> command -> one call of Owner ----------+
//	 outbox: whole replies and whole events, in order, at most 1 MiB of events
//	 writer: to the socket
//
// Upstream serves one tool at a time; an Interface serves several (Options.MaxClients), each with its own real-time
// flags, byte count interval and environment filter. Events go to all of them; the first answer to a login counts,
// the Owner says no to the second.
//
// A connection has three goroutines: its reader, which runs commands one after another, its writer, and one that
// counts bytes. Events come from any goroutine of the server. They never wait: an event that finds a connection's
// outbox full is dropped for that connection and counted (S098). A reply is never dropped. Instead the reader takes
// no further command before half the outbox is free, so a tool that asks and does not read stops only itself.
//
// The lines of a reply are queued in one piece. Events that come while a command runs are kept until its reply is
// queued, so whatever a command brings about is told after its answer.
//
// Locks: Interface.mu, then outbox.mu. No lock is held while the Owner is called.
package management
