//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package host

import (
	"errors"
	"os/exec"
	"syscall"
)

// Here plugins run, but without process groups: their grandchildren are their
// own matter.

// checkSupported tells which options this system lacks.
func (o Options) checkSupported() error {
	switch {
	case o.NoNewPrivs:
		return errors.New("no_new_privs is there on Linux only")
	case o.User != "" || o.Group != "":
		return errors.New("on this system a plugin cannot run as another user")
	}
	return nil
}

func renouncePrivileges() error { return nil }

func giveWay() error { return nil }

// confine does nothing: limits are set on Linux only.
func confine(int, *Options) error { return nil }

func processAttributes(*account) *syscall.SysProcAttr { return nil }

func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }

func signalGroup(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Process.Kill() }
