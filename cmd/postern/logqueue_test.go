package main

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// F12: whoever logs never waits for who collects the lines, and learns nothing of it; the collector is told how many
// lines it missed.
func TestLogNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		collector, out := io.Pipe() // takes nothing that is not read
		direct := newLogger(out, logForm{json: true, times: true})
		queue := startLogQueue(out, direct)
		log := newLogger(queue, logForm{json: true, times: true})
		log.Info().Msg("first")
		synctest.Wait() // it is being written
		const more = 10
		for range logQueueLines + more {
			log.Info().Msg("one of many") // a deadlock here fails the bubble
		}
		read := make(chan string)
		go func() {
			b, _ := io.ReadAll(collector)
			read <- string(b)
		}()
		queue.Close()
		out.Close()
		got := <-read
		if n := strings.Count(got, "\n"); n != 1+logQueueLines+1 {
			t.Errorf("%d lines, want %d: the first, those of the queue, and one about the others", n, 1+logQueueLines+1)
		}
		if want := `"lines":10,"`; !strings.Contains(got, want) {
			t.Errorf("no line with %s", want)
		}
	})
}

// The end of the program waits for a collector that has stopped, but not for ever.
func TestLogQueueCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		collector, out := io.Pipe()
		direct := newLogger(out, logForm{json: true, times: true})
		queue := startLogQueue(out, direct)
		queue.Write([]byte("a line\n"))
		synctest.Wait()
		begun := time.Now()
		queue.Close()
		if took := time.Since(begun); took != logPatience {
			t.Errorf("closing took %v, want %v", took, logPatience)
		}
		collector.Close() // lets the goroutine go
	})
}
