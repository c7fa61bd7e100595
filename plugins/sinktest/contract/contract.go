// Package contract is what every sink plugin has to keep to, as rules that are
// checked against a real process: the plugin is started as the daemon starts it,
// and spoken to in the protocol. It takes a plugin in any language.
//
// It promises that it ends, whatever the plugin does, that no process of the
// plugin outlives it, and that a rule which fails says what was expected, what
// happened, and what to do. It shows no value of a sensitive setting.
//
// It must know neither how tests are run (package sinktest does) nor what a
// configuration looks like (command callbackd does).
package contract

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

// Rule is one rule of the contract.
type Rule struct {
	// ID names the rule. It never changes.
	ID string
	// Text is the rule, in one sentence.
	Text string
	// Advice is what to do about a plugin that breaks it.
	Advice string

	// gate: without it nothing else can be checked.
	gate  bool
	check func(context.Context, *suite) error
}

// Rules returns all rules in the order in which they are checked.
func Rules() []Rule {
	return slices.Concat(startRules(), settingsRules(), deliverRules(), callRules(), lifeRules(), watchRules())
}

// Options say what to check. Only Command has to be given.
type Options struct {
	// Command is the program, an absolute path, with its arguments.
	Command []string
	// Env is added to the variables that plugins get, as "NAME=value".
	Env []string
	// PlainTransport is for plugins that lack mutual TLS.
	PlainTransport bool
	// SinkName is the name of the sink. Default "contract".
	SinkName string
	// DaemonVersion is told to the plugin.
	DaemonVersion string
	// Settings returns settings that work. Nil: all settings have their defaults.
	Settings func(*host.Description) (Settings, error)
	// Refused are settings that have to be refused.
	Refused []Refused
	// Receiver is where the settings make the sink deliver to. Nil: elsewhere.
	Receiver *Receiver
	// Failing changes an event so that its delivery fails, Slow so that it takes
	// long. Nil: the Receiver sees to it; without one, what takes such deliveries
	// is not checked.
	Failing, Slow func(*host.Event)
	// Dir is the only folder that the settings name. Empty: what the sink does in
	// folders is not checked.
	Dir string
	// Timeout is how long the plugin may take for each thing that is asked of it;
	// 1 s to 1 min, default 10 s.
	Timeout time.Duration
	// Rules are the ids of the rules to check. Empty: all.
	Rules []string
	// Around is called for each rule, and calls check to have it checked; where it
	// does not, the rule is left out of the report. Nil: all are checked.
	Around func(rule Rule, check func() Result)
}

// Settings are settings that work.
type Settings struct {
	// Values are those of the config block, as the daemon sends them: every
	// attribute and block of the schema.
	Values schema.Object
	// PerEvent returns the values for one event of the attributes for which a
	// schema.PerEvent stands in Values, by its key. Nil: there are none.
	PerEvent func(*host.Event) (map[string]schema.Value, error)
}

// Refused are settings that a plugin has to refuse.
type Refused struct {
	Settings func(*host.Description) (Settings, error)
	// Path is where the mistake is, as schema.Diagnostic has it: the plugin has
	// to name it. Empty: the block as a whole.
	Path []any
}

const (
	defaultTimeout = 10 * time.Second
	minTimeout     = time.Second
	maxTimeout     = time.Minute
	// runTimeout bounds a whole run, in timeouts of Options.
	runTimeout = 60
)

// Run checks the rules one after the other. It takes at
// most 60 times the timeout. It returns a report when it could
// check them, whatever came out. An error says that it could not: the options are
// wrong, Settings failed, or ctx ended.
func Run(ctx context.Context, opts Options) (*Report, error) {
	rules, err := opts.rules()
	if err != nil {
		return nil, err
	}
	if opts.SinkName == "" {
		opts.SinkName = "contract"
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Timeout < minTimeout || opts.Timeout > maxTimeout {
		return nil, fmt.Errorf("the timeout %s is not between %s and %s", opts.Timeout, minTimeout, maxTimeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, runTimeout*opts.Timeout,
		fmt.Errorf("the check was given up: it took more than %s", runTimeout*opts.Timeout))
	defer cancel()
	s := &suite{opts: opts}
	began := time.Now()
	report := &Report{Plugin: opts.Command[0]}
	broken := "" // the gate that failed
	for _, rule := range rules {
		var result *Result
		check := func() Result {
			result = &Result{Rule: rule, Status: Skipped, Reason: fmt.Sprintf("not checked, because the rule %s is broken", broken)}
			if broken == "" {
				*result = s.checkRule(ctx, rule)
			}
			return *result
		}
		if opts.Around == nil {
			check()
		} else {
			opts.Around(rule, check)
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if s.unusable != nil {
			return nil, s.unusable
		}
		if result == nil {
			continue
		}
		if rule.gate && result.Status == Failed {
			broken = rule.ID
		}
		report.Results = append(report.Results, *result)
	}
	if s.about != nil {
		report.Type, report.Version = s.about.Name, s.about.Version
	}
	report.Duration = time.Since(began)
	return report, nil
}

// rules are those that are to be checked.
func (o *Options) rules() ([]Rule, error) {
	if len(o.Command) == 0 {
		return nil, errors.New("there is no program to check")
	}
	all := Rules()
	if len(o.Rules) == 0 {
		return all, nil
	}
	var chosen []Rule
	for _, rule := range all {
		if slices.Contains(o.Rules, rule.ID) {
			chosen = append(chosen, rule)
		}
	}
	for _, id := range o.Rules {
		if !slices.ContainsFunc(all, func(r Rule) bool { return r.ID == id }) {
			return nil, fmt.Errorf("there is no rule %q", id)
		}
	}
	return chosen, nil
}
