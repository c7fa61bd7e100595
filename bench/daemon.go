package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// daemon is a running callbackd.
type daemon struct {
	cmd     *exec.Cmd
	address string
	drained chan struct{}
}

// startDaemon runs a daemon with one sink in dir.
func startDaemon(ctx context.Context, bin, dir, kind, settings string) (*daemon, error) {
	config := filepath.Join(dir, "bench.hcl")
	text := fmt.Sprintf(`
listen { address = "127.0.0.1:0" }
admin { address = "127.0.0.1:0" }
log { level = "warn" }
source "tencent_im" "bench" {
  path        = "/callbacks/bench"
  sdk_app_ids = [1400000000]
}
sink %q "out" {
  config {
%s
  }
}
pipeline "all" {
  from = [source.bench]
  to   = [sink.out]
}
`, kind, settings)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &daemon{cmd: exec.CommandContext(ctx, filepath.Join(bin, "callbackd"), "run", "--config", config), drained: make(chan struct{})}
	d.cmd.Stderr = os.Stderr
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = time.Minute
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon (make build builds it): %w", err)
	}
	ready := make(chan string, 1)
	go func() {
		defer close(d.drained)
		callbacks := regexp.MustCompile(`callbacks\s+http://([^/\s]+)`)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if m := callbacks.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
	}()
	select {
	case d.address = <-ready:
		return d, nil
	case <-d.drained:
		return nil, errors.Join(errors.New("the daemon did not start"), d.cmd.Wait())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), d.stop())
	}
}

func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.drained
	return d.cmd.Wait()
}

// usage returns the CPU seconds and the resident megabytes of the daemon and its
// sinks together.
func (d *daemon) usage() (cpu, megabytes float64) {
	pids := []int{d.cmd.Process.Pid}
	entries, _ := os.ReadDir("/proc") // elsewhere there is none: the daemon's own figures only
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && parent(pid) == d.cmd.Process.Pid {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		cpu += cpuSeconds(pid)
		megabytes += residentMB(pid)
	}
	return cpu, megabytes
}

// procStat returns the fields of /proc/PID/stat after the name; nil without it.
func procStat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

func parent(pid int) int {
	f := procStat(pid)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func cpuSeconds(pid int) float64 {
	const ticks = 100 // of the kernel's USER_HZ, the same everywhere
	f := procStat(pid)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / ticks
}

func residentMB(pid int) float64 {
	f := procStat(pid)
	if len(f) < 22 {
		return 0
	}
	pages, _ := strconv.ParseFloat(f[21], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// receiverFor makes what the sink delivers to, and the sink's settings for it.
// received counts what has arrived, each delivery once.
func receiverFor(ctx context.Context, kind, dir string) (received func() (int, error), settings string, closeIt func(), err error) {
	if kind == "file" {
		path := filepath.Join(dir, "out.jsonl")
		counter := &lineCounter{path: path}
		return counter.count, fmt.Sprintf("path = %q", path), counter.close, nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, err
	}
	var n atomic.Int64
	server := &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.Copy(io.Discard, r.Body)
		if err != nil || got != int64(len(body)) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		n.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = server.Serve(ln) }() // ends by Close
	return func() (int, error) { return int(n.Load()), nil },
		fmt.Sprintf("url = \"http://%s/\"", ln.Addr()), func() { _ = server.Close() }, nil
}

// lineCounter counts the lines of a file that grows.
type lineCounter struct {
	path  string
	file  *os.File
	lines int
}

func (c *lineCounter) count() (int, error) {
	if c.file == nil {
		f, err := os.Open(c.path)
		if errors.Is(err, os.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		c.file = f
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := c.file.Read(buf)
		c.lines += bytes.Count(buf[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			return c.lines, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (c *lineCounter) close() {
	if c.file != nil {
		_ = c.file.Close()
	}
}
