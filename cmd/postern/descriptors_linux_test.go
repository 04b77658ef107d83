package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What is open already and what must stay spare are not for clients over TCP (S117, F28).
func TestStreamBudget(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before, err := streamBudget()
	if err != nil {
		t.Fatal(err)
	}
	if most := int(limit.Cur) - spareDescriptors; before >= most {
		t.Errorf("a budget of %d of %d", before, limit.Cur)
	}
	for range 10 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if after, err := streamBudget(); err != nil || after != before-10 {
		t.Errorf("with ten files open the budget went from %d to %d, %v", before, after, err)
	}
	low := limit
	low.Cur = 40
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err = streamBudget()
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); e != nil {
		t.Fatal(e)
	}
	if err == nil {
		t.Error("a limit of 40 leaves something for clients")
	}
}
