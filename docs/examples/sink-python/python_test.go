//go:build linux

// Package sinkpython_test runs the Python sinks the way the daemon does.
package sinkpython_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// module is where the module callbackd_sink is kept; the one here is a copy.
const module = "../../../plugins/scaffold/python/callbackd_sink"

// python is a Python with what a sink needs.
func python(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CALLBACKD_PYTHON")
	if path == "" {
		t.Skip("Python with gRPC is not there: make check installs it and sets CALLBACKD_PYTHON")
	}
	return path
}

func TestTheModuleIsACopy(t *testing.T) {
	t.Parallel()
	if files := compareFolders(t, module, "callbackd_sink"); files < 10 {
		t.Errorf("only %d files were found", files)
	}
}

func compareFolders(t *testing.T, want, got string) int {
	t.Helper()
	names := make(map[string]bool)
	for _, dir := range []string{want, got} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.Name() != "__pycache__" {
				names[entry.Name()] = true
			}
		}
	}
	for name := range names {
		a, errA := os.ReadFile(filepath.Join(want, name))
		b, errB := os.ReadFile(filepath.Join(got, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs in %s and %s: run make generate-python (%v, %v)", name, want, got, errA, errB)
		}
	}
	return len(names)
}

func TestExampleConfiguration(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"config.hcl", "contract.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if out, diags := config.Format(name, src); diags.HasErrors() || !bytes.Equal(out, src) {
			t.Errorf("%s is not formatted: %v\n%s", name, diags, out)
		}
	}
	cfg, diags := config.Load("config.hcl", config.Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	want, err := filepath.Abs("sink.py")
	if err != nil || len(cfg.Sinks) != 1 || !slices.Equal(cfg.Sinks[0].Plugin.Command, []string{want}) {
		t.Errorf("the sinks are %+v, want one run by %s", cfg.Sinks, want)
	}
}

// TestUnits runs the tests that are written in Python.
func TestUnits(t *testing.T) {
	t.Parallel()
	python := python(t)
	for _, dir := range []string{".", "testdata"} {
		cmd := exec.CommandContext(t.Context(), python, "-W", "error", "-m", "unittest", "-v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PYTHONPATH=..")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "Ran 0 tests") || !strings.Contains(string(out), "Ran ") {
			t.Errorf("in %s: %v\n%s", dir, err, out)
		}
	}
}

// logs collects what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) contain(t *testing.T, want ...string) {
	t.Helper()
	for _, text := range want {
		eventually(t, func() bool { return strings.Contains(l.String(), text) }, "%q in the log", text)
	}
}

func eventually(t *testing.T, done func() bool, what string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within 20 s: "+what, args...)
		}
	}
}

// options are those of a sink of this folder.
func options(t *testing.T, script string) (host.Options, *logs) {
	t.Helper()
	path, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	l := &logs{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.String())
		}
	})
	return host.Options{
		Name: "under-test", Command: []string{python(t), path}, DaemonVersion: "test",
		Env:          []string{"TMPDIR=" + shortDir(t)},
		Logger:       slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})),
		StartTimeout: 30 * time.Second, CheckInterval: 50 * time.Millisecond, MetricsInterval: 50 * time.Millisecond,
		CloseGrace: 5 * time.Second, MinBackoff: 10 * time.Millisecond,
	}, l
}

