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

// What has expired stays so, and nothing that was seen is forgotten by it.
func TestExpire(t *testing.T) {
	client, server := pair(t, "AES-128-GCM", 0)
	accepts := func(id uint64, want bool) {
		t.Helper()
		if _, _, err := open(t, server, seal(client, []byte("x"), id)); (err == nil) != want {
			t.Errorf("id %d: %v, want it accepted: %t", id, err, want)
		}
	}
	expire := func(id uint64) {
		server.Lock()
		server.Expire(id)
		server.Unlock()
	}
	accepts(10, true)
	accepts(4, true)
	expire(5)
	expire(2)
	accepts(5, false)
	accepts(3, false)
	accepts(6, true)
	accepts(6, false)
	accepts(11, true)
}

// A sequential key takes the ids one after the other, from anywhere but 0.
func TestSequential(t *testing.T) {
	client, server := pair(t, "AES-128-GCM", datachan.Sequential)
	for _, step := range []struct {
		id   uint64
		want bool
	}{{0, false}, {7, true}, {0, false}, {7, false}, {6, false}, {9, false}, {8, true}, {9, true}} {
		if _, _, err := open(t, server, seal(client, []byte("x"), step.id)); (err == nil) != step.want {
			t.Errorf("id %d: %v, want it accepted: %t", step.id, err, step.want)
		}
	}
}
