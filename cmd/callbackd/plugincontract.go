package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sinktest/contract"
	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"
)

// The variables that the check provides to a configuration.
const (
	testDirEnv = "CALLBACKD_TEST_DIR"
	testURLEnv = "CALLBACKD_TEST_URL"
)

// testFlags are the flags of plugin test.
type testFlags struct {
	config, sink string
	plain, json  bool
	timeout      time.Duration
	rules        []string
}

func newPluginTest() *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test BINARY [ARG]...",
		Short: "Check that a sink plugin keeps the contract with the daemon",
		Long: `Start a plugin as the daemon does and check, rule by rule, that it keeps to what the
daemon and the other plugins rely on: how it starts and ends, refuses wrong
settings, gives each delivery of a batch its result, keeps secrets to itself, and
so on. The plugin may be written in any language. Arguments that begin with a dash
go behind --.

A sink that needs settings is given them by --config: any configuration with a sink
block of its type, also one with nothing else in it. The check sets two variables
for it:

  env("CALLBACKD_TEST_DIR")  a new, empty folder, removed at the end
  env("CALLBACKD_TEST_URL")  an HTTP server that takes what it is sent, and refuses
                             or delays what is meant to fail or to take long

Use them and not a real receiver: some forty processes are started, which deliver
some hundreds of made-up events, the largest of 32 MiB.

Exits with 1 when a rule is broken. A rule that does not apply is skipped.`,
		Example: `  callbackd plugin test ./callbackd-sink-mine --config mine.hcl
  callbackd plugin test --plain --rule handshake python3 mine.py`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{path(cmd) + " needs the program of a plugin"}
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: command(f.run),
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "a configuration with settings for the sink: a file, or a folder of *.hcl files")
	flags.StringVar(&f.sink, "sink", "", "the name of the sink in the configuration; else the first one of the plugin's type")
	flags.BoolVar(&f.plain, "plain", false, "do without TLS between daemon and plugin, as a plugin block with tls = false")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long the plugin may take for each thing it is asked, 1s to 1m; all together take at most 60 times as long")
	flags.StringArrayVar(&f.rules, "rule", nil, "check this rule only; may be given several times")
	return cmd
}

func (f *testFlags) run(cmd *cobra.Command, args []string) error {
	program, err := findProgram(args[0])
	if err != nil {
		return err
	}
	if f.sink != "" && f.config == "" {
		return &usageError{"--sink names a sink of the configuration: give --config too"}
	}
	if f.timeout < time.Second || f.timeout > time.Minute {
		return &usageError{fmt.Sprintf("--timeout %s is not between 1s and 1m", f.timeout)}
	}
	for _, id := range f.rules {
		if !slices.ContainsFunc(contract.Rules(), func(r contract.Rule) bool { return r.ID == id }) {
			return &usageError{fmt.Sprintf("there is no rule %q: %s --json lists them", id, path(cmd))}
		}
	}
	dir, err := os.MkdirTemp("", "callbackd-test-")
	if err != nil {
		return fmt.Errorf("make a folder for the sink: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	receiver, err := contract.NewReceiver()
	if err != nil {
		return err
	}
	defer func() { _ = receiver.Close() }()

	opts := contract.Options{
		Command: append([]string{program}, args[1:]...), PlainTransport: f.plain, DaemonVersion: version,
		Receiver: receiver, Dir: dir, Timeout: f.timeout, Rules: f.rules,
	}
	if !f.json {
		opts.Around = func(_ contract.Rule, check func() contract.Result) {
			// What cannot be written is noticed at the end.
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), visible(check().Text()))
		}
	}
	var settings *testSettings
	if f.config != "" {
		if settings, err = f.load(cmd, dir, receiver.URL()); err != nil {
			return err
		}
		opts.Settings = settings.of
		if s := settings.only(f.sink); s != nil {
			opts.SinkName, opts.Env = s.Name, s.Plugin.Env
			opts.PlainTransport = opts.PlainTransport || s.Plugin.NoTLS
		}
	}
	report, err := contract.Run(cmd.Context(), opts)
	if err != nil {
		return f.explain(cmd, err)
	}
	if f.json {
		err = report.WriteJSON(cmd.OutOrStdout())
	} else {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), visible(report.Summary()))
	}
	if err == nil && !report.Passed() {
		err = errSaid
	}
	return err
}

