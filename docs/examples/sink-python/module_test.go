//go:build linux

package sinkpython_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/scaffold"
	"github.com/callbackd/callbackd/plugins/schema"
)

const probe = "testdata/probe.py"

// probeSettings are complete, as the daemon sends them.
func probeSettings(change schema.Object) schema.Object {
	out := schema.Object{
		"name": "x", "password": nil, "count": int64(3), "ratio": 0.5, "on": true, "wait": 90 * time.Second, "file": nil,
		"mode": "fast", "words": schema.List{"a", "b"}, "table": schema.Object{"one": int64(1)},
		"anything": schema.JSON(`{"x":[1,null,"y"]}`), "text": nil, "tags": nil, "with-dash": "d", "limits": nil, "route": schema.List{},
	}
	for name, value := range change {
		out[name] = value
	}
	return out
}

func TestSettings(t *testing.T) {
	t.Parallel()
	opts, log := options(t, probe)
	opts.PlainTransport = true
	s, _ := run(t, opts)
	d, err := s.Describe(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Schema.Attributes) != 14 || len(d.Schema.Blocks) != 2 || d.Capabilities.MaxInFlight != 4 {
		t.Errorf("it describes itself as %+v", d)
	}
	for _, attr := range d.Schema.Attributes {
		if attr.Name == "anything" && string(attr.Default.(schema.JSON)) != `{"x": [1, null, "y"]}` ||
			attr.Name == "wait" && attr.Default != 90*time.Second ||
			attr.Name == "password" && !attr.Sensitive ||
			attr.Name == "text" && (len(attr.Escape) != 1 || !attr.PerEvent) {
			t.Errorf("%+v", attr)
		}
	}
	for what, c := range map[string]struct {
		change schema.Object
		want   string
	}{
		"all is well": {nil, "[]"},
		"wrong type":  {schema.Object{"name": int64(1), "password": true}, "[name]: a string is expected, not a number; [password]: the value is not of the type and range that is expected here"},
		"missing":     {schema.Object{"name": nil}, `[name]: "name" is required`},
		"unknown":     {schema.Object{"nam": "x"}, `[nam]: "nam" is not a setting of this sink`},
		"not whole":   {schema.Object{"count": 1.5}, "[count]: 1.5 is not a whole number"},
		"one of":      {schema.Object{"mode": "wild"}, `[mode]: "wild" is not allowed here: it is one of fast, safe`},
		"in a list":   {schema.Object{"words": schema.List{"a", true}}, "[words 1]: a string is expected, not true or false"},
		"in a map":    {schema.Object{"table": schema.Object{"a b": "x"}}, "[table a b]: a number is expected, not a string"},
		"in a block":  {schema.Object{"route": schema.List{schema.Object{"to": "a", "weight": nil}, schema.Object{"to": nil, "weight": nil}}}, `[route 1 to]: "to" is required`},
		"validate":    {schema.Object{"route": schema.List{schema.Object{"to": "", "weight": nil}}}, "[route 0 to]: nowhere (Say where.)"},
		"it prints":   {schema.Object{"name": "print"}, "[]"},
		"it raises":   {schema.Object{"name": "raise"}, "[]: checking the settings failed: ZeroDivisionError: validate is broken"},
	} {
		diags, err := s.Validate(within(t), probeSettings(c.change))
		var got []string
		for _, diag := range diags {
			text := fmt.Sprintf("%v: %s", diag.Path, diag.Summary)
			if diag.Detail != "" {
				text += " (" + diag.Detail + ")"
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); err != nil || text != strings.TrimSuffix(c.want, "[]") && text != c.want {
			t.Errorf("%s: %s, %v, want %s", what, text, err, c.want)
		}
	}
	for name, want := range map[string]string{"unavailable": "Retry: the database is down", "crash": "KeyError: 'open is broken'"} {
		if _, err := s.Configure(within(t), probeSettings(schema.Object{"name": name})); !errors.Is(err, host.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	diags, err := s.Configure(within(t), probeSettings(schema.Object{"name": "refuse"}))
	if err != nil || len(diags) != 1 || fmt.Sprint(diags[0].Path) != "[table one]" {
		t.Errorf("refused: %+v, %v", diags, err)
	}
	configure(t, s, probeSettings(schema.Object{
		"password": "hunter2",
		"limits":   schema.Object{"size": int64(4096)}, "route": schema.List{schema.Object{"to": "a", "weight": int64(2)}, schema.Object{"to": "b", "weight": 0.5}},
	}))
	got := deliver(t, s, time.Second, delivery("d1", "settings", nil))[0].Message
	for _, want := range []string{
		"name='x', password=***, count=3, ratio=0.5, on=True, wait=90.0, file=None, mode='fast', words=['a', 'b'], table={'one': 1}, anything={'x': [1, None, 'y']}",
		"dashed='d'", "4096 [('a', 2), ('b', 0.5)]",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the settings are %s, want %s", got, want)
		}
	}
	log.contain(t, "printed before the handshake", "printed while validating", "validate is broken")
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	opts, log := options(t, probe)
	s, stop := run(t, opts)
	configure(t, s, probeSettings(schema.Object{"text": schema.PerEvent{Key: "text"}, "tags": schema.PerEvent{Key: "tags"}}))

	for typ, want := range map[string]host.Result{
		"":            {Outcome: host.OutcomeDelivered},
		"permanent":   {Outcome: host.OutcomeRejected, Message: "not this one"},
		"retry_after": {Outcome: host.OutcomeRetry, Message: "later", RetryAfter: 1500 * time.Millisecond},
		"throttled":   {Outcome: host.OutcomeThrottled, Message: "less", RetryAfter: 2 * time.Second},
		"retry":       {Outcome: host.OutcomeRetry, Message: "not now"},
		"raise":       {Outcome: host.OutcomeRetry, Message: "ZeroDivisionError: the author's mistake"},
		"exit":        {Outcome: host.OutcomeRetry, Message: "SystemExit: 7"},
		"bad_text":    {Outcome: host.OutcomeRejected, Message: "half a pair ?" + strings.Repeat("x", 4096-13)},
		"sleep":       {Outcome: host.OutcomeRetry, Message: "out of time"},
		"flood":       {Outcome: host.OutcomeDelivered},
		"log":         {Outcome: host.OutcomeDelivered},
	} {
		// Whatever becomes of one, the others are delivered.
		got := deliver(t, s, 500*time.Millisecond, delivery("d1", "", nil), delivery("d2", typ, nil), delivery("d3", "", nil))
		want.Index = 1
		if got[1] != want || got[0].Outcome != host.OutcomeDelivered || got[2].Outcome != host.OutcomeDelivered {
			t.Errorf("%q: %+v, want %+v", typ, got, want)
		}
	}

	full := delivery("d1", "event", []byte{0, 0xff})
	full.Attempt, full.Headers = 3, map[string]string{"X-A": "b"}
	if got, want := deliver(t, s, time.Second, full)[0].Message,
		`01K3Zd1 ci '' 2026-03-04T05:06:07.890000+00:00 2026-03-04T05:06:08.890000+00:00 text/plain b'\x00\xff' all 3 {'X-A': 'b'}`; got != want {
		t.Errorf("the event is %s, want %s", got, want)
	}
	for want, values := range map[string]map[string]schema.Value{
		"None None":        nil,
		"hello {'a': 'b'}": {"text": "hello", "tags": schema.Object{"a": "b", "c": nil}},
		"the value of text does not fit: a string is expected, not a number": {"text": int64(1)},
	} {
		one := delivery("d1", "per_event", nil)
		one.PerEvent = values
		if got := deliver(t, s, time.Second, one)[0]; got.Outcome != host.OutcomeRejected || got.Message != want {
			t.Errorf("per event: %+v, want %s", got, want)
		}
	}

	var many []host.Delivery
	for i := range 30 {
		many = append(many, delivery(fmt.Sprint(i), "most", nil))
	}
	deliver(t, s, 10*time.Second, many...)
	if got := deliver(t, s, time.Second, delivery("d1", "told_most", nil))[0].Message; got != "4" {
		t.Errorf("%s at the same time, want 4", got)
	}
	eventually(t, func() bool { return len(s.Metrics()) == 2 }, "metrics")
	stop()
	log.contain(t, "no end of line", "a debug line", `level=WARN msg="a warning line"`, "fields.answer=42", "cannot be formatted: 'not %d of them'",
		"the author's mistake", "fields.in=deliver", "msg=closed")
	for _, text := range []string{"plugin failed", "work.py", "_run"} {
		if strings.Contains(log.String(), text) {
			t.Errorf("the log has %q", text)
		}
	}
}

// TestHang: deliveries that hang do not keep the plugin from saying so, nor from
// being ended.
func TestHang(t *testing.T) {
	t.Parallel()
	opts, log := options(t, probe)
	opts.CloseGrace = time.Second
	s, stop := run(t, opts)
	configure(t, s, probeSettings(nil))
	var batch []host.Delivery
	for i := range 6 {
		batch = append(batch, delivery(fmt.Sprint(i), "hang", nil))
	}
	err := s.Deliver(within(t), host.Batch{Timeout: 200 * time.Millisecond, Deliveries: batch}, func(r host.Result) { t.Errorf("%+v", r) })
	if !errors.Is(err, host.ErrTimeout) {
		t.Errorf("delivering: %v", err)
	}
	eventually(t, func() bool { return strings.Contains(s.State().Unwell, "do not return") }, "it tells that it hangs")
	pid := s.State().PID
	stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("its process is still there")
	}
	if text := log.String(); strings.Contains(text, "plugin failed") {
		t.Errorf("it was started again")
	}
}

func connect(t *testing.T, opts host.Options) *host.Connection {
	t.Helper()
	c, err := host.Connect(within(t), opts, host.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(context.WithoutCancel(t.Context()), false) })
	return c
}