// shortDir is a folder in which the path of a socket is not too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "py")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// run runs a sink. stop closes it and waits until it is gone.
func run(t *testing.T, opts host.Options) (s *host.Sink, stop func()) {
	t.Helper()
	s = host.New(opts)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the sink does not stop")
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func configure(t *testing.T, s *host.Sink, settings schema.Object) {
	t.Helper()
	diags, err := s.Configure(within(t), settings)
	if err != nil || len(diags) > 0 {
		t.Fatalf("configuring: %v, %v", diags, err)
	}
	if err := s.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
}

func deliver(t *testing.T, s *host.Sink, timeout time.Duration, deliveries ...host.Delivery) []host.Result {
	t.Helper()
	results := make([]host.Result, len(deliveries))
	err := s.Deliver(within(t), host.Batch{Timeout: timeout, Deliveries: deliveries}, func(r host.Result) { results[r.Index] = r })
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func delivery(id, typ string, body []byte) host.Delivery {
	at := time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)
	return host.Delivery{ID: id, Attempt: 1, Pipeline: "all", Event: host.Event{
		ID: "01K3Z" + id, Source: "ci", Type: typ, Time: at, Accepted: at.Add(time.Second), ContentType: "text/plain", Body: body,
	}}
}

// TestExample: the SQLite sink keeps what it is given, through the same calls, in
// the same order, that the daemon makes, with TLS and without.
func TestExample(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"TLS": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, log := options(t, "sink.py")
			opts.PlainTransport = plain
			s, stop := run(t, opts)
			d, err := s.Describe(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if d.Name != "sqlite" || len(d.Schema.Attributes) != 5 || d.Capabilities.MaxBatchEvents != 512 || d.Capabilities.MaxCalls != 1 {
				t.Errorf("it describes itself as %+v", d)
			}
			diags, err := s.Validate(within(t), settingsOf("/nowhere/x.db", "a b"))
			if err != nil || len(diags) != 1 || fmt.Sprint(diags[0].Path) != "[table]" || diags[0].Detail != "Use letters, digits and _." {
				t.Errorf("validating: %+v, %v", diags, err)
			}
			if _, err := s.Configure(within(t), settingsOf("/nowhere/x.db", "events")); err == nil || !strings.Contains(err.Error(), "unable to open database file") {
				t.Errorf("a missing folder: %v", err)
			}

			path := filepath.Join(shortDir(t), "events.db")
			configure(t, s, settingsOf(path, "events"))
			bodies := map[string][]byte{"binary": {0, 0xff, '\n', 0x80}, "empty": {}, "large": bytes.Repeat([]byte("0123456789abcdef"), 1<<20)}
			var batch []host.Delivery
			for id, body := range bodies {
				batch = append(batch, delivery(id, "push", body))
			}
			for range 2 { // the second time they are there already
				for i, result := range deliver(t, s, 10*time.Second, batch...) {
					if result.Outcome != host.OutcomeDelivered {
						t.Errorf("%s: %+v", batch[i].ID, result)
					}
				}
			}
			eventually(t, func() bool { return len(s.Metrics()) == 2 && s.Metrics()[0].Series[0].Value == 3 }, "3 rows counted: %+v", s.Metrics())
			if why := s.State().Unwell; why != "" {
				t.Errorf("it is unwell: %s", why)
			}
			query(t, path, "DROP TABLE events")
			log.contain(t, "sink is unwell", "no such table")
			query(t, path, "CREATE TABLE events (delivery_id TEXT PRIMARY KEY, event_id, source, type, subject, time, content_type, label, body)")
			log.contain(t, "sink is well again")
			deliver(t, s, 10*time.Second, batch...)

			pid := s.State().PID
			stop()
			if err := syscall.Kill(pid, 0); err == nil {
				t.Error("its process is still there")
			}
			if text := log.String(); strings.Contains(text, "level=ERROR") || strings.Contains(text, "did not close in good order") {
				t.Errorf("the log tells of errors:\n%s", text)
			}
			for id, body := range bodies {
				want := fmt.Sprintf("%x push 01K3Z%s 2026-03-04T05:06:07.890000+00:00", sha256.Sum256(body), id)
				if got := query(t, path, "SELECT sha256(body), type, event_id, time FROM events WHERE delivery_id = '"+id+"'"); got != want {
					t.Errorf("%s: the row is %s, want %s", id, got, want)
				}
			}
		})
	}
}

func settingsOf(path, table string) schema.Object {
	return schema.Object{"path": path, "table": table, "sync": "normal", "busy_timeout": time.Second, "label": nil}
}

// query asks a database.
func query(t *testing.T, path, statement string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), python(t), "-c", `
import hashlib, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.create_function("sha256", 1, lambda body: hashlib.sha256(body).hexdigest())
for row in db.execute(sys.argv[2]): print(*row)
db.close()`, path, statement).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}
