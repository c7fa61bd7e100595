//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package host

import (
	"os/exec"
	"syscall"
)

// Here plugins run, but without process groups: their grandchildren are their
// own matter.

func processAttributes() *syscall.SysProcAttr { return nil }

func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }

func signalGroup(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Process.Kill() }