// TestEnd: whoever may end the process does.
func TestEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*host.Connection){
		"the daemon is gone": (*host.Connection).Abandon,
		"SIGTERM":            func(c *host.Connection) { c.Signal(syscall.SIGINT); c.Signal(syscall.SIGTERM) },
		"Shutdown":           func(c *host.Connection) { _ = c.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, _ := options(t, probe)
			c := connect(t, opts)
			c.Signal(syscall.SIGINT) // a Ctrl-C is for the daemon
			if c.ExitsWithin(200 * time.Millisecond) {
				t.Fatalf("SIGINT ended it: %s", c.ExitText())
			}
			end(c)
			if !c.ExitsWithin(10*time.Second) || !c.ExitState().Success() {
				t.Errorf("it %s", c.ExitText())
			}
		})
	}
}

func TestWithoutOpenSSL(t *testing.T) {
	t.Parallel()
	opts, log := options(t, probe)
	opts.Command = []string{opts.Command[0], "-c", "import runpy, shutil; shutil.which = lambda name: None; runpy.run_path('" + opts.Command[1] + "', run_name='__main__')"}
	_, err := host.Connect(within(t), opts, host.Observer{})
	if err == nil || !strings.Contains(err.Error(), `exited with status 1 before its handshake; last stderr line: callbackd asks for TLS`) ||
		!strings.Contains(err.Error(), `set tls = false in the block plugin "TYPE"`) {
		t.Errorf("without openssl: %v", err)
	}
	if strings.Contains(log.String(), "Traceback") {
		t.Error("it shows a traceback")
	}
	opts.PlainTransport = true
	connect(t, opts)
}

