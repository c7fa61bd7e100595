// Package e2e tests the daemon as its users run it: the built programs, real
// processes, real files, real signals.
package e2e_test

import (
	"bufio"
	"bytes"
	"cmp"
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
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs is the folder with the built daemon and sinks.
var programs string

// programsDir says where the programs are, for tests that start themselves again.
const programsDir = "CALLBACKD_E2E_PROGRAMS"

// The race detector lets each process sleep for a second at its end, which these tests
// would mostly wait for.
const (
	raceEnv   = "GORACE"
	raceValue = "atexit_sleep_ms=0"
)

// endAtOnce goes into the plugin blocks of sinks, which may have the race detector: plugins
// get no more of the environment than the configuration says. spawn adds it, in a block of
// its own, for the types that have none.
func endAtOnce() string { return fmt.Sprintf("env = { %s = %q }", raceEnv, raceValue) }

func TestMain(m *testing.M) {
	if err := os.Setenv(raceEnv, strings.TrimSpace(os.Getenv(raceEnv)+" "+raceValue)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if programs = os.Getenv(programsDir); programs != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "callbackd-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs = dir
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build builds the programs into dir.
func build(dir string) error {
	// The daemon and the sinks are tested for races too. The fault sink is there to do
	// harm, not to be tested; and the race detector needs more memory than a plugin is
	// allowed.
	var race []string
	if raceEnabled {
		race = []string{"-race"}
	}
	for _, args := range [][]string{
		append(race, "-o", dir+"/", "./cmd/callbackd", "./sinks/file", "./sinks/slack", "./sinks/webhook"),
		{"-o", dir + "/", "./plugins/sinktest/faultsink/callbackd-sink-fault"},
	} {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %v: %w\n%s", args, err, out)
		}
	}
	for _, sink := range []string{"file", "slack", "webhook"} {
		if err := os.Rename(filepath.Join(dir, sink), filepath.Join(dir, "callbackd-sink-"+sink)); err != nil {
			return err
		}
	}
	return nil
}

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// eventually waits until ok, which is asked again and again, but for a quarter of the
// time at most: what is waited for needs the processors.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		asked := time.Now()
		if ok() {
			return
		}
		if asked.After(deadline) {
			t.Fatalf("it did not come about within %v: %s", patience, what)
		}
		time.Sleep(max(20*time.Millisecond, 3*time.Since(asked)))
	}
}

// daemon is a running callbackd.
type daemon struct {
	t          *testing.T
	dir        string
	cmd        *exec.Cmd
	url, admin string
	exited     chan struct{}
	err        error

	mu     sync.Mutex
	stdout bytes.Buffer
	stderr bytes.Buffer
}

// start runs the daemon on the configuration in dir and waits until it takes
// callbacks. It is stopped, and has to end well, at the end of the test.
func start(t *testing.T, dir, config string, env ...string) *daemon {
	t.Helper()
	d := launch(t, dir, config, env...)
	select {
	case <-d.listening():
	case <-d.exited:
		t.Fatalf("the daemon ended at its start: %v\n%s", d.err, d.log())
	case <-time.After(patience):
		t.Fatalf("the daemon does not take callbacks\n%s", d.log())
	}
	return d
}

// launch runs the daemon without waiting for anything. It is stopped at the end of
// the test.
func launch(t *testing.T, dir, config string, env ...string) *daemon {
	t.Helper()
	d := spawn(t, dir, config, env...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the daemon's log:\n%s", d.logEnd())
		}
		d.stop()
	})
	return d
}

// spawn runs the daemon, and leaves its end to the caller.
func spawn(t *testing.T, dir, config string, env ...string) *daemon {
	t.Helper()
	file := filepath.Join(dir, "config.hcl")
	text := config
	if !strings.Contains(config, "listen {") {
		text = "listen { address = \"127.0.0.1:0\" }\nadmin { address = \"127.0.0.1:0\" }\n" + config
	}
	for _, sink := range []string{"file", "slack", "webhook"} {
		if block := fmt.Sprintf("plugin %q {", sink); strings.Contains(text, fmt.Sprintf("sink %q", sink)) && !strings.Contains(text, block) {
			text += "\n" + block + "\n  " + endAtOnce() + "\n}\n"
		}
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, exited: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(programs, "callbackd"), "run", "--config", file)
	d.cmd.Dir = dir // all that it starts can be told by it, see processesOf
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stdout = &locked{d: d, to: &d.stdout}
	d.cmd.Stderr = &locked{d: d, to: &d.stderr}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	return d
}

type locked struct {
	d  *daemon
	to *bytes.Buffer
}

// mostLog bounds what is kept of an output: a test floods it.
const mostLog = 4 << 20

func (l *locked) Write(p []byte) (int, error) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.to.Len() < mostLog {
		l.to.Write(p)
	}
	return len(p), nil
}

func (d *daemon) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stdout.String() + d.stderr.String()
}

