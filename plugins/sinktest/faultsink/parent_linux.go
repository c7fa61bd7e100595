package faultsink

import "golang.org/x/sys/unix"

// ignoreParentSignal takes back that the kernel kills this process with the
// daemon.
func ignoreParentSignal() { _ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }
