package contract

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

func settingsRules() []Rule {
	const pathAdvice = "Answer with a diagnostic of severity error whose path begins with the name of the setting: the daemon shows it at the line of the configuration. A gRPC status is for calls that did not complete."
	return []Rule{
		{
			ID: "settings", gate: true, check: checkSettings,
			Text:   "Settings that work are accepted.",
			Advice: "See what the diagnostic says. Settings that are right, but cannot be used at present, are told with unavailable.",
		},
		{
			ID: "validate-only", check: checkValidateOnly,
			Text:   "Configure with validate_only checks the settings, leaves nothing behind, and does not configure the sink.",
			Advice: "Return what is wrong with the settings before anything is created, opened or connected to. While no sink is configured, refuse Deliver with the gRPC status FAILED_PRECONDITION.",
		},
		{
			ID: "settings-missing", check: checkMissing, Advice: pathAdvice,
			Text: "Without a required setting the configuration is refused with a diagnostic that names it.",
		},
		{
			ID: "settings-type", check: checkType, Advice: pathAdvice,
			Text: "A setting of the wrong type is refused with a diagnostic that names it.",
		},
		{
			ID: "settings-choice", check: checkChoice, Advice: pathAdvice,
			Text: "A value that is not among the allowed ones is refused with a diagnostic that names the setting.",
		},
		{
			ID: "settings-unknown", check: checkUnknown, Advice: pathAdvice,
			Text: "A setting that the schema does not have is refused with a diagnostic that names it.",
		},
		{
			ID: "settings-refused", check: checkRefused, Advice: pathAdvice,
			Text: "Settings that the author says are wrong are refused with a diagnostic at their place.",
		},
	}
}

func checkSettings(ctx context.Context, s *suite) error {
	_, err := s.open(ctx)
	return err
}

func checkValidateOnly(ctx context.Context, s *suite) error {
	settings, err := s.goodSettings(ctx)
	if err != nil {
		return err
	}
	before, err := s.traces()
	if err != nil {
		return err
	}
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	for range 2 {
		answer, err := c.configure(ctx, settings.Values, true)
		if err != nil {
			return err
		}
		if err := accepted(answer); err != nil {
			return err
		}
	}
	if err := s.noTraces(before, "Configure with validate_only"); err != nil {
		return err
	}
	if err := c.refusesDelivery(ctx, "while no sink is configured"); err != nil {
		return err
	}
	if err := c.configureGood(ctx, settings); err != nil {
		return err
	}
	return c.still(ctx, "Configure with validate_only and then without")
}

// refusesDelivery tells whether a Deliver call is refused as a whole.
func (c *session) refusesDelivery(ctx context.Context, when string) error {
	deliveries, err := c.suite.deliveries(events(1))
	if err != nil {
		return err
	}
	a := c.deliver(ctx, c.suite.opts.Timeout, deliveries)
	expected := "Deliver is refused with a gRPC status " + when
	if len(a.results) > 0 {
		return wrong(expected, "the delivery has the result %s", outcomeName(a.results[0].GetOutcome()))
	}
	if a.err == nil {
		return wrong(expected, "the call ends well, without a result")
	}
	if a.took > c.suite.opts.Timeout {
		return wrong(expected, "%s", a.err)
	}
	if err := c.alive(); err != nil {
		return wrong(expected, "%s", err)
	}
	return nil
}

// mistake is one change of good settings that makes them wrong.
type mistake struct {
	what string
	name string
	make func(schema.Object)
}

// refuses tells whether each of the mistakes is refused, and good settings are
// accepted afterwards.
func (s *suite) refuses(ctx context.Context, mistakes []mistake) error {
	settings, err := s.goodSettings(ctx)
	if err != nil {
		return err
	}
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	for _, m := range mistakes {
		values := maps.Clone(settings.Values)
		if values == nil {
			values = schema.Object{}
		}
		m.make(values)
		for _, validateOnly := range []bool{true, false} {
			answer, err := c.configure(ctx, values, validateOnly)
			if err == nil {
				err = refused(answer, m.what, []any{m.name})
			}
			if err != nil {
				return err
			}
		}
	}
	if err := c.configureGood(ctx, settings); err != nil {
		return wrong("settings that work are accepted after wrong ones were refused", "%s", happened(err))
	}
	return c.still(ctx, "wrong settings were refused")
}

