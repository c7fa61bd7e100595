//go:build !linux

package host

import "os"

// copyTarget makes the copy a file in the private folder.
func copyTarget(name, privateDir string) (*os.File, func() (*pinned, error), error) {
	return copyToDir(name, privateDir)
}