// explain says why the rules could not be checked.
func (f *testFlags) explain(cmd *cobra.Command, err error) error {
	var diagnostics config.Diagnostics
	switch {
	case errors.As(err, &diagnostics):
		tell(cmd, diagnostics)
		return errSaid
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case f.config == "":
		return fmt.Errorf("%w: give --config with a sink block that has them", err)
	}
	return err
}

// findProgram returns the absolute path of a program. One without a folder is
// looked for here and then, as interpreters are, in PATH.
func findProgram(name string) (string, error) {
	found := name
	if _, err := os.Stat(name); err != nil && !isPath(name) {
		if found, err = exec.LookPath(name); err != nil {
			return "", &usageError{fmt.Sprintf("there is no program %s, neither here nor in PATH", name)}
		}
	}
	info, err := os.Stat(found)
	switch {
	case err != nil:
		return "", &usageError{fmt.Sprintf("the program %s cannot be found: %v", name, err)}
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return "", &usageError{fmt.Sprintf("%s is not a program: it is not an executable file", name)}
	}
	return filepath.Abs(found)
}

// testSettings are the settings that a configuration has for the plugin.
type testSettings struct {
	cfg  *config.Config
	sink string // its name; empty: the first one of the plugin's type
}

// load reads the configuration for the check.
func (f *testFlags) load(cmd *cobra.Command, dir, url string) (*testSettings, error) {
	cfg, diagnostics := config.Load(f.config, config.Options{
		LookupEnv: func(name string) (string, bool) {
			switch name {
			case testDirEnv:
				return dir, true
			case testURLEnv:
				return url, true
			}
			return os.LookupEnv(name)
		},
		// The program is the one that was named, wherever the sink's would be.
		SkipFileChecks: true,
	})
	if diagnostics.HasErrors() {
		tell(cmd, diagnostics)
		return nil, errSaid
	}
	if len(cfg.Sinks) == 0 {
		return nil, fmt.Errorf("the configuration %s has no sink block", f.config)
	}
	s := &testSettings{cfg: cfg, sink: f.sink}
	if f.sink != "" && s.only(f.sink) == nil {
		return nil, fmt.Errorf("the configuration %s has no sink %q: it has %s", f.config, f.sink, s.names())
	}
	return s, nil
}

func (s *testSettings) names() string {
	names := make([]string, 0, len(s.cfg.Sinks))
	for i := range s.cfg.Sinks {
		names = append(names, fmt.Sprintf("%q (%s)", s.cfg.Sinks[i].Name, s.cfg.Sinks[i].Type))
	}
	return strings.Join(names, ", ")
}

// only is the sink that is meant where that is clear without the plugin's type.
func (s *testSettings) only(name string) *config.Sink {
	for i := range s.cfg.Sinks {
		if s.cfg.Sinks[i].Name == name || name == "" && len(s.cfg.Sinks) == 1 {
			return &s.cfg.Sinks[i]
		}
	}
	return nil
}

// of decodes the settings against the plugin's schema, as the daemon does.
func (s *testSettings) of(about *host.Description) (contract.Settings, error) {
	sink := s.only(s.sink)
	for i := range s.cfg.Sinks {
		if sink == nil && s.cfg.Sinks[i].Type == about.Name {
			sink = &s.cfg.Sinks[i]
		}
	}
	if sink == nil || sink.Type != about.Name {
		return contract.Settings{}, fmt.Errorf("the plugin is of the type %q, of which the configuration has no sink: it has %s", about.Name, s.names())
	}
	decoded, diagnostics := s.cfg.DecodeSink(sink, about.Schema)
	if err := diagnostics.Err(); err != nil {
		return contract.Settings{}, err
	}
	out := contract.Settings{Values: decoded.Values}
	if len(decoded.PerEvent) == 0 {
		return out, nil
	}
	out.PerEvent = func(ev *host.Event) (map[string]schema.Value, error) {
		view := event.NewView(&event.Event{
			ID: ulid.MustParse(ev.ID), Source: ev.Source, Type: ev.Type, Subject: ev.Subject,
			Time: ev.Time, Accepted: ev.Accepted, ContentType: ev.ContentType, Body: ev.Body, RemoteAddr: "127.0.0.1",
		})
		values := make(map[string]schema.Value, len(decoded.PerEvent))
		for key, value := range decoded.PerEvent {
			var err error
			if values[key], err = value(view); err != nil {
				return nil, fmt.Errorf("sink %q: setting %q: %w", sink.Name, key, err)
			}
		}
		return values, nil
	}
	return out, nil
}
