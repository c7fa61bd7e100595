package contract

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

func watchRules() []Rule {
	return []Rule{
		{
			ID: "output", check: checkOutput,
			Text:   fmt.Sprintf("What the plugin prints fits into the daemon's log: lines of less than 16 KiB, and no more than %d of them for a short piece of work.", host.LogLinesBurst),
			Advice: "Log what matters to operators, at the level in CALLBACKD_SINK_LOG_LEVEL, a line for each; the daemon cuts longer lines and drops what comes too fast.",
		},
		{
			ID: "metrics", check: checkMetrics,
			Text:   "Metrics, if there are any, are well-formed, and counters do not fall.",
			Advice: "See the rules at MetricsResponse and Metric in sink.proto: the daemon leaves out what breaks them.",
		},
		{
			ID: "secrets", check: checkSecrets,
			Text:   "No value of a sensitive setting is in a log line, a diagnostic, a message or any other text of the plugin, also when deliveries fail.",
			Advice: "Leave settings out of errors and logs. Errors of HTTP clients often name the whole URL: take them apart.",
		},
	}
}

func checkOutput(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		if _, err := c.describe(ctx); err != nil {
			return err
		}
		if err := c.deliverGood(ctx, s.atOnce(3)); err != nil {
			return err
		}
		if _, err := c.check(ctx); err != nil {
			return err
		}
	}
	if err := c.stop(ctx); err != nil {
		return err
	}
	heard := s.everythingSaid()
	if len(heard.cut) > 0 {
		return wrong("lines of less than 16 KiB", "a line on %s is longer; it begins with %q", heard.cut[0].Stream, heard.cut[0].Text)
	}
	if heard.lines > host.LogLinesBurst {
		return wrong(fmt.Sprintf("at most %d lines", host.LogLinesBurst), "from its start to its end the plugin printed %d lines while it delivered %d events", heard.lines, 3*s.atOnce(3))
	}
	return nil
}

func checkMetrics(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	before, err := c.metrics(ctx)
	if err != nil {
		return err
	}
	if err := c.deliverGood(ctx, s.atOnce(3)); err != nil {
		return err
	}
	after, err := c.metrics(ctx)
	if err != nil {
		return err
	}
	for key, was := range before {
		if now, ok := after[key]; ok && now < was {
			return wrong("a counter only ever grows", "%s was %v and is %v", key, was, now)
		}
	}
	return nil
}

// metrics asks for the metrics, checks them, and returns the counters.
func (c *session) metrics(ctx context.Context) (map[string]float64, error) {
	call, cancel := c.suite.call(ctx)
	defer cancel()
	answer, err := c.rpc.Metrics(call, &sinkpb.MetricsRequest{Sink: c.ref})
	if status.Code(err) == codes.Unimplemented || err == nil && len(answer.GetMetrics()) == 0 {
		return nil, skipped("the sink keeps no metrics")
	}
	if err != nil {
		return nil, c.explain("Metrics", err)
	}
	const expected = "metrics as sink.proto wants them"
	if n := len(answer.GetMetrics()); n > wire.MaxMetrics {
		return nil, wrong(expected, "there are %d metrics, at most %d are taken", n, wire.MaxMetrics)
	}
	counters, names, series := map[string]float64{}, map[string]bool{}, 0
	for _, m := range answer.GetMetrics() {
		if names[m.GetName()] {
			return nil, wrong(expected, "there are two metrics %q", cut(m.GetName()))
		}
		names[m.GetName()] = true
		if series += len(m.GetSeries()); series > wire.MaxMetricSeries {
			return nil, wrong(expected, "all metrics together have more than %d series", wire.MaxMetricSeries)
		}
		if err := checkMetric(m, counters); err != nil {
			return nil, wrong(expected, "metric %q: %s", cut(m.GetName()), err)
		}
	}
	return counters, nil
}

// checkMetric checks one metric and adds what must not fall to the counters.
func checkMetric(m *sinkpb.Metric, counters map[string]float64) error {
	kind := m.GetKind()
	if kind < sinkpb.MetricKind_METRIC_KIND_COUNTER || kind > sinkpb.MetricKind_METRIC_KIND_HISTOGRAM {
		return fmt.Errorf("its kind %d is none", kind)
	}
	if err := wire.CheckMetric(kind, m.GetName(), m.GetHelp(), m.GetLabelNames()); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, series := range m.GetSeries() {
		if err := wire.CheckLabelValues(m.GetLabelNames(), series.GetLabelValues()); err != nil {
			return err
		}
		key := fmt.Sprintf("%s%q", m.GetName(), series.GetLabelValues())
		if seen[key] {
			return fmt.Errorf("there are two series with the labels %q", series.GetLabelValues())
		}
		seen[key] = true
		switch kind {
		case sinkpb.MetricKind_METRIC_KIND_HISTOGRAM:
			if err := checkHistogram(series.GetHistogram()); err != nil {
				return err
			}
			counters[key] = float64(series.GetHistogram().GetCount())
		case sinkpb.MetricKind_METRIC_KIND_COUNTER:
			value := series.GetValue()
			if math.IsNaN(value) || math.IsInf(value, 0) || value < 0 {
				return fmt.Errorf("a counter cannot be %v", value)
			}
			counters[key] = value
		}
	}
	return nil
}

