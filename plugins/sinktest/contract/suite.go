package contract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// ruleTimeout bounds the check of one rule, in timeouts of Options.
const ruleTimeout = 12

// suite is one run over the rules. One rule is checked at a time.
type suite struct {
	opts Options

	about    *host.Description // once the plugin was described
	settings *Settings         // once it was
	// delivered tells that an event was delivered.
	delivered bool
	// evaluated tells that the settings could be evaluated for an event.
	evaluated bool
	unusable  error // why nothing can be checked at all
	masking   masking

	sessions []*session // of the rule that is checked
	level    slog.Level // what its plugins are to log

	mu   sync.Mutex
	said said // of the rule that is checked
	left []string
}

// skipped is why a rule is skipped.
type skipped string

func (s skipped) Error() string { return string(s) }

// checkRule checks one rule, and leaves nothing of the plugin behind.
func (s *suite) checkRule(ctx context.Context, rule Rule) Result {
	began := time.Now()
	result := Result{Rule: rule, Status: OK}
	bounded, cancel := context.WithTimeoutCause(ctx, ruleTimeout*s.opts.Timeout, errors.New("the check of the rule took too long"))
	s.level = slog.LevelInfo
	s.mu.Lock()
	s.said, s.left = said{}, nil
	s.mu.Unlock()
	err := rule.check(bounded, s)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = context.Cause(bounded)
	}
	cancel()
	s.endSessions(ctx)
	if s.opts.Receiver != nil {
		s.opts.Receiver.set(byMark)
	}
	var skip skipped
	var failure *brokenError
	switch {
	case err == nil:
	case s.unusable != nil:
		result.Status, result.Reason = Skipped, "not checked: the settings that should work cannot be used"
	case ctx.Err() != nil:
		result.Status, result.Reason = Skipped, "not checked: the check was given up"
	case errors.As(err, &skip):
		result.Status, result.Reason = Skipped, s.mask(skip.Error())
	case errors.As(err, &failure):
		result.Status = Failed
		result.Failure = &Failure{Expected: s.mask(failure.Expected), Happened: s.mask(failure.Happened), Advice: s.mask(failure.Advice)}
	default:
		result.Status = Failed
		result.Failure = &Failure{Expected: strings.ToLower(rule.Text[:1]) + strings.TrimSuffix(rule.Text[1:], "."), Happened: s.mask(err.Error())}
	}
	if f := result.Failure; f != nil && f.Advice == "" {
		f.Advice = rule.Advice
	}
	result.Duration = time.Since(began)
	return result
}

// brokenError is a Failure as the error of a check.
type brokenError struct{ Failure }

func (e *brokenError) Error() string {
	return fmt.Sprintf("expected: %s; happened: %s", e.Expected, e.Happened)
}

// wrong is a failure with the rule's own advice.
func wrong(expected, happened string, args ...any) error {
	return &brokenError{Failure{Expected: expected, Happened: fmt.Sprintf(happened, args...)}}
}

func (s *suite) mask(text string) string { return s.masking.mask(text) }

// session is one process of the plugin.
type session struct {
	suite *suite
	conn  *host.Connection
	rpc   sinkpb.SinkServiceClient
	ref   *sinkpb.SinkRef
}

// start starts the plugin.
func (s *suite) start(ctx context.Context) (*session, error) {
	generation := uint64(len(s.sessions) + 1)
	conn, err := host.Connect(ctx, host.Options{
		Name: s.opts.SinkName, Generation: generation, Command: s.opts.Command, Env: s.opts.Env,
		PlainTransport: s.opts.PlainTransport, DaemonVersion: s.opts.DaemonVersion,
		Logger:       slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: s.level})), //nolint:sloglint // its level is what the plugin is told
		StartTimeout: s.opts.Timeout, DescribeTimeout: s.opts.Timeout,
	}, host.Observer{Printed: s.heardLine, Ended: s.lookForLeft})
	if err != nil {
		return nil, err
	}
	c := &session{suite: s, conn: conn, rpc: conn.RPC(), ref: &sinkpb.SinkRef{Name: s.opts.SinkName, Generation: generation}}
	s.sessions = append(s.sessions, c)
	return c, nil
}

// open starts the plugin and configures it with settings that work.
func (s *suite) open(ctx context.Context) (*session, error) {
	settings, err := s.goodSettings(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	return c, c.configureGood(ctx, settings)
}

// configureGood hands over settings that have to be accepted.
func (c *session) configureGood(ctx context.Context, settings *Settings) error {
	answer, err := c.configure(ctx, settings.Values, false)
	if err != nil {
		return err
	}
	return accepted(answer)
}

// endSessions kills what still runs.
func (s *suite) endSessions(ctx context.Context) {
	var ends sync.WaitGroup
	for _, c := range s.sessions {
		ends.Go(func() { c.conn.Stop(ctx, false) })
	}
	ends.Wait()
	s.sessions = nil
}

// description is what the plugin says about itself.
func (s *suite) description(ctx context.Context) (*host.Description, error) {
	if s.about != nil {
		return s.about, nil
	}
	c, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	defer c.conn.Stop(ctx, false)
	s.about, err = c.conn.Describe(ctx)
	return s.about, err
}

// goodSettings are settings that work.
func (s *suite) goodSettings(ctx context.Context) (*Settings, error) {
	if s.settings != nil {
		return s.settings, nil
	}
	about, err := s.description(ctx)
	if err != nil {
		return nil, err
	}
	of := s.opts.Settings
	if of == nil {
		of = func(d *host.Description) (Settings, error) { return FromMap(d.Schema, nil) }
	}
	settings, err := of(about)
	if err != nil {
		s.unusable = fmt.Errorf("the settings that should work cannot be used: %w", err)
		return nil, s.unusable
	}
	s.masking.learn(about.Schema, settings.Values)
	s.settings = &settings
	return s.settings, nil
}

// call bounds a call to the plugin.
func (s *suite) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.opts.Timeout)
}

