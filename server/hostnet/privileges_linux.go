package hostnet

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// DropPrivileges makes the whole process, every thread of it, run as a user and group, given by name or number,
// without supplementary groups (S105). An empty user stays the present one; an empty group is the user's own. Of
// all capabilities those in keep remain, as far as the process has them. There is no way back: no program that it
// starts can gain privileges either, and its memory is closed to debuggers and core dumps (S109).
//
// What needs privileges must have been opened before. When DropPrivileges fails the process is in between and
// should end. It works only in programs built without cgo.
func DropPrivileges(userName, groupName string, keep ...Capability) error {
	uid, gid, err := lookUp(userName, groupName)
	if err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	caps, err := capabilities()
	if err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	kept := setOf(keep) & caps.permitted()
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"shrink the bounding set", func() error { return shrinkBounds(kept) }},
		{"keep capabilities over the change of user", func() error { return prctl(unix.PR_SET_KEEPCAPS, 1) }},
		{"change user and group", func() error { return become(uid, gid) }},
		{"clear ambient capabilities", func() error { return prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL) }},
		{"set capabilities", func() error { return setCapabilities(only(kept)) }},
		{"forget to keep capabilities", func() error { return prctl(unix.PR_SET_KEEPCAPS, 0) }},
		{"set no_new_privs", func() error { return prctl(unix.PR_SET_NO_NEW_PRIVS, 1) }},
		{"close memory", NoDumps},
		{"verify", func() error { return cannotReturn(uid, kept) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("drop privileges: %s: %w", step.what, err)
		}
	}
	return nil
}

// NoDumps keeps the process's memory, where the keys are, from core dumps and debuggers (S109).
func NoDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	// Dumpability belongs to the process, not to a thread.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close memory to debuggers: %w", err)
	}
	return nil
}

// lookUp finds the ids behind the names.
func lookUp(userName, groupName string) (uid, gid int, err error) {
	uid, gid = os.Getuid(), os.Getgid()
	if userName != "" {
		if u, err := user.Lookup(userName); err == nil {
			uid, gid = number(u.Uid), number(u.Gid)
		} else if uid = number(userName); uid < 0 {
			return 0, 0, err
		} else if u, err := user.LookupId(userName); err == nil {
			gid = number(u.Gid)
		} else if groupName == "" {
			return 0, 0, fmt.Errorf("user %s has no entry, so that its group must be given", userName)
		}
	}
	if groupName != "" {
		if g, err := user.LookupGroup(groupName); err == nil {
			gid = number(g.Gid)
		} else if gid = number(groupName); gid < 0 {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// number reads a decimal id; it is negative when s is none.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// shrinkBounds takes from all threads the chance of ever getting a capability other than kept.
func shrinkBounds(kept capSet) error {
	for c := Capability(0); c < 64; c++ {
		if kept.has(c) {
			continue
		}
		switch err := prctl(unix.PR_CAPBSET_DROP, uintptr(c)); {
		case errors.Is(err, unix.EINVAL):
			return nil // beyond the last that the kernel knows
		case errors.Is(err, unix.EPERM):
			return nil // started without privileges: no_new_privs does as well
		case err != nil:
			return err
		}
	}
	return nil
}

// become changes all ids of all threads. A process that was started as it should be needs no privileges for that.
func become(uid, gid int) error {
	groups, err := syscall.Getgroups()
	if err != nil {
		return err
	}
	if os.Getuid() == uid && os.Geteuid() == uid && os.Getgid() == gid && os.Getegid() == gid && len(groups) == 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

// cannotReturn tries what should be impossible now.
func cannotReturn(uid int, kept capSet) error {
	if uid != 0 && syscall.Setresuid(-1, 0, -1) == nil {
		return errors.New("the process could become root again")
	}
	caps, err := capabilities()
	if err != nil {
		return err
	}
	if got := caps.permitted() | caps.effective(); got != kept {
		return fmt.Errorf("capabilities are %#x, want %#x", got, kept)
	}
	return nil
}

// prctl calls prctl(2) on all threads: most of what it sets belongs to a thread.
func prctl(option int, arg uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, uintptr(option), arg, 0, 0, 0, 0)
	return allThreadsError(errno)
}
