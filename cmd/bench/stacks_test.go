package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// What `go tool pprof -raw` prints becomes stacks with what was inlined, weighed by one of the types of values.
func TestGoStacks(t *testing.T) {
	const text = `PeriodType: cpu nanoseconds
Period: 10000000
Time: 2026-11-29 19:45:24.1 +0000 UTC
Duration: 2.0
Samples:
samples/count cpu/nanoseconds
          3   30000000: 1 2 
                lane:[up]
          1   10000000: 3 
          0          0: 2 
Locations
     1: 0x483b2e M=1 internal/runtime/syscall/linux.Syscall6 /go/src/asm.s:36:0 s=24
     2: 0x4a0001 M=1 syscall.RawSyscall6 /go/src/syscall.go:62:0 s=60
             postern/server/link.(*sender).sendmmsg /src/sender_linux.go:236:0 s=234
     3: 0x4a0002 M=1 
Mappings
1: 0x400000/0xc00000/0x0 /bin/postern  [FN]
`
	sendmmsg := []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "postern/server/link.(*sender).sendmmsg"}
	for kind, want := range map[string][]stack{"cpu": {{sendmmsg, 3e7}, {nil, 1e7}}, "samples": {{sendmmsg, 3}, {nil, 1}}} {
		if got, err := parseGo(strings.NewReader(text), kind); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, want %v", kind, got, err, want)
		}
	}
	for _, c := range []struct{ kind, text string }{{"inuse_space", text}, {"cpu", "no profile"}, {"cpu", ""}} {
		if got, err := parseGo(strings.NewReader(c.text), c.kind); err == nil {
			t.Errorf("%q in %.20q: %v, want an error", c.kind, c.text, got)
		}
	}
}

