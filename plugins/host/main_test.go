//go:build linux

package host

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sink"
	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

// The test binary, executed again, is the fault sink or a daemon that dies.
const roleEnv = "HOST_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "noop":
		sink.Serve(sink.Info{Name: "noop", Version: "1.0.0"}, func(context.Context, struct{}) (sink.Sink, error) { return noop{}, nil })
		os.Exit(0)
	case "plugin":
		faultsink.Main() // does not return
	case "daemon":
		doomedDaemon()
	}
	goleak.VerifyTestMain(m)
}

// noop is a sink of the SDK's that takes everything.
type noop struct{}

func (noop) Deliver(context.Context, sink.Event) error { return nil }

func (noop) DeliverBatch(context.Context, []sink.Event) []error { return nil }

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

// fixture is a Sink for a test with its plugin, the fault sink.
type fixture struct {
	*Sink
	t    *testing.T
	logs *logs
	tmp  string // the TMPDIR of daemon and plugin
	stop context.CancelFunc
	done chan error
}

// options are those of a test: quick restarts, the fault sink, its faults by
// environment.
func options(t *testing.T, logs *logs, env ...string) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Name:    "under-test",
		Command: []string{exe},
		// The race detector would sleep for a second at each exit.
		Env:        append([]string{roleEnv + "=plugin", "GORACE=atexit_sleep_ms=0"}, env...),
		Logger:     slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		MinBackoff: 5 * time.Millisecond,
		MaxBackoff: 50 * time.Millisecond,
		CloseGrace: 2 * time.Second,
	}
}

// shortTemp gives the test a temporary folder of its own in which a socket's path
// is not too long.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ht")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return dir
}

// run runs a Sink until the end of the test, and then checks that nothing is left
// of it.
func run(t *testing.T, change func(*Options), env ...string) *fixture {
	t.Helper()
	f := &fixture{t: t, logs: &logs{}, tmp: shortTemp(t), done: make(chan error, 1)}
	opts := options(t, f.logs, env...)
	if change != nil {
		change(&opts)
	}
	f.Sink = New(opts)
	ctx, cancel := context.WithCancel(t.Context())
	f.stop = cancel
	go func() { f.done <- f.Run(ctx) }()
	t.Cleanup(f.finish)
	return f
}

func (f *fixture) finish() {
	f.t.Helper()
	f.stop()
	select {
	case err := <-f.done:
		f.done <- err
		if err != nil {
			f.t.Errorf("Run: %v", err)
		}
	case <-time.After(30 * time.Second):
		f.t.Errorf("Run does not end\n%s", f.logs)
		return
	}
	nothingLeft(f.t, f.tmp)
	if f.t.Failed() {
		f.t.Logf("log:\n%s", cut(f.logs.String(), 20000))
	}
}

// nothingLeft checks that no child process is left, not even a zombie, and no
// socket.
func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	for _, pid := range children() {
		t.Errorf("process %s is left: %s", pid, cmdline(pid))
	}
	left, err := filepath.Glob(filepath.Join(tmp, "callbackd-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("folders are left: %v %v", left, err)
	}
}

// children are the process ids of this process's children.
func children() []string {
	var out []string
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		out = append(out, strings.Fields(string(text))...)
	}
	return out
}

func cmdline(pid string) string {
	text, _ := os.ReadFile("/proc/" + pid + "/stat")
	return string(text)
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// A zombie that nobody reaps (an orphan's, in a container without an init)
	// is dead too.
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && syscall.Kill(pid, 0) == nil
}

// within returns a context that ends after d or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (f *fixture) configure(settings schema.Object) {
	f.t.Helper()
	diags, err := f.Configure(within(f.t, 20*time.Second), settings)
	if err != nil || len(diags) > 0 {
		f.t.Fatalf("Configure: %v %v\n%s", diags, err, f.logs)
	}
}

func batch(n int) Batch {
	b := Batch{Timeout: 10 * time.Second, Deliveries: make([]Delivery, n)}
	for i := range b.Deliveries {
		b.Deliveries[i] = Delivery{
			ID: fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5%03d_0123456789ab", i), Attempt: 1, Pipeline: "all",
			Event: Event{
				ID: fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5%03d", i), Source: "chat", Type: "Group.CallbackAfterGroupInfoChanged",
				Subject: "@TGS#2J4SZEAEL", Time: time.Now(), Accepted: time.Now(), ContentType: "application/json",
				Body: []byte(strings.Repeat("b", 350)),
			},
		}
	}
	return b
}

// deliver returns the results in the order they came in.
func (f *fixture) deliver(b Batch) ([]Result, error) {
	f.t.Helper()
	var results []Result
	err := f.Deliver(within(f.t, 30*time.Second), b, func(r Result) { results = append(results, r) })
	return results, err
}
