//go:build unix

package host

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// untrustedOwner tells why the owner or the group of a file is not to be trusted.
func untrustedOwner(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	if stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Sprintf("it belongs to %s", userName(stat.Uid))
	}
	if info.Mode().Perm()&0o020 != 0 && stat.Gid != 0 && !isPrivateGroup(stat.Uid, stat.Gid) {
		return fmt.Sprintf("group %s may write to it", groupName(stat.Gid))
	}
	return ""
}

// isPrivateGroup tells whether a group is the one that many systems give each user
// alone, with a umask that lets it write.
func isPrivateGroup(uid, gid uint32) bool {
	return userName(uid) == groupName(gid)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
