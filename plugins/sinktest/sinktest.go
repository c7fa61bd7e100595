// Package sinktest lets the author of a sink in Go check, in a test, that the sink
// keeps the contract between the daemon and its plugins:
//
//	func TestMain(m *testing.M) { sinktest.Main(m, main) }
//
//	func TestContract(t *testing.T) {
//		receiver := sinktest.NewReceiver(t)
//		sinktest.Run(t, sinktest.Options{
//			Settings: map[string]any{"url": receiver.URL(), "timeout": "5s"},
//			Receiver: receiver,
//		})
//	}
//
// The plugin under test is the test's own program, executed again and spoken to
// as the daemon does: nothing has to be built, and the race detector and coverage
// see the plugin too. A sink in another language is checked by the command
// callbackd plugin test, against the same rules.
//
// The rules themselves are in package contract.
package sinktest

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sinktest/contract"
)

// pluginEnv makes a test's program the plugin although it is started by hand,
// which is one of the rules too.
const pluginEnv = "CALLBACKD_SINKTEST_PLUGIN"

// Event is what a sink is given to deliver.
type Event = host.Event

// PerEvent is a value in Options.Settings for a setting that is evaluated for each
// event.
type PerEvent = contract.PerEvent

// Receiver stands in for what the sink delivers to over HTTP; see
// contract.Receiver.
type Receiver = contract.Receiver

// NewReceiver returns a Receiver that is closed at the end of the test.
func NewReceiver(t testing.TB) *Receiver {
	t.Helper()
	r, err := contract.NewReceiver()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// Options are what the rules need to know about a sink. A sink without required
// settings needs none.
type Options struct {
	// Settings are settings that work, as Go values by the names of the settings:
	// strings, bools, numbers, slices, maps with string keys, or a PerEvent;
	// durations and sizes also as text ("30s", "10MiB"). A block is a
	// map[string]any, a repeated one a []map[string]any.
	Settings map[string]any
	// Refused are settings that the sink has to refuse.
	Refused []Refused
	// Receiver is where Settings make the sink deliver to, if it does that over
	// HTTP. Nil: elsewhere.
	Receiver *Receiver
	// Failing changes an event so that its delivery fails; Slow so that it takes
	// several seconds, or for ever. Nil: the Receiver sees to it. Without one, the
	// rules about such deliveries are skipped or check less.
	Failing, Slow func(*Event)
	// Dir is the only folder that Settings name. It is looked at for side effects.
	Dir string
	// Timeout is how long the plugin may take for each thing that is asked of it:
	// 1 s to 1 min, default 10 s.
	Timeout time.Duration
	// Env is added to the variables that plugins get, as "NAME=value".
	Env []string
	// Command runs another program, an absolute path with its arguments, instead
	// of the test's own.
	Command []string
	// PlainTransport is for programs that lack mutual TLS.
	PlainTransport bool
	// Rules are the ids of the rules to check. Empty: all.
	Rules []string
}

// Refused are settings that a sink has to refuse.
type Refused struct {
	// Settings need not fit the schema.
	Settings map[string]any
	// Path is where the mistake is: names of settings, numbers of list elements
	// and repeated blocks (int). Empty: the block as a whole.
	Path []any
}

// Main is what a TestMain calls: it runs the tests or, where the program was
// started as a plugin, the plugin's main. It does not return.
func Main(m interface{ Run() int }, plugin func()) {
	Plugin(plugin)
	os.Exit(m.Run())
}

// Plugin runs the plugin's main and ends the process where it was started as a
// plugin, and else returns: for a TestMain that has more to do than Main.
func Plugin(plugin func()) {
	if os.Getenv(wire.CookieKey) == "" && os.Getenv(pluginEnv) == "" {
		return
	}
	plugin()
	os.Exit(0)
}

// Run checks the rules of the contract, each as a subtest named by its id. The
// test must not run in parallel with others that use what Settings name.
func Run(t *testing.T, opts Options) {
	t.Helper()
	settings := opts.contract(t)
	settings.Around = func(rule contract.Rule, check func() contract.Result) {
		t.Run(rule.ID, func(t *testing.T) {
			switch r := check(); r.Status {
			case contract.Failed:
				t.Errorf("rule %s is broken: %s\n expected: %s\n happened: %s\n do: %s",
					rule.ID, rule.Text, r.Failure.Expected, r.Failure.Happened, r.Failure.Advice)
			case contract.Skipped:
				t.Skip(r.Reason)
			case contract.OK:
			}
		})
	}
	report, err := contract.Run(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report.Summary())
}

func (o Options) contract(t *testing.T) contract.Options {
	t.Helper()
	out := contract.Options{
		Command: o.Command, PlainTransport: o.PlainTransport,
		Settings: fromMap(contract.FromMap, o.Settings),
		Receiver: o.Receiver, Failing: o.Failing, Slow: o.Slow, Dir: o.Dir,
		Timeout: o.Timeout, Rules: o.Rules,
	}
	for _, r := range o.Refused {
		out.Refused = append(out.Refused, contract.Refused{Settings: fromMap(contract.Wrong, r.Settings), Path: r.Path})
	}
	if len(out.Command) == 0 {
		program, err := os.Executable()
		if err != nil {
			t.Fatalf("the test's own program cannot be found: %v", err)
		}
		out.Command, out.Env = []string{program}, ownEnv()
	}
	out.Env = append(out.Env, o.Env...)
	return out
}

// fromMap puts off the reading of settings until the schema is known.
func fromMap(read func(schema.Schema, map[string]any) (contract.Settings, error), settings map[string]any) func(*host.Description) (contract.Settings, error) {
	return func(d *host.Description) (contract.Settings, error) { return read(d.Schema, settings) }
}

// ownEnv is the environment of the test's own program as a plugin.
func ownEnv() []string {
	race := os.Getenv("GORACE")
	if !strings.Contains(race, "atexit_sleep_ms") {
		// Or the race detector would sleep for a second at the end of each process.
		race = strings.TrimSpace(race + " atexit_sleep_ms=0")
	}
	env := []string{pluginEnv + "=1", "GORACE=" + race}
	if f := flag.Lookup("test.gocoverdir"); f != nil && f.Value.String() != "" {
		env = append(env, "GOCOVERDIR="+f.Value.String())
	}
	return env
}
