package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A class is a kind of work, and the functions that do it: by name, or by how their names begin, with a * at the end.
// What they call is their work, too.
type class struct {
	name string
	of   []string
}

func (c *class) has(s stack) bool {
	return slices.ContainsFunc(s.frames, func(f string) bool {
		f = strings.TrimSuffix(f, ".abi0")
		return slices.ContainsFunc(c.of, func(name string) bool {
			prefix, any := strings.CutSuffix(name, "*")
			return f == name || any && strings.HasPrefix(f, prefix)
		})
	})
}

// Classes of work, by the stacks of Go's profile, which counts a system call where it is made. A stack is of the first
// class that has it.
var goClasses = []class{
	{"UDP send", []string{"postern/server/link.(*sender).sendmmsg*"}},
	{"UDP receive", []string{"postern/server/link.(*receiver).recvmmsg*"}},
	{"TUN read", []string{"postern/tun.(*offloadQueue).drainReady*", "postern/tun.(*plainQueue).Read"}},
	{"TUN write", []string{"postern/tun.(*offloadQueue).writevNow*", "postern/tun.(*plainQueue).Write"}},
	{"TCP write", []string{"postern/server/link.(*direct).sendmsg*", "internal/poll.(*FD).Write*"}},
	{"TCP read", []string{"internal/poll.(*FD).Read"}},
	{"TLS", []string{"crypto/tls.*"}},
	{"cipher", []string{"crypto/*", "golang.org/x/crypto/*"}},
	{"checksums", []string{"postern/tun.sum", "postern/tun.add64", "postern/tun.pseudoSum", "postern/tun.complement"}},
	{"allocation and GC", []string{"runtime.mallocgc*", "runtime.gc*", "runtime.bgsweep", "runtime.bgscavenge"}},
	{"epoll", []string{"runtime.netpoll"}},
	{"scheduler and locks", []string{"runtime.schedule", "runtime.mcall", "runtime.futex*", "runtime.ready*", "runtime.goready*", "runtime.gopark*", "runtime.chansend*",
		"runtime.chanrecv*", "runtime.select*", "runtime.lock*", "runtime.unlock*", "runtime.notewakeup", "runtime.wakep", "runtime.mstart*", "runtime.sysmon",
		"runtime.entersyscall*", "runtime.exitsyscall*", "runtime.netpoll*", "internal/sync.*", "sync.(*Mutex)*", "sync.(*RWMutex)*", "internal/poll.runtime_*",
		"internal/poll.(*fdMutex)*", "time.*"}},
	{"Postern's own code", []string{"postern/*"}},
	{"rest", []string{"*"}},
}

// Classes of work, by the stacks of perf: in the kernel, and outside of it in one.
var kernelClasses = []class{
	{"packet filter", []string{"nft_*", "nf_conntrack_*", "nf_nat_*", "nf_ct_*", "ipv4_conntrack_*", "ipv6_conntrack_*"}},
	{"receivers' stacks", []string{"net_rx_action", "process_backlog", "veth_poll"}},
	{"copying", []string{"_copy_to_iter", "_copy_from_iter", "copy_page_to_iter", "copy_page_from_iter", "rep_movs*", "__arch_copy_*"}},
	{"cutting", []string{"__skb_gso_segment", "skb_segment*", "__udp_gso_segment"}},
	{"UDP send", []string{"__sys_sendmmsg", "udp_sendmsg", "udpv6_sendmsg"}},
	{"UDP receive", []string{"__sys_recvmmsg", "udp_recvmsg", "udpv6_recvmsg"}},
	{"TUN read", []string{"tun_chr_read_iter"}},
	{"TUN write", []string{"tun_chr_write_iter"}},
	{"TCP write", []string{"tcp_sendmsg"}},
	{"TCP read", []string{"tcp_recvmsg"}},
	{"epoll and scheduler", []string{"do_epoll_wait", "do_epoll_pwait*", "do_futex", "schedule", "__schedule"}},
	{"other kernel work", []string{"do_syscall_64", "entry_SYSCALL_64*", "asm_*", "el0_*", "el0t_*", "el1h_*", "invoke_syscall", "ret_from_fork*"}},
	{outside, []string{"*"}},
}

const outside = "outside the kernel"

// A share is how much of a profile is of one class, in percent.
type share struct {
	class   string
	percent float64
}

// shares puts the stacks of a profile into classes, and returns those that have any, in the order of the classes.
func shares(of []stack, classes []class) (list []share) {
	total := weighed(of)
	for i, sum := range classed(of, classes) {
		if sum > 0 {
			list = append(list, share{classes[i].name, 100 * sum / total})
		}
	}
	return list
}

// classed is how much there is of each class.
func classed(of []stack, classes []class) []float64 {
	sums := make([]float64, len(classes))
	for _, s := range of {
		if i := slices.IndexFunc(classes, func(c class) bool { return c.has(s) }); i >= 0 {
			sums[i] += s.weight
		}
	}
	return sums
}

func weighed(list []stack) (sum float64) {
	for _, s := range list {
		sum += s.weight
	}
	return sum
}

// largest tells the n largest shares, in one line.
func largest(list []share, n int) string {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b share) int { return cmp.Compare(b.percent, a.percent) })
	var parts []string
	for _, s := range list[:min(n, len(list))] {
		parts = append(parts, fmt.Sprintf("%.0f %% %s", s.percent, s.class))
	}
	return strings.Join(parts, ", ")
}
