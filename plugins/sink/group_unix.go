//go:build unix

package sink

import (
	"os"
	"syscall"
)

// endGroup kills the process group that this process leads, and with it this
// process. One that leads no group has nothing to end: the others in it are not
// its own.
func endGroup() {
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
}
