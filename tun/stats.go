package tun

import "sync/atomic"

// QueueStats count what a queue has moved since it was opened. A superpacket that was read is one packet; what is written
// counts as the packets that were put together.
type QueueStats struct {
	Reads      uint64 `json:"reads"` // times that a reader found something
	ReadCalls  uint64 `json:"read_calls"`
	PacketsIn  uint64 `json:"packets_in"`
	BytesIn    uint64 `json:"bytes_in"`
	WriteCalls uint64 `json:"write_calls"`
	PacketsOut uint64 `json:"packets_out"`
	BytesOut   uint64 `json:"bytes_out"`
	Dropped    uint64 `json:"dropped"` // packets that the kernel did not take
}

// A Counter is a Queue that counts.
type Counter interface {
	Stats() QueueStats
}

// counters are those of a queue: the reader moves its own, writers theirs under the queue's lock.
type counters struct {
	reads, readCalls, packetsIn, bytesIn atomic.Uint64

	_                                         [64]byte // the two directions run on different cores
	writeCalls, packetsOut, bytesOut, dropped atomic.Uint64
}

// read counts what one Read brought.
func (c *counters) read(calls, packets, bytes int) {
	c.reads.Add(1)
	c.readCalls.Add(uint64(calls))
	c.packetsIn.Add(uint64(packets))
	c.bytesIn.Add(uint64(bytes))
}

// wrote counts one write, which the kernel took or not.
func (c *counters) wrote(packets, bytes int, taken bool) {
	c.writeCalls.Add(1)
	if !taken {
		c.dropped.Add(uint64(packets))
		return
	}
	c.packetsOut.Add(uint64(packets))
	c.bytesOut.Add(uint64(bytes))
}

// Stats implements Counter. Any goroutine.
func (c *counters) Stats() QueueStats {
	return QueueStats{
		Reads: c.reads.Load(), ReadCalls: c.readCalls.Load(), PacketsIn: c.packetsIn.Load(), BytesIn: c.bytesIn.Load(),
		WriteCalls: c.writeCalls.Load(), PacketsOut: c.packetsOut.Load(), BytesOut: c.bytesOut.Load(), Dropped: c.dropped.Load(),
	}
}
