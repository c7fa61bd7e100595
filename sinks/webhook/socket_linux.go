//go:build !race && !386

package main

import (
	"syscall"
	"unsafe"
)

// The connections never block, so these system calls are made without telling the
// scheduler: where it is told, and the machine is busy, it takes such a call for
// one that hangs and has another thread go on, which costs more than the call. The race
// detector has to be told, too: it orders what is written before what is read.

func readSocket(fd uintptr, p []byte) (int, error) {
	return socketCall(syscall.SYS_READ, fd, p, 0)
}

func writeSocket(fd uintptr, p []byte) (int, error) {
	return socketCall(syscall.SYS_WRITE, fd, p, 0)
}

// quietSocket tells whether a connection is open and there is nothing to read.
func quietSocket(fd uintptr) bool {
	var one [1]byte
	_, err := socketCall(syscall.SYS_RECVFROM, fd, one[:], syscall.MSG_PEEK)
	return err == syscall.EAGAIN //nolint:errorlint // socketCall wraps nothing
}

func socketCall(trap, fd uintptr, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
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
