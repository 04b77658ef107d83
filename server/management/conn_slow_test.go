package management_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/server/management"
)

// S098, F43: a tool that never reads misses events and is told so; the others get theirs, and nobody waits.
func TestToolThatDoesNotRead(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, c *tool) {
		deaf := connectDeaf(t.Context(), t, i, management.Access{})
		synctest.Wait()
		const events = 10_000
		value := strings.Repeat("v", 200)
		start := time.Now()
		for n := range events {
			i.ClientEstablished(management.ClientID(n), n, env([2]string{"common_name", value}))
			if n%100 == 0 { // the other one reads, but needs a turn to
				if got := strings.Count(c.heard(), ">CLIENT:ESTABLISHED,"); n > 0 && got != 100 {
					t.Fatalf("the tool that reads got %d of 100 events", got)
				}
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the events took %v", d)
		}
		dropped := i.Dropped()
		if dropped == 0 || dropped >= events {
			t.Fatalf("%d of %d events were dropped", dropped, events)
		}
		go deaf.read()
		got := deaf.heard()
		if len(got) < management.OutboxLimit/2 || len(got) > management.OutboxLimit+1000 {
			t.Errorf("%d bytes were kept", len(got))
		}
		told := fmt.Sprintf(">INFO:%d notifications were dropped, since this client read too slowly\r\n", dropped)
		if !strings.HasSuffix(got, ">CLIENT:ENV,END\r\n"+told) {
			t.Errorf("it ends in %q, want %q", got[max(len(got)-300, 0):], told)
		}
		if n := strings.Count(got, ">CLIENT:ESTABLISHED,"); uint64(n)+dropped != events || strings.Count(got, ">CLIENT:ENV,END\r\n") != n {
			t.Errorf("%d events came and %d were dropped, of %d", n, dropped, events)
		}
		i.ClientEstablished(1, 1, nil)
		deaf.wants("once it reads", deaf.heard(), lines(">CLIENT:ESTABLISHED,1", ">CLIENT:ENV,n_clients=1", ">CLIENT:ENV,END"))
		deaf.wants("a command", deaf.ask("verb"), lines("SUCCESS: verb=4"))
		deaf.leave()
	})
}

// After a drop a tool gets nothing new before it has read half of what waits: its gap is one piece, told where it is.
func TestGapIsOnePiece(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, _ *fakeOwner, _ *tool) {
		slow := connectDeaf(t.Context(), t, i, management.Access{})
		synctest.Wait()
		for i.Dropped() == 0 {
			i.Info(strings.Repeat("before ", 1000))
			synctest.Wait() // the other one reads
		}
		var got strings.Builder
		read := func(bytes int) {
			b := make([]byte, bytes)
			n, err := readFull(slow.nc, b)
			got.Write(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		read(management.OutboxLimit / 4)
		i.Info("in the gap")
		if n := i.Dropped(); n != 2 {
			t.Errorf("%d were dropped", n)
		}
		read(management.OutboxLimit / 2)
		i.Info("after the gap")
		i.Info("at last")
		slow.got.WriteString(got.String())
		go slow.read()
		want := lines(">INFO:2 notifications were dropped, since this client read too slowly", ">INFO:after the gap", ">INFO:at last")
		if all := slow.heard(); !strings.HasSuffix(all, "before \r\n"+want) || strings.Contains(all, "in the gap") {
			t.Errorf("it ends in %q", all[max(0, len(all)-400):])
		}
		slow.leave()
	})
}

// S098: replies are never dropped. A tool that asks and does not read is not answered further, and after a minute it
// is let go, so that it does not keep its place for ever.
func TestToolThatAsksAndDoesNotRead(t *testing.T) {
	inBubble(t, management.Options{}, func(t *testing.T, i *management.Interface, owner *fakeOwner, c *tool) {
		deaf := connectDeaf(t.Context(), t, i, management.Access{})
		go deaf.nc.Write([]byte(strings.Repeat("test 5000\nkill x\n", 100)))
		synctest.Wait()
		if n := len(owner.calls()); n == 0 || n > 5 {
			t.Errorf("%d commands were run", n)
		}
		c.wants("the other one", c.ask("verb"), lines("SUCCESS: verb=4"))
		time.Sleep(time.Minute - time.Second)
		select {
		case err := <-deaf.done:
			t.Fatalf("before its time: %v", err)
		default:
		}
		time.Sleep(time.Second)
		<-deaf.done
		deaf.nc.Close()
	})
}
