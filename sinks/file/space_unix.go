//go:build unix

package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hasSpace tells whether the file system of path has any space left.
func hasSpace(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if st.Blocks > 0 && st.Bavail == 0 {
		return &os.PathError{Op: "write", Path: path, Err: unix.ENOSPC}
	}
	return nil
}
