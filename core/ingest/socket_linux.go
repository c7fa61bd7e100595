//go:build !race

package ingest

import (
	"syscall"
	"unsafe"
)

// The connections never block, so these system calls are made without telling the
// scheduler: where it is told, and the machine is busy, it takes such a call for
// one that hangs and has another thread go on, which costs more than the call. The race
// detector has to be told, too: it orders what is written before what is read.

func readSocket(fd uintptr, p []byte) (int, error)  { return socketCall(syscall.SYS_READ, fd, p) }
func writeSocket(fd uintptr, p []byte) (int, error) { return socketCall(syscall.SYS_WRITE, fd, p) }

func socketCall(trap, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, syscall.EAGAIN
		default:
			return 0, errno
		}
	}
}