// explain says why a call did not complete.
func (c *session) explain(call string, err error) error {
	const crashNotice = time.Second
	c.suite.heard("gRPC status", status.Convert(err).Message())
	st := status.Convert(err)
	if isGone(st.Code()) && c.conn.ExitsWithin(crashNotice) {
		return fmt.Errorf("the plugin ended during %s: it %s", call, c.conn.ExitText())
	}
	if isLate(st.Code()) {
		return fmt.Errorf("the plugin did not answer %s within %s", call, c.suite.opts.Timeout)
	}
	return fmt.Errorf("%s failed with the gRPC status %s: %s", call, st.Code(), st.Message())
}

// alive tells whether the process still runs.
func (c *session) alive() error {
	if text := c.conn.ExitText(); text != "" {
		return fmt.Errorf("the plugin ended: it %s", text)
	}
	return nil
}

func (c *session) configure(ctx context.Context, settings schema.Object, validateOnly bool) (*sinkpb.ConfigureResponse, error) {
	object, err := wire.ObjectToProto(settings)
	if err != nil {
		return nil, fmt.Errorf("the settings cannot be sent: %w", err)
	}
	call, cancel := c.suite.call(ctx)
	defer cancel()
	answer, err := c.rpc.Configure(call, &sinkpb.ConfigureRequest{Sink: c.ref, Settings: object, ValidateOnly: validateOnly})
	if err != nil {
		return nil, c.explain("Configure", err)
	}
	for _, d := range answer.GetDiagnostics() {
		c.suite.heard("diagnostic", d.GetSummary()+"\n"+d.GetDetail())
	}
	c.suite.heard("unavailable", answer.GetUnavailable())
	return answer, nil
}

// accepted tells whether Configure found nothing wrong.
func accepted(answer *sinkpb.ConfigureResponse) error {
	const expected = "settings that work are accepted"
	for _, d := range wire.DiagnosticsFromProto(answer.GetDiagnostics()) {
		if !d.Warning {
			return wrong(expected, "the plugin says about %s: %s %s", pathText(d.Path), d.Summary, d.Detail)
		}
	}
	if why := answer.GetUnavailable(); why != "" {
		return &brokenError{Failure{
			Expected: expected, Happened: "the sink cannot be opened at present: " + wire.Text(why),
			Advice: "Make available what the settings name, or give other settings.",
		}}
	}
	return nil
}

func (c *session) check(ctx context.Context) (*sinkpb.CheckResponse, error) {
	call, cancel := c.suite.call(ctx)
	defer cancel()
	answer, err := c.rpc.Check(call, &sinkpb.CheckRequest{Sink: c.ref})
	if err != nil {
		return nil, c.explain("Check", err)
	}
	c.suite.heard("answer to Check", answer.GetMessage())
	return answer, nil
}

func (c *session) close(ctx context.Context) error {
	call, cancel := c.suite.call(ctx)
	defer cancel()
	if _, err := c.rpc.Close(call, &sinkpb.CloseRequest{Sink: c.ref}); err != nil {
		return c.explain("Close", err)
	}
	return nil
}

// stop ends the process as the daemon does, and tells whether it did so by itself.
func (c *session) stop(ctx context.Context) error {
	if err := c.close(ctx); err != nil {
		return err
	}
	if err := c.conn.Shutdown(ctx); err != nil {
		return err
	}
	return c.ended("Shutdown", shutdownPatience)
}

// shutdownPatience is how long the daemon waits after Shutdown, and as much again
// because this machine may be busy.
const shutdownPatience = 4 * time.Second

// ended waits for the process to end by itself.
func (c *session) ended(after string, within time.Duration) error {
	if !c.conn.ExitsWithin(within) {
		return fmt.Errorf("the plugin still runs %s after %s", within, after)
	}
	if !c.conn.ExitState().Exited() || c.conn.ExitState().ExitCode() != 0 {
		return fmt.Errorf("after %s the plugin %s", after, c.conn.ExitText())
	}
	return nil
}

func pathText(path []any) string {
	if len(path) == 0 {
		return "the block as a whole"
	}
	var b strings.Builder
	for i, step := range path {
		switch step := step.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", step)
		default:
			if i > 0 {
				b.WriteByte('.')
			}
			fmt.Fprint(&b, step)
		}
	}
	return fmt.Sprintf("%q", b.String())
}
