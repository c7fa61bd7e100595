package sinktest_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/sinktest"
	"github.com/callbackd/callbackd/plugins/sinktest/contract"
	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

func TestMain(m *testing.M) {
	if os.Getenv(faultsink.EnvContract) != "" {
		faultsink.Main() // does not return
	}
	goleak.VerifyTestMain(m)
}

// settings work with the fault sink.
func settings(values map[string]any) func(*host.Description) (contract.Settings, error) {
	return func(d *host.Description) (contract.Settings, error) { return contract.Wrong(d.Schema, values) }
}

func fail(ev *host.Event) { ev.Body = []byte(faultsink.FailMark) }

func slow(ev *host.Event) { ev.Body = []byte(faultsink.SlowMark) }

// options are those of a run against the fault sink that breaks a rule.
func options(t *testing.T, breaks string, env ...string) contract.Options {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return contract.Options{
		Command: []string{program},
		Env: append([]string{
			faultsink.EnvContract + "=" + breaks, faultsink.EnvLock + "=" + filepath.Join(dir, "lock"), "GORACE=atexit_sleep_ms=0",
		}, env...),
		PlainTransport: true, // much faster to start
		Settings:       settings(map[string]any{"must": "be", "token": "hunter2-hunter2"}),
		Refused:        []contract.Refused{{Settings: settings(map[string]any{"must": "refused"}), Path: []any{"must"}}},
		Failing:        fail, Slow: slow, Dir: dir,
		Timeout: 5 * time.Second,
	}
}

// TestEveryRuleConvicts: for each rule there is a plugin that breaks it, and the
// report says so.
func TestEveryRuleConvicts(t *testing.T) {
	type breach struct{ rule, breaks, env string }
	var all []breach
	for _, breaks := range faultsink.Breaks() {
		rule, _, _ := strings.Cut(breaks, ":")
		all = append(all, breach{rule, breaks, ""})
	}
	for _, start := range []string{"garbage", "silent", "exit:7", "version:2", "core:9", "netrpc", "address:unix|relative", "dead"} {
		all = append(all, breach{"handshake", "keep", faultsink.EnvStart + "=" + start})
	}
	all = append(all, breach{"leftovers", "keep", faultsink.EnvGrandchild + "=" + filepath.Join(t.TempDir(), "pid")})
	for _, rule := range contract.Rules() {
		if !slices.ContainsFunc(all, func(b breach) bool { return b.rule == rule.ID }) {
			t.Errorf("no plugin breaks the rule %s", rule.ID)
		}
	}
	type outcome struct {
		report *contract.Report
		err    error
	}
	// They wait much more than they work, so they run more at a time than tests do.
	outcomes := make([]chan outcome, len(all))
	atATime := make(chan struct{}, 8)
	var runs sync.WaitGroup
	defer runs.Wait()
	for i, b := range all {
		outcomes[i] = make(chan outcome, 1)
		opts := options(t, b.breaks)
		if b.env != "" {
			opts.Env = append(opts.Env, b.env)
		}
		if strings.HasSuffix(b.breaks, ":hang") || b.rule == "handshake" || b.rule == "stop" || b.rule == "daemon-gone" || b.rule == "terminate" || b.rule == "cancelled-call" {
			opts.Timeout = 2 * time.Second // it is waited for in full
		}
		opts.Rules = []string{b.rule}
		runs.Go(func() {
			atATime <- struct{}{}
			defer func() { <-atATime }()
			report, err := contract.Run(t.Context(), opts)
			outcomes[i] <- outcome{report, err}
		})
	}
	for i, b := range all {
		t.Run(strings.ReplaceAll(b.rule+" "+b.breaks+" "+b.env, "/", " "), func(t *testing.T) {
			o := <-outcomes[i]
			if o.err != nil {
				t.Fatal(o.err)
			}
			r := o.report.Results[0]
			if r.Status != contract.Failed {
				t.Fatalf("%s %s", r.Status, r.Reason)
			}
			text := r.Text()
			t.Log(text)
			if !strings.Contains(text, "FAILED   "+b.rule) || r.Failure.Expected == "" || r.Failure.Happened == "" || r.Failure.Advice == "" {
				t.Error("the failure does not say all that it should")
			}
			if strings.Contains(text, "hunter2-hunter2") {
				t.Error("the report holds a secret")
			}
		})
	}
}

