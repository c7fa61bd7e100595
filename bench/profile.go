package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// profiled begins to record where each process spends its processor time, with
// Linux perf: the product has no profiler, and needs none. end ends it and writes
// a report beside each recording.
func (c *common) profiled(ctx context.Context, name string, processes []process) (end func() error, err error) {
	if c.profile == "" {
		return func() error { return nil }, nil
	}
	perf, err := exec.LookPath("perf")
	if err != nil {
		return nil, fmt.Errorf("-profile needs the program perf (in Debian the package linux-perf): %w", err)
	}
	if err := os.MkdirAll(c.profile, 0o755); err != nil { //nolint:gosec // profiles are no secret
		return nil, err
	}
	type recording struct {
		cmd  *exec.Cmd
		path string
	}
	var all []recording
	stop := func() error {
		var errs []error
		for _, r := range all {
			errs = append(errs, r.cmd.Process.Signal(syscall.SIGINT))
			_ = r.cmd.Wait() // perf tells of its signal by its status
			report, err := exec.CommandContext(ctx, perf, "report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.3", "-i", r.path).Output()
			errs = append(errs, err, os.WriteFile(strings.TrimSuffix(r.path, ".data")+".txt", report, 0o644)) //nolint:gosec // profiles are no secret
		}
		return errors.Join(errs...)
	}
	for _, p := range processes {
		path := filepath.Join(c.profile, name+"-"+slug(p.name)+".data")
		cmd := exec.CommandContext(ctx, perf, "record", "-q", "-e", "cpu-clock", "-F", "499", "-g", "-o", path, "-p", strconv.Itoa(p.pid))
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(err, stop())
		}
		all = append(all, recording{cmd, path})
	}
	return stop, nil
}
