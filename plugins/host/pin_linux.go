package host

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// copyTarget makes the copy a file in memory that is sealed before it is run;
// where the system does not allow that, a file in the private folder.
func copyTarget(name, privateDir string) (*os.File, func() (*pinned, error), error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return copyToDir(name, privateDir)
	}
	f := os.NewFile(uintptr(fd), name)
	return f, func() (*pinned, error) {
		const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("sealing the copy of the pinned program: %w", err)
		}
		return &pinned{path: fmt.Sprintf("/proc/self/fd/%d", f.Fd()), file: f}, nil
	}, nil
}
