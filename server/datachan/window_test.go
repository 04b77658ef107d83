package datachan_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"postern/server/datachan"
)

// A stream with losses, jumps, duplicates and late packets, judged by a window that remembers everything.
func TestWindowAgainstModel(t *testing.T) {
	for _, size := range []int{1, 2, 63, 64, 65, 127, 128, 512, 2048, 65536, 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			client, server := pair(t, "AES-128-GCM", size)
			if size == 0 {
				size = datachan.DefaultWindow
			}
			random := rand.New(rand.NewPCG(1, uint64(size)))
			seen := map[uint64]bool{}
			var highest uint64
			for range 3000 {
				id := highest + 1
				switch random.IntN(8) {
				case 0:
					id += random.Uint64N(uint64(size))
				case 1:
					id += random.Uint64N(4 * uint64(size))
				case 2, 3, 4:
					id -= min(random.Uint64N(uint64(size)+2), id)
				}
				want := id != 0 && !seen[id] && (id > highest || highest-id < uint64(size))
				_, _, err := open(t, server, seal(client, []byte("x"), id))
				if err != nil && !errors.Is(err, datachan.ErrReplay) {
					t.Fatal(err)
				}
				if got := err == nil; got != want {
					t.Fatalf("id %d with %d the highest: accepted %t, want %t", id, highest, got, want)
				}
				if want {
					seen[id] = true
					highest = max(highest, id)
				}
				server.Lock()
				if got := server.Highest(); got != highest {
					t.Fatalf("highest is %d, want %d", got, highest)
				}
				server.Unlock()
			}
		})
	}
}
