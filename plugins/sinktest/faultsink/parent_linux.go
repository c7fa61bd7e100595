package faultsink

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ignoreParentSignal takes back that the kernel kills this process with the
// daemon.
func ignoreParentSignal() { _ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }

// leaveGroup makes cmd lead a process group of its own.
func leaveGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