// TestKeeperPasses: a plugin that keeps the contract breaks no rule, and nothing is
// skipped. It makes keys at its start, which the race detector slows down most, beside
// whatever else the machine does: it gets more time than those that break a rule.
func TestKeeperPasses(t *testing.T) {
	t.Parallel()
	opts := options(t, "keep")
	opts.Timeout = 10 * time.Second
	opts.PlainTransport = false
	report, err := contract.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if r.Status != contract.OK {
			t.Error(r.Text())
		}
	}
	if report.Type != "fault" || report.Version != "1.0.0" || !strings.Contains(report.Summary(), "keeps the contract") {
		t.Error(report.Summary())
	}
}

// TestGate: where the plugin does not even start, nothing else is tried.
func TestGate(t *testing.T) {
	t.Parallel()
	report, err := contract.Run(t.Context(), options(t, "keep", faultsink.EnvStart+"=exit:7"))
	if err != nil {
		t.Fatal(err)
	}
	if report.Count(contract.Failed) != 1 || report.Count(contract.Skipped) != len(report.Results)-1 || report.Passed() {
		t.Error(report.Summary())
	}
	if got := report.Results[5].Text(); !strings.Contains(got, "(not checked, because the rule handshake is broken)") {
		t.Error(got)
	}
}

func TestWrongUse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*contract.Options)
		want   string
	}{
		"no program":        {func(o *contract.Options) { o.Command = nil }, "there is no program"},
		"unknown rule":      {func(o *contract.Options) { o.Rules = []string{"beauty"} }, `there is no rule "beauty"`},
		"timeout":           {func(o *contract.Options) { o.Timeout = time.Hour }, "is not between 1s and 1m0s"},
		"settings required": {func(o *contract.Options) { o.Settings = nil }, `setting "must": it is required`},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(t, "keep")
			c.change(&opts)
			if _, err := contract.Run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// TestInterrupted: the run ends at once with its context, whatever the plugin does.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	opts := options(t, "keep", faultsink.EnvStart+"=silent")
	opts.Timeout = time.Minute
	began := time.Now()
	if _, err := contract.Run(ctx, opts); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	// No other test runs at this time, so there are no other children.
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		if text, err := os.ReadFile(list); err == nil && len(text) > 0 {
			t.Errorf("processes are left: %s", text)
		}
	}
}

// TestRules: the list is fit to be shown.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range contract.Rules() {
		if seen[r.ID] || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(r.ID) || len(r.ID) > 17 {
			t.Errorf("the id %q is not unique, or not fit for one", r.ID)
		}
		seen[r.ID] = true
		if !strings.HasSuffix(r.Text, ".") || strings.Contains(r.Text, "\n") || r.Advice == "" {
			t.Errorf("rule %s: %q, %q", r.ID, r.Text, r.Advice)
		}
	}
}

// TestRun: the suite as authors use it.
func TestRun(t *testing.T) {
	t.Setenv(faultsink.EnvContract, "keep") // by which this program knows what it is
	sinktest.Run(t, sinktest.Options{
		Settings: map[string]any{"must": "be", "token": "hunter2-hunter2"},
		Refused:  []sinktest.Refused{{Settings: map[string]any{"must": "refused"}, Path: []any{"must"}}},
		Failing:  fail, Slow: slow,
		Env:   []string{faultsink.EnvContract + "=keep"},
		Rules: []string{"handshake", "by-hand", "deliver", "settings-refused", "mixed-batch"},
	})
}
