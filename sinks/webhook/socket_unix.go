//go:build unix && (!linux || race || 386)

package main

import (
	"errors"
	"syscall"
)

func readSocket(fd uintptr, p []byte) (int, error) {
	return socketCall(func() (int, error) { return syscall.Read(int(fd), p) })
}

func writeSocket(fd uintptr, p []byte) (int, error) {
	return socketCall(func() (int, error) { return syscall.Write(int(fd), p) })
}

// quietSocket tells whether a connection is open and there is nothing to read.
func quietSocket(fd uintptr) bool {
	var one [1]byte
	_, err := socketCall(func() (int, error) {
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		return n, err
	})
	return errors.Is(err, syscall.EAGAIN)
}

func socketCall(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