func checkHistogram(h *sinkpb.MetricHistogram) error {
	if h == nil {
		return fmt.Errorf("a series of a histogram has none")
	}
	bounds, least := make([]float64, len(h.GetBuckets())), uint64(0)
	for i, b := range h.GetBuckets() {
		bounds[i] = b.GetUpperBound()
		if b.GetCumulativeCount() < least {
			return fmt.Errorf("its buckets are not cumulative: %d after %d", b.GetCumulativeCount(), least)
		}
		least = b.GetCumulativeCount()
	}
	if h.GetCount() < least {
		return fmt.Errorf("its count %d is less than that of its last bucket, %d", h.GetCount(), least)
	}
	return wire.CheckBuckets(bounds)
}

// canary is a secret that is not right for anything.
const canary = "callbackd-canary-5b1f0c7e"

func checkSecrets(ctx context.Context, s *suite) error {
	settings, err := s.goodSettings(ctx)
	if err != nil {
		return err
	}
	if len(s.masking.order) == 0 && !slices.ContainsFunc(s.about.Schema.Attributes, wantsCanary) {
		return skipped(fmt.Sprintf("no sensitive setting has a value of at least %d bytes", minSecret))
	}
	s.level = slog.LevelDebug
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	canaries := masking{}
	canaries.add(canary)
	if err := c.tellCanaries(ctx, settings); err != nil {
		return err
	}
	if err := c.configureGood(ctx, settings); err != nil {
		return err
	}
	if err := c.failInAllWays(ctx); err != nil {
		return err
	}
	// What it logs is read to its end only when it has ended.
	_ = c.close(ctx)
	c.conn.Stop(ctx, true)
	for _, t := range s.everythingSaid().texts {
		for _, known := range []*masking{&s.masking, &canaries} {
			if form := known.find(t.text); form != "" {
				return wrong("no value of a sensitive setting is shown", "it is, %s, in a %s: %s", form, t.where, around(known, t.text))
			}
		}
	}
	return nil
}

func wantsCanary(a schema.Attribute) bool {
	return a.Sensitive && a.Type.Kind == schema.KindString && len(a.OneOf) == 0
}

// tellCanaries gives each sensitive setting a value that may well be wrong: what
// is said about it must not hold it. It may also be right.
func (c *session) tellCanaries(ctx context.Context, settings *Settings) error {
	for _, a := range c.suite.about.Schema.Attributes {
		if !wantsCanary(a) {
			continue
		}
		for _, value := range []string{canary, "https://" + canary + ":" + canary + "@127.0.0.1:1/%zz" + canary} {
			values := make(schema.Object, len(settings.Values))
			for name, v := range settings.Values {
				values[name] = v
			}
			values[a.Name] = value
			if _, err := c.configure(ctx, values, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// failInAllWays makes deliveries: one that works, and all kinds of failures that
// can be had.
func (c *session) failInAllWays(ctx context.Context) error {
	s := c.suite
	if err := c.deliverGood(ctx, 1); err != nil {
		return err
	}
	if receiver := s.opts.Receiver; receiver != nil {
		for _, m := range []mode{failAll, dropAll} {
			receiver.set(m)
			deliveries, err := s.deliveries(events(1))
			if err != nil {
				return err
			}
			c.deliver(ctx, s.opts.Timeout, deliveries)
		}
		receiver.set(byMark)
	}
	if s.opts.Failing != nil {
		ev := event()
		s.opts.Failing(&ev)
		deliveries, err := s.deliveries([]host.Event{ev})
		if err != nil {
			return err
		}
		c.deliver(ctx, s.opts.Timeout, deliveries)
	}
	b, err := c.begin(ctx, 1, minTimeout)
	if err != nil {
		return err
	}
	<-b.answer
	b.release()
	_, err = c.check(ctx)
	return err
}

// around is the place in a text where a secret is, without it.
func around(known *masking, text string) string {
	masked := known.mask(text)
	at := strings.Index(masked, "(sensitive)")
	from, to := max(0, at-60), min(len(masked), at+80)
	return fmt.Sprintf("%q", strings.ToValidUTF8(masked[from:to], "?"))
}