// refused tells whether Configure found what is wrong.
func refused(answer *sinkpb.ConfigureResponse, what string, path []any) error {
	expected := fmt.Sprintf("%s is refused with a diagnostic about %s", what, pathText(path))
	if why := answer.GetUnavailable(); why != "" {
		return wrong(expected, "the answer is unavailable: %s", wire.Text(why))
	}
	told := ""
	for _, d := range wire.DiagnosticsFromProto(answer.GetDiagnostics()) {
		if d.Warning {
			continue
		}
		if len(d.Path) >= len(path) && slices.Equal(d.Path[:len(path)], path) {
			return nil
		}
		told = fmt.Sprintf("the diagnostic is about %s: %s", pathText(d.Path), d.Summary)
	}
	if told == "" {
		told = "it is accepted"
	}
	return wrong(expected, "%s", told)
}

func happened(err error) string {
	if failure, ok := errors.AsType[*brokenError](err); ok {
		return failure.Happened
	}
	return err.Error()
}

// mistakesOf makes a mistake of each attribute of the sink where there is one to
// make.
func (s *suite) mistakesOf(ctx context.Context, of func(schema.Attribute) (what string, value schema.Value, ok bool)) ([]mistake, error) {
	about, err := s.description(ctx)
	if err != nil {
		return nil, err
	}
	var out []mistake
	for _, a := range about.Schema.Attributes {
		if what, value, ok := of(a); ok {
			out = append(out, mistake{what, a.Name, func(o schema.Object) { o[a.Name] = value }})
		}
	}
	return out, nil
}

func checkMissing(ctx context.Context, s *suite) error {
	mistakes, err := s.mistakesOf(ctx, func(a schema.Attribute) (string, schema.Value, bool) {
		return fmt.Sprintf("a configuration without %q, which is required,", a.Name), nil, a.Required
	})
	if err != nil {
		return err
	}
	if len(mistakes) == 0 {
		return skipped("no setting is required")
	}
	return s.refuses(ctx, mistakes)
}

func checkType(ctx context.Context, s *suite) error {
	mistakes, err := s.mistakesOf(ctx, func(a schema.Attribute) (string, schema.Value, bool) {
		what := fmt.Sprintf("for %q, which is %s,", a.Name, schema.KindName(a.Type.Kind))
		switch a.Type.Kind {
		case schema.KindAny:
			return "", nil, false
		case schema.KindString, schema.KindPath:
			return "the number 7 " + what, int64(7), true
		}
		return "the text \"not of this kind\" " + what, "not of this kind", true
	})
	if err != nil {
		return err
	}
	if len(mistakes) == 0 {
		return skipped("there are no settings, or any value may be given to each")
	}
	return s.refuses(ctx, mistakes)
}

func checkChoice(ctx context.Context, s *suite) error {
	const stranger = "callbackd-none-of-these"
	mistakes, err := s.mistakesOf(ctx, func(a schema.Attribute) (string, schema.Value, bool) {
		return fmt.Sprintf("the value %q of %q, which is none of the allowed ones,", stranger, a.Name), stranger,
			len(a.OneOf) > 0 && !slices.Contains(a.OneOf, stranger)
	})
	if err != nil {
		return err
	}
	if len(mistakes) == 0 {
		return skipped("no setting has a list of allowed values")
	}
	return s.refuses(ctx, mistakes)
}

func checkUnknown(ctx context.Context, s *suite) error {
	const stranger = "callbackd_no_such_setting"
	return s.refuses(ctx, []mistake{{
		"a setting that the schema does not have", stranger,
		func(o schema.Object) { o[stranger] = "value" },
	}})
}

func checkRefused(ctx context.Context, s *suite) error {
	if len(s.opts.Refused) == 0 {
		return skipped("no settings were given that have to be refused")
	}
	about, err := s.description(ctx)
	if err != nil {
		return err
	}
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	for i, r := range s.opts.Refused {
		settings, err := r.Settings(about)
		if err != nil {
			s.unusable = fmt.Errorf("the settings number %d that should be refused cannot be used: %w", i+1, err)
			return s.unusable
		}
		answer, err := c.configure(ctx, settings.Values, true)
		if err == nil {
			err = refused(answer, fmt.Sprintf("number %d of the settings that have to be refused", i+1), r.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
