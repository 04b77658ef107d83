package management

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// count sends the byte counts of clients that had traffic, at the interval that the tool chose.
func (c *conn) count(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	ticker.Stop()
	var told map[ClientID]ByteCount
	for {
		select {
		case <-ctx.Done():
			return
		case every := <-c.interval:
			told = nil
			if ticker.Stop(); every > 0 {
				ticker.Reset(every)
			}
		case <-ticker.C:
			told = c.tellCounts(told)
		}
	}
}

// tellCounts tells what has changed since told, and returns what is told now.
func (c *conn) tellCounts(told map[ClientID]ByteCount) map[ClientID]ByteCount {
	counts := c.owner.ByteCounts()
	now := make(map[ClientID]ByteCount, len(counts))
	var b strings.Builder
	for _, n := range counts {
		now[n.Client] = n
		if n.Received == 0 && n.Sent == 0 || told[n.Client] == n {
			continue
		}
		fmt.Fprintf(&b, ">BYTECOUNT_CLI:%d,%d,%d\r\n", n.Client, n.Received, n.Sent)
		if b.Len() > countsChunk { // one event with all of them might be more than an outbox takes
			c.send(b.String())
			b.Reset()
		}
	}
	if b.Len() > 0 {
		c.send(b.String())
	}
	return now
}

const countsChunk = 32 << 10

// setInterval changes how often bytes are counted. The reader calls it, nobody else.
func (c *conn) setInterval(every time.Duration) {
	select {
	case <-c.interval: // an older wish that was not seen yet
	default:
	}
	c.interval <- every
}
