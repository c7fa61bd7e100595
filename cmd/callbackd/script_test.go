package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
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

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what is said now into the scripts")

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// The program under test is this binary, executed again as callbackd.
func TestMain(m *testing.M) {
	testscript.Main(withSinks{m}, map[string]func(){"callbackd": main})
}

// withSinks puts the sinks' programs beside the daemon's before the tests run:
// that is where it looks for them.
type withSinks struct{ tests testscript.TestingM }

func (w withSinks) Run() int {
	daemon, err := exec.LookPath("callbackd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, name := range []string{"file", "slack"} {
		build := exec.Command("go", "build", "-o", filepath.Join(filepath.Dir(daemon), "callbackd-sink-"+name), "../../sinks/"+name)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the %s sink: %v\n%s", name, err, out)
			return 1
		}
	}
	return w.tests.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":       exits,
			"daemon":      startDaemon,
			"end":         endDaemon,
			"insist":      insist,
			"hold":        hold,
			"expand":      expand,
			"occupy":      occupy,
			"certificate": certificate,
			"await":       awaitLetters,
			"lines":       awaitLines,
			"first":       firstLetter,
			"read":        readVariable,
			"progress":    awaitProgress,
			"slay":        slay,
			"ids":         countIDs,
			"seen":        seeStatus,
			"large":       writeLarge,
		},
	})
}

// daemonsKey is where a script keeps its daemons.
type daemonsKey struct{}

func setUp(env *testscript.Env) error {
	env.Values[daemonsKey{}] = map[string]*daemon{}
	program, err := exec.LookPath("callbackd")
	if err != nil {
		return err
	}
	env.Setenv("PROGRAMS", filepath.Dir(program))
	for _, v := range [][2]string{
		{"CALLBACKD_CACHE_DIR", filepath.Join(env.WorkDir, ".cache")},
		{"GORACE", "atexit_sleep_ms=10"}, // else every command ends with a second of sleep
		{"CHAT_TOKEN", "chat-token-5f1d"},
		{"CI_SECRET", "ci-secret-77aa"},
		{"SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T00/B00/slack-secret-9c3e"},
	} {
		env.Setenv(v[0], v[1])
	}
	return nil
}

// exits runs a program that has to end with an exit code: exits CODE PROGRAM ARG...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("the exit code is %d, want %d", got, want)
	}
}

// expand replaces $VARIABLES in files: expand FILE...
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expand FILE...")
	}
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

// occupy listens at an address until the end of the script: occupy VARIABLE
func occupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: occupy VARIABLE")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = ln.Close() })
	ts.Setenv(args[0], ln.Addr().String())
}

// certificate makes a certificate for this machine that signs itself:
// certificate CERT KEY
func certificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: certificate CERT KEY")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "callbackd test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: cert}, {Type: "PRIVATE KEY", Bytes: private}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[i]), pem.EncodeToMemory(block), 0o600))
	}
}

// daemon is a running callbackd.
type daemon struct {
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
	err            error // once ended
}

// output collects what a process writes, and tells when it has written again.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{} // holds one value at most
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.wrote <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var (
	callbacksLine = regexp.MustCompile(`callbacks +(https?://([^/\s]+))`)
	metricsLine   = regexp.MustCompile(`metrics +http://([^/\s]+)/metrics\n`)
)

// startDaemon runs the daemon and waits for its greeting: daemon NAME ARG...
// Then NAME_URL and NAME_ADDRESS are where it takes callbacks, NAME_ADMIN is its
// admin address.
func startDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: daemon NAME ARG...")
	}
	name := args[0]
	daemons := ts.Value(daemonsKey{}).(map[string]*daemon)
	if daemons[name] != nil {
		ts.Fatalf("there is a daemon %s already", name)
	}
	d := &daemon{cmd: exec.Command("callbackd", args[1:]...), ended: make(chan struct{})}
	d.stdout.wrote, d.stderr.wrote = make(chan struct{}, 1), make(chan struct{}, 1)
	d.cmd.Dir = ts.MkAbs(".")
	d.cmd.Env = os.Environ()
	for _, name := range []string{"CHAT_TOKEN", "CI_SECRET", "SLACK_WEBHOOK_URL", "GORACE"} {
		d.cmd.Env = append(d.cmd.Env, name+"="+ts.Getenv(name))
	}
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	d.cmd.WaitDelay = patience // a plugin that outlives the daemon keeps its standard error open
	ts.Check(d.cmd.Start())
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	daemons[name] = d
	ts.Defer(func() {
		_ = d.cmd.Process.Kill() // it has ended by now, where all is well
		<-d.ended
	})
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	for {
		text := d.stdout.String()
		callbacks, metrics := callbacksLine.FindStringSubmatch(text), metricsLine.FindStringSubmatch(text)
		if callbacks != nil && metrics != nil {
			ts.Setenv(name+"_URL", callbacks[1])
			ts.Setenv(name+"_ADDRESS", callbacks[2])
			ts.Setenv(name+"_ADMIN", metrics[1])
			return
		}
		select {
		case <-d.stdout.wrote:
		case <-d.ended:
			ts.Fatalf("the daemon ended at its start: %v\n%s%s", d.err, text, d.stderr.String())
		case <-overdue.C:
			ts.Fatalf("the daemon does not say that it is ready\n%s%s", text, d.stderr.String())
		}
	}
}

