package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// setup is how a daemon is to be run.
type setup struct {
	bin     string // folder of the programs
	dir     string // its folder: configuration, queue, what its sinks write
	sinks   []sinkBlock
	plugins string // plugin blocks
	grace   time.Duration
}

// sinkBlock is a sink of the configuration; every callback goes to every sink.
type sinkBlock struct {
	kind, name string
	settings   string // inside config
	options    string // beside config
}

// config writes the configuration. Ports are given by the kernel, the queue has
// its defaults but for its size.
func (s *setup) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, `
shutdown_grace = %q
listen { address = "127.0.0.1:0" }
admin { address = "127.0.0.1:0" }
log { level = "error" }
queue { max_bytes = "1TiB" }
source "tencent_im" "bench" {
  path        = "/callbacks/bench"
  sdk_app_ids = [1400000000]
  max_body    = "32MiB"
}
%s
`, s.grace, s.plugins)
	names := make([]string, len(s.sinks))
	for i, k := range s.sinks {
		names[i] = "sink." + k.name
		fmt.Fprintf(&b, "sink %q %q {\n%s\n  config {\n%s\n  }\n}\n", k.kind, k.name, k.options, k.settings)
	}
	fmt.Fprintf(&b, "pipeline \"all\" {\n  from = [source.bench]\n  to   = [%s]\n}\n", strings.Join(names, ", "))
	return b.String()
}

// daemon is a running callbackd.
type daemon struct {
	cmd     *exec.Cmd
	address string // of callbacks
	admin   string
	took    time.Duration // from its start until it took callbacks
	drained chan struct{}
	log     lastLines
}

// startPatience is how long a daemon may take until it takes callbacks.
const startPatience = time.Minute

// startDaemon runs a daemon and waits until it takes callbacks.
func startDaemon(ctx context.Context, s setup) (*daemon, error) {
	path := filepath.Join(s.dir, "bench.hcl")
	if err := os.WriteFile(path, []byte(s.config()), 0o600); err != nil {
		return nil, err
	}
	d := &daemon{cmd: exec.CommandContext(ctx, filepath.Join(s.bin, "callbackd"), "run", "--config", path), drained: make(chan struct{})}
	d.cmd.Stderr = &d.log
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = time.Minute
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon (make build builds it): %w", err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(d.drained)
		callbacks := regexp.MustCompile(`callbacks\s+http://([^/\s]+)`)
		metrics := regexp.MustCompile(`metrics\s+http://([^/\s]+)`)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := callbacks.FindStringSubmatch(lines.Text()); m != nil {
				d.address, d.took = m[1], time.Since(began)
			}
			if m := metrics.FindStringSubmatch(lines.Text()); m != nil && d.admin == "" {
				d.admin = m[1]
				close(ready)
			}
		}
	}()
	timer := time.NewTimer(startPatience)
	defer timer.Stop()
	select {
	case <-ready:
		return d, nil
	case <-d.drained:
		return nil, errors.Join(errors.New("the daemon did not start"), d.cmd.Wait(), errors.New(d.log.String()))
	case <-timer.C:
		return nil, errors.Join(fmt.Errorf("the daemon did not take callbacks within %v", startPatience), d.stop())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), d.stop())
	}
}

// stop stops the daemon, and waits until it has ended.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.drained
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the daemon ended: %w\n%s", err, d.log.String())
	}
	return nil
}

// kill ends the daemon as a power cut would, but for the disk.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	<-d.drained
	_ = d.cmd.Wait() // killed, as it should be
	return nil
}

// awaitUp waits until the sinks can be used.
func (d *daemon) awaitUp(ctx context.Context, sinks ...string) error {
	for deadline := time.Now().Add(startPatience); ; {
		m, err := d.metrics(ctx)
		if err != nil {
			return err
		}
		up := 0.0
		for _, s := range sinks {
			up += m[fmt.Sprintf("callbackd_sink_up{sink=%q}", s)]
		}
		if int(up) == len(sinks) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sinks %s are not up after %v:\n%s", strings.Join(sinks, ", "), startPatience, d.log.String())
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitReady waits until the daemon says that it is ready, and returns how long
// that took since it took callbacks.
func (d *daemon) awaitReady(ctx context.Context) (time.Duration, error) {
	for began := time.Now(); ; {
		code, _, err := d.get(ctx, "/-/ready")
		if err == nil && code == http.StatusOK {
			return time.Since(began), nil
		}
		if time.Since(began) > startPatience {
			return 0, fmt.Errorf("the daemon is not ready after %v:\n%s", startPatience, d.log.String())
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

func (d *daemon) get(ctx context.Context, path string) (code int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.admin+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	req.Close = true // a connection kept open would hold up the stop
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return res.StatusCode, string(b), err
}

// metrics returns the series of a scrape, by name and labels as they are written.
func (d *daemon) metrics(ctx context.Context) (map[string]float64, error) {
	_, text, err := d.get(ctx, "/metrics")
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return parseMetrics(text), nil
}

func parseMetrics(text string) map[string]float64 {
	out := make(map[string]float64)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			out[line[:i]] = v
		}
	}
	return out
}

// backlog is how many deliveries of a sink are not settled.
func backlog(metrics map[string]float64, sink string) int {
	n := 0.0
	for _, state := range []string{"pending", "in_flight", "delayed"} {
		n += metrics[fmt.Sprintf("callbackd_queue_deliveries{sink=%q,state=%q}", sink, state)]
	}
	return int(n)
}

// processes are the daemon and what it has started. Processes that only guard
// others are left out.
func (d *daemon) processes() []process {
	var out []process
	for _, p := range offspring(d.cmd.Process.Pid) {
		if strings.HasPrefix(p.name, "callbackd-sink-") {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b process) int { return strings.Compare(a.name, b.name) })
	return append([]process{{"callbackd", d.cmd.Process.Pid}}, out...)
}

// lastLines keeps the end of what a process says.
type lastLines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lastLines) Write(p []byte) (int, error) {
	const most = 16 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - most; over > 0 {
		l.text = l.text[:copy(l.text, l.text[over:])]
	}
	return len(p), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.text))
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
