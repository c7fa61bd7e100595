package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// fact is something that figures depend on.
type fact struct{ name, value string }

// facts of the machine and of what was measured.
func facts(ctx context.Context, bin, dir string) []fact {
	return []fact{
		{"date", time.Now().UTC().Format("2006-01-02")},
		{"revision", revision(ctx, bin)},
		{"Go", runtime.Version()},
		{"processor", fmt.Sprintf("%d × %s", runtime.NumCPU(), fileField("/proc/cpuinfo", "model name", ":"))},
		{"memory", fmt.Sprintf("%.0f GiB", kilobytes(fileField("/proc/meminfo", "MemTotal", ":"))/(1<<20))},
		{"kernel", runtime.GOOS + " " + oneLine("/proc/sys/kernel/osrelease")},
		{"file system of the queue", fileSystem(dir)},
		{"durability", "a success answer means synced to disk (fsync); sinks and receivers are processes of their own"},
	}
}

// revision is what the daemon says that it was built from.
func revision(ctx context.Context, bin string) string {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "callbackd"), "version").Output()
	if fields := strings.Fields(string(out)); err == nil && len(fields) > 1 {
		return fields[1]
	}
	return "unknown"
}

func oneLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// fileField returns the value of the first line with the name.
func fileField(path, name, separator string) string {
	b, _ := os.ReadFile(path) // elsewhere there is none: unknown
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kilobytes(text string) float64 {
	var kb float64
	_, _ = fmt.Sscanf(text, "%f", &kb) // unknown: 0
	return kb
}

// fileSystem is the type of the file system that holds dir.
func fileSystem(dir string) string {
	b, _ := os.ReadFile("/proc/self/mounts") // elsewhere there is none: unknown
	return mountOf(string(b), dir)
}

func mountOf(mounts, dir string) string {
	best, kind := "", "unknown"
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		at := strings.TrimSuffix(f[1], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= len(best) {
			best, kind = at, f[2]
		}
	}
	if kind == "tmpfs" {
		kind += ", in memory: a sync costs nothing there, so the figures mean little (-dir names another folder)"
	}
	return kind
}

// folderBytes is what a folder takes up on disk.
func folderBytes(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