// TestOddFolder: the path of the socket may hold what means something in an
// address.
func TestOddFolder(t *testing.T) {
	dir := filepath.Join(shortDir(t), "a b%41#?")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	opts, _ := options(t, probe)
	c := connect(t, opts)
	if d, err := c.Describe(within(t)); err != nil || d.Name != "probe" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{nil, 2, "", "It is not started by hand."},
		{[]string{"run"}, 2, "", "sqlite 1.0.0: a sink plugin of callbackd"},
		{[]string{"--help"}, 0, "  sync          string, one of full normal, default \"full\"", ""},
		{[]string{"--version"}, 0, "sqlite 1.0.0\n", ""},
	} {
		var stdout, stderr strings.Builder
		cmd := exec.CommandContext(t.Context(), python(t), append([]string{"sink.py"}, c.args...)...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) ||
			(stdout.Len() > 0) != (c.stdout != "") || (stderr.Len() > 0) != (c.stderr != "") {
			t.Errorf("%v: exit code %d\n%s\n%s", c.args, code, stdout.String(), stderr.String())
		}
	}
}

// TestTemplate: what callbackd plugin new writes from works as it is.
func TestTemplate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "my-sink")
	if _, err := scaffold.Write(scaffold.Options{Name: "my-sink", Lang: scaffold.Python, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	compareFolders(t, module, filepath.Join(dir, "callbackd_sink"))
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(readme), "```hcl\n")
	example, _, _ = strings.Cut(example, "```")
	sources := []string{example}
	for _, name := range []string{"config.hcl", "contract.hcl"} {
		file, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, string(file))
	}
	for _, src := range sources {
		if out, diags := config.Format("config.hcl", []byte(src)); diags.HasErrors() || string(out) != src {
			t.Errorf("not formatted: %v\n%s", diags, out)
		}
	}
	if _, diags := config.Load(filepath.Join(dir, "config.hcl"), config.Options{}); diags.HasErrors() {
		t.Error(diags)
	}

	cmd := exec.CommandContext(t.Context(), python(t), "-W", "error", "-m", "unittest", "-v")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Ran 4 tests") {
		t.Errorf("its tests: %v\n%s", err, out)
	}
	opts, _ := options(t, filepath.Join(dir, "sink.py"))
	if info, err := os.Stat(opts.Command[1]); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("sink.py: %v, %v", info.Mode(), err)
	}
	s, _ := run(t, opts)
	if d, err := s.Describe(within(t)); err != nil || d.Name != "my-sink" {
		t.Errorf("it describes itself as %+v, %v", d, err)
	}
}