// endDaemon signals a daemon, which has to end with 0, and leaves what it wrote
// in NAME.stdout and NAME.stderr: end NAME INT|TERM
func endDaemon(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}
	if neg || len(args) != 2 || signals[args[1]] == nil {
		ts.Fatalf("usage: end NAME INT|TERM")
	}
	d := findDaemon(ts, args[0])
	ts.Check(d.cmd.Process.Signal(signals[args[1]]))
	d.waitForEnd(ts)
	for suffix, text := range map[string]string{".stdout": d.stdout.String(), ".stderr": d.stderr.String()} {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+suffix), []byte(text), 0o600))
	}
	if d.err != nil {
		ts.Fatalf("the daemon ended with %v, want 0\n%s", d.err, d.stderr.String())
	}
}

func findDaemon(ts *testscript.TestScript, name string) *daemon {
	d := ts.Value(daemonsKey{}).(map[string]*daemon)[name]
	if d == nil {
		ts.Fatalf("there is no daemon %s", name)
	}
	return d
}

func (d *daemon) waitForEnd(ts *testscript.TestScript) {
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	select {
	case <-d.ended:
	case <-overdue.C:
		ts.Fatalf("the daemon does not end\n%s", d.stderr.String())
	}
}

// insist ends a daemon, and once it is stopping interrupts it. It has to end with
// 1: insist NAME
func insist(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: insist NAME")
	}
	d := findDaemon(ts, args[0])
	ts.Check(d.cmd.Process.Signal(syscall.SIGTERM))
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	for !strings.Contains(d.stderr.String(), "msg=stopping") {
		select {
		case <-d.stderr.wrote:
		case <-d.ended:
			ts.Fatalf("the daemon did not wait for the callback: %v\n%s", d.err, d.stderr.String())
		case <-overdue.C:
			ts.Fatalf("the daemon does not stop\n%s", d.stderr.String())
		}
	}
	ts.Check(d.cmd.Process.Signal(syscall.SIGINT))
	d.waitForEnd(ts)
	if code := d.cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(d.stderr.String(), "interrupted again, ended at once") {
		ts.Fatalf("the daemon ended with %v, want %d\n%s", d.err, exitFailed, d.stderr.String())
	}
}

// hold begins a callback and does not finish it before the end of the script:
// hold ADDRESS PATH
func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hold ADDRESS PATH")
	}
	conn, err := net.DialTimeout("tcp", args[0], patience)
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	// The answer to the Expect tells that the daemon is reading the body.
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", args[1], args[0])
	ts.Check(err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "100 Continue") {
		ts.Fatalf("the daemon answered %q, %v", line, err)
	}
}

func TestSignals(t *testing.T) {
	for _, c := range []struct {
		name    string
		signals []os.Signal
		ends    int
	}{
		{"told once", []os.Signal{syscall.SIGTERM}, 0},
		{"interrupted once", []os.Signal{syscall.SIGINT}, 0},
		{"by a supervisor, twice", []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, 0},
		{"interrupted, then told", []os.Signal{syscall.SIGINT, syscall.SIGTERM}, 0},
		{"interrupted twice", []os.Signal{syscall.SIGINT, syscall.SIGINT}, 1},
		{"told, then interrupted", []os.Signal{syscall.SIGTERM, syscall.SIGINT}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			signals := make(chan os.Signal, len(c.signals))
			for _, s := range c.signals {
				signals <- s
			}
			close(signals)
			ends := 0
			obey(ctx, signals, stop, func() { ends++ })
			if ctx.Err() == nil || ends != c.ends {
				t.Errorf("stopped: %v, ended at once: %d times, want %d", ctx.Err() != nil, ends, c.ends)
			}
		})
	}
}

// A stop that comes before anything was begun is a good end too.
func TestStoppedAtTheStart(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.hcl")
	text := "listen { address = \"127.0.0.1:0\" }\nadmin { address = \"127.0.0.1:0\" }\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var stdout, stderr bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"run", "--config", config}, strings.NewReader(""), &stdout, &stderr) }()
	select {
	case got := <-code:
		if got != exitOK {
			t.Errorf("exit code %d, stderr %q", got, stderr.String())
		}
	case <-time.After(patience):
		t.Fatal("the daemon does not end")
	}
}

// A command that waits for standard input ends when it is interrupted.
func TestInterruptedWhileReading(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.hcl")
	if err := os.WriteFile(config, []byte("source \"http\" \"ci\" {\n  path = \"/ci\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"fmt", "-"},
		{"send", "--config", config, "-"},
		{"explain", "--config", config, "-"},
	} {
		t.Run(args[0], func(t *testing.T) {
			stdin, typed := io.Pipe()
			defer typed.Close()
			reading := make(chan struct{})
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var stdout, stderr bytes.Buffer
			code := make(chan int, 1)
			go func() {
				code <- run(ctx, args, announcing{stdin, sync.OnceFunc(func() { close(reading) })}, &stdout, &stderr)
			}()
			wait(t, reading, "the command does not read standard input")
			interrupt()
			select {
			case got := <-code:
				if got != exitFailed || !strings.Contains(stderr.String(), "read standard input: interrupted") {
					t.Errorf("exit code %d, stderr %q", got, stderr.String())
				}
			case <-time.After(patience):
				t.Fatal("the command goes on waiting")
			}
		})
	}
}

// announcing is a reader that tells when it is read.
type announcing struct {
	io.Reader
	read func()
}

func (a announcing) Read(p []byte) (int, error) {
	a.read()
	return a.Reader.Read(p)
}

func wait(t *testing.T, c <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal(otherwise)
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\ttext é 日本": "plain\n\ttext é 日本",
		"\x1b[31mred\x07":    `\u001b[31mred\u0007`,
		"a\rb\u009b":         `a\u000db\u009b`,
		"abc\u202egnp.exe":   `abc\u202egnp.exe`,
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}
