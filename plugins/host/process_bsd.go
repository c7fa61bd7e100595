//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package host

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkSupported tells which options this system lacks.
func (o Options) checkSupported() error {
	switch {
	case o.NoNewPrivs:
		return errors.New("no_new_privs is there on Linux only")
	}
	return nil
}

func renouncePrivileges() error { return nil }

// giveWay does nothing: priorities of a thread are there on Linux only.
func giveWay() error { return nil }

// confine does nothing: limits are set on Linux only.
func confine(int, *Options) error { return nil }

// processAttributes: a group of its own, so that grandchildren can be stopped
// with the plugin and a Ctrl-C in the daemon's terminal does not reach it. When
// the daemon dies, the end of the inherited pipe tells the plugin.
func processAttributes(runAs *account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: runAs.credential()}
}

// awaitExit waits for the end of the process without reaping it; where the
// system refuses to tell, it reaps it.
func awaitExit(cmd *exec.Cmd) {
	queue, err := unix.Kqueue()
	if err != nil {
		_ = cmd.Wait()
		return
	}
	defer func() { _ = unix.Close(queue) }()
	var change unix.Kevent_t
	unix.SetKevent(&change, cmd.Process.Pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	change.Fflags = unix.NOTE_EXIT
	changes := []unix.Kevent_t{change}
	for {
		_, err := unix.Kevent(queue, changes, make([]unix.Kevent_t, 1), nil)
		switch {
		case errors.Is(err, unix.EINTR):
			changes = nil
		case err != nil: // ESRCH: it has ended already
			_ = cmd.Wait()
			return
		default:
			return
		}
	}
}

// signalGroup sends a signal to all processes of the group that cmd leads.
func signalGroup(cmd *exec.Cmd, sig syscall.Signal) error {
	return syscall.Kill(-cmd.Process.Pid, sig)
}