// What perf prints becomes stacks, too; each sample weighs the same.
func TestPerfStacks(t *testing.T) {
	const text = `
	ffffffff81c0de10 _raw_spin_unlock_irqrestore
	ffffffff81aa0000 __sys_sendmmsg
	          483b2e internal/runtime/syscall/linux.Syscall6.abi0

	          4a0002 [unknown]
`
	want := []stack{{[]string{"_raw_spin_unlock_irqrestore", "__sys_sendmmsg", "internal/runtime/syscall/linux.Syscall6.abi0"}, 1}, {[]string{"[unknown]"}, 1}}
	if got, err := parsePerf(strings.NewReader(text)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, err := parsePerf(strings.NewReader("failed to open perf.data")); err == nil {
		t.Errorf("%v, want an error", got)
	}
}

// A stack is of one class: that of what was asked of the kernel, wherever the kernel was, and of packages.
func TestClasses(t *testing.T) {
	const call = "internal/runtime/syscall/linux.Syscall6 syscall.RawSyscall6 "
	for _, c := range []struct {
		classes      []class
		frames, want string
	}{
		{goClasses, call + "postern/server/link.(*sender).sendmmsg internal/poll.(*FD).RawWrite net.(*rawConn).Write postern/server/link.(*UDP).Send", "UDP send"},
		{goClasses, call + "postern/tun.(*offloadQueue).drainReady internal/poll.(*FD).RawRead postern/server.(*downlink).read", "TUN read"},
		{goClasses, call + "postern/tun.(*offloadQueue).writevNow internal/poll.(*FD).RawWrite postern/tun.(*Coalescer).put", "TUN write"},
		{goClasses, call + "syscall.write internal/poll.(*FD).Write net.(*conn).Write postern/server/link.(*Stream).writeAll", "TCP write"},
		{goClasses, "syscall.RawSyscall6 syscall.RawSyscall postern/server/link.(*direct).sendmsg postern/server/link.(*direct).gather postern/server/link.(*Stream).Send", "TCP write"},
		{goClasses, "crypto/internal/fips140/aes/gcm.gcmAesEnc crypto/internal/fips140/aes/gcm.seal postern/server/datachan.(*Key).Seal", "cipher"},
		{goClasses, "encoding/binary.littleEndian.Uint64 postern/tun.add64 postern/tun.sum postern/tun.(*cut).finish", "checksums"},
		{goClasses, "runtime.futex runtime.futexsleep runtime.notesleep runtime.stopm runtime.findRunnable runtime.schedule runtime.park_m runtime.mcall", "scheduler and locks"},
		{goClasses, call + "internal/runtime/syscall/linux.EpollWait runtime.netpoll runtime.findRunnable runtime.schedule runtime.park_m runtime.mcall", "epoll"},
		{goClasses, "runtime.futex runtime.futexwakeup runtime.ready runtime.goready runtime.send runtime.chansend postern/server/link.(*Stream).Send", "scheduler and locks"},
		{goClasses, "runtime.scanobject runtime.gcDrain runtime.gcBgMarkWorker.func2 runtime.systemstack runtime.gcBgMarkWorker runtime.goexit", "allocation and GC"},
		{goClasses, "runtime.memmove postern/server.(*uplink).train runtime.goexit", "Postern's own code"},
		{goClasses, "runtime.goexit", "rest"},
		{kernelClasses, "nft_do_chain nf_hook_slow ip_forward process_backlog net_rx_action do_softirq udp_sendmsg __sys_sendmmsg do_syscall_64", "packet filter"},
		{kernelClasses, "skb_segment __udp_gso_segment udp_queue_rcv_skb process_backlog net_rx_action udp_sendmsg __sys_sendmmsg do_syscall_64", "receivers' stacks"},
		{kernelClasses, "tcp_ack tcp_v4_rcv veth_poll net_rx_action tun_get_user tun_chr_write_iter do_writev do_syscall_64", "receivers' stacks"},
		{kernelClasses, "_copy_from_iter ip_generic_getfrag udp_sendmsg __sys_sendmmsg do_syscall_64", "copying"},
		{kernelClasses, "kfree tun_chr_read_iter vfs_read do_syscall_64", "TUN read"},
		{kernelClasses, "finish_task_switch.isra.0 __schedule schedule do_epoll_wait do_syscall_64 runtime.mcall", "epoll and scheduler"},
		{kernelClasses, "ksys_read do_syscall_64", "other kernel work"},
		{kernelClasses, "crypto/internal/fips140/aes/gcm.gcmAesEnc.abi0 runtime.goexit.abi0", outside},
	} {
		got := shares([]stack{{strings.Fields(c.frames), 2}}, c.classes)
		if len(got) != 1 || got[0].class != c.want || got[0].percent != 100 {
			t.Errorf("%s\n: %v, want %s", c.frames, got, c.want)
		}
	}
}

// What classes name of Postern's is there: a function that is called otherwise now would count as something else.
func TestClassesNameFunctions(t *testing.T) {
	for _, c := range goClasses {
		for _, name := range c.of {
			name = strings.TrimSuffix(name, "*")
			path, ok := strings.CutPrefix(name, "postern/")
			dir, function, named := strings.Cut(path, ".")
			if !ok || !named {
				continue
			}
			files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, file := range files {
				parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range parsed.Decls {
					f, ok := d.(*ast.FuncDecl)
					if !ok {
						continue
					}
					is := f.Name.Name
					if f.Recv != nil {
						is = "(" + types.ExprString(f.Recv.List[0].Type) + ")." + is
					}
					found = found || is == function
				}
			}
			if !found {
				t.Errorf("class %q: there is no %s", c.name, name)
			}
		}
	}
}

// A profile of a Postern that a stock client downloads through is told apart nearly wholly.
func TestRecordedProfile(t *testing.T) {
	f, err := os.Open("testdata/cpu.raw")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := parseGo(f, "cpu")
	if err != nil {
		t.Fatal(err)
	}
	got, sum := make(map[string]float64), 0.0
	for _, s := range shares(list, goClasses) {
		got[s.class] = s.percent
		sum += s.percent
	}
	if math.Abs(sum-100) > 0.001 {
		t.Errorf("shares add up to %v", sum)
	}
	for _, name := range []string{"UDP send", "UDP receive", "TUN read", "TUN write", "cipher", "epoll"} {
		if got[name] == 0 {
			t.Errorf("nothing is %s: %v", name, got)
		}
	}
	if got["rest"] > 3 || got["TCP write"] > 0 {
		t.Errorf("%v", got)
	}
}

// Whatever a profiler prints, it becomes stacks or an error.
func FuzzStacks(f *testing.F) {
	f.Add("Samples:\na/count\n1: 1\nLocations\n1: 0x1 M=1 f x:1:0 s=1\n", "a")
	f.Add("Samples:\na/count b/c\n1: 1\n1 2: 7\n", "b")
	f.Add("  1f  f\n\n 2  g\n", "")
	f.Fuzz(func(t *testing.T, text, kind string) {
		if list, err := parseGo(strings.NewReader(text), kind); err == nil {
			_ = shares(list, goClasses)
		}
		if list, err := parsePerf(strings.NewReader(text)); err == nil {
			_ = shares(list, kernelClasses)
		}
	})
}
