package host

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkSupported tells which options this system lacks.
func (Options) checkSupported() error { return nil }

// processAttributes: a group of its own, so that grandchildren can be stopped
// with the plugin and a Ctrl-C in the daemon's terminal does not reach it; and
// killed by the kernel when the daemon dies.
func processAttributes(runAs *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: runAs.credential()}
}

// renouncePrivileges keeps all that this thread starts from gaining privileges.
// It cannot be taken back: the thread must not be used for anything else.
func renouncePrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	return nil
}

// pluginNice is by how much a plugin is nicer than the daemon: where both want all of a
// processor, the daemon has nine tenths of it. See docs/adr/0010-who-goes-first.md.
const pluginNice = 10

// giveWay has what this thread starts give way to the daemon. It takes privileges to
// take that back: the thread must not be used for anything else.
func giveWay() error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil {
		// The system call tells 20 - nice, so that it is never below zero.
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-now+pluginNice, 19))
	}
	if err != nil {
		return fmt.Errorf("setting the priority: %w", err)
	}
	return nil
}

// confine sets the limits of a process that has just been started. Until then it
// has those of the daemon, which is not long enough to do harm.
func confine(pid int, opts *Options) error {
	limits := []struct {
		name     string
		resource int
		value    uint64
	}{
		{"max_memory", unix.RLIMIT_DATA, uint64(opts.MaxMemory)},
		{"max_open_files", unix.RLIMIT_NOFILE, uint64(opts.MaxOpenFiles)},
	}
	for _, l := range limits {
		if l.value == 0 {
			continue
		}
		var now unix.Rlimit
		err := unix.Prlimit(pid, l.resource, nil, &now)
		if err == nil {
			value := min(l.value, now.Max) // to raise it takes privileges
			err = unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: value, Max: value}, nil)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended already
			return fmt.Errorf("setting %s: %w", l.name, err)
		}
	}
	return nil
}

// awaitExit waits for the end of the process without reaping it.
func awaitExit(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// signalGroup sends a signal to all processes of the group that cmd leads.
func signalGroup(cmd *exec.Cmd, sig syscall.Signal) error {
	return syscall.Kill(-cmd.Process.Pid, sig)
}