// logEnd is as much of the log as a person reads.
func (d *daemon) logEnd() string {
	text := d.log()
	return text[max(0, len(text)-64<<10):]
}

var (
	callbacksLine = regexp.MustCompile(`callbacks\s+(https?://[^/\s]+)`)
	metricsLine   = regexp.MustCompile(`metrics\s+(http://[^/\s]+)/metrics`)
)

// listening is closed when the daemon has said where it listens.
func (d *daemon) listening() <-chan struct{} {
	said := make(chan struct{})
	go func() {
		for {
			d.mu.Lock()
			callbacks, metrics := callbacksLine.FindStringSubmatch(d.stdout.String()), metricsLine.FindStringSubmatch(d.stdout.String())
			d.mu.Unlock()
			if callbacks != nil && metrics != nil {
				d.url, d.admin = callbacks[1], metrics[1]
				close(said)
				return
			}
			select {
			case <-d.exited:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return said
}

// stop ends the daemon as an operator does; it has to exit with 0.
func (d *daemon) stop() {
	d.t.Helper()
	select {
	case <-d.exited:
		return
	default:
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.awaitEnd()
}

// awaitEnd waits for the end of a daemon that was told to stop.
func (d *daemon) awaitEnd() {
	d.t.Helper()
	select {
	case <-d.exited:
		if d.err != nil {
			d.t.Errorf("the daemon ended with %v\n%s", d.err, d.logEnd())
		}
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.exited
		d.t.Errorf("the daemon did not end on SIGTERM\n%s", d.logEnd())
	}
	if strings.Contains(d.log(), "DATA RACE") {
		d.t.Errorf("the race detector found something:\n%s", d.log())
	}
}

// kill ends the daemon with SIGKILL.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// post posts a callback and returns status and answer.
func (d *daemon) post(path, contentType string, body []byte) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

func (d *daemon) mustPost(path string, body string, want int) string {
	d.t.Helper()
	code, answer, err := d.post(path, "", []byte(body))
	if err != nil || code != want {
		d.t.Fatalf("POST %s: %d %s (%v), want %d", path, code, answer, err, want)
	}
	return answer
}

// get reads from the admin address.
func (d *daemon) get(path string) (int, string) {
	resp, err := http.Get(d.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// metric returns the value of a series, written as in a scrape; -1 without it.
func (d *daemon) metric(series string) float64 {
	_, text := d.get("/metrics")
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			x, err := strconv.ParseFloat(value, 64)
			if err == nil {
				return x
			}
		}
	}
	return -1
}

// eventuallyMetric waits until a series has a value.
func (d *daemon) eventuallyMetric(series string, want float64) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%s = %v (now %v)", series, want, d.metric(series)), func() bool { return d.metric(series) == want })
}

// pluginPID returns the process of a sink.
func (d *daemon) pluginPIDs(program string) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(fields) > 1 && fields[1] == strconv.Itoa(d.cmd.Process.Pid) && strings.Contains(string(cmdline), program) && fields[0] != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processesOf returns the living processes that belong to a folder: those that
// were started in it, that have it in their environment or among their arguments,
// with what they started. The daemon is one of them while it runs.
func processesOf(t *testing.T, dir string) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		proc := "/proc/" + e.Name()
		stat, _ := os.ReadFile(proc + "/stat")
		if end := bytes.LastIndexByte(stat, ')'); end < 0 || strings.HasPrefix(string(stat[end:]), ") Z") || strings.HasPrefix(string(stat[end:]), ") X") {
			continue // it has ended
		}
		cwd, _ := os.Readlink(proc + "/cwd")
		environ, _ := os.ReadFile(proc + "/environ")
		cmdline, _ := os.ReadFile(proc + "/cmdline")
		if cwd == dir || bytes.Contains(environ, []byte(dir)) || bytes.Contains(cmdline, []byte(dir)) {
			found[pid] = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// lines returns the lines of a file in the daemon's folder; none while it is not
// there.
func (d *daemon) lines(name string) []string {
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		d.t.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// receiver is an HTTP service that a webhook sink delivers to.
type receiver struct {
	url string

	mu       sync.Mutex
	answer   int
	requests []received
}

type received struct {
	header http.Header
	body   []byte
	code   int // that it was answered with
}

// receive starts a receiver on address; ":0" chooses a port.
func receive(t *testing.T, address string) *receiver {
	t.Helper()
	ln, err := net.Listen("tcp", cmp.Or(address, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{url: "http://" + ln.Addr().String(), answer: http.StatusNoContent}
	server := &http.Server{Handler: r, ReadTimeout: patience}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, received{header: req.Header.Clone(), body: body, code: r.answer})
	w.WriteHeader(r.answer)
}

func (r *receiver) answers(code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = code
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.requests...)
}

// taken returns the bodies of what was answered with success.
func (r *receiver) taken() (bodies []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, got := range r.requests {
		if got.code < 300 {
			bodies = append(bodies, string(got.body))
		}
	}
	return bodies
}
