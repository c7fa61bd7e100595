//go:build unix && (!linux || race)

package ingest

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

func socketCall(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
