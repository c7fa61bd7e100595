//go:build unix

package contract

import (
	"os/exec"
	"syscall"
)

// alone makes that a program leads a process group of its own, all of which is
// killed with it.
func alone(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
