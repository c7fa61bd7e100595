package host

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// Metric is a figure that a plugin keeps about itself, with its series. Its names
// are sound, and so are its numbers.
type Metric struct {
	// Name is the plugin's own, without a prefix.
	Name, Help string
	Kind       MetricKind
	// Labels are the names of the labels.
	Labels []string
	Series []MetricSeries
}

// MetricKind is a kind of Metric.
type MetricKind string

// The kinds.
const (
	MetricCounter   MetricKind = "counter"
	MetricGauge     MetricKind = "gauge"
	MetricHistogram MetricKind = "histogram"
)

// MetricSeries is a figure for one set of label values, in the order of
// Metric.Labels.
type MetricSeries struct {
	LabelValues []string
	// Value is a counter's or a gauge's.
	Value float64
	// Count, Sum and Buckets (cumulative counts by upper bound) are a histogram's.
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64
}

// metricsTimeout bounds a Metrics call.
const metricsTimeout = 2 * time.Second

// Metrics returns what the plugin told last about itself, some seconds old; nil
// while it does not run. At most 64 metrics, 200 series together.
func (s *Sink) Metrics() []Metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.metrics
}

// measure asks a process for its metrics until ctx ends. It does not ask at once: a
// plugin that dies of it delivers for a while first, after each start.
func (s *Sink) measure(ctx context.Context, p *process) {
	ticker := time.NewTicker(s.opts.MetricsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.broken.Done():
			return
		case <-ticker.C:
		}
		if p.configured.Load() && !s.measureOnce(ctx, p) {
			return
		}
	}
}

// measureOnce returns false where there is no use in asking again.
func (s *Sink) measureOnce(ctx context.Context, p *process) bool {
	call, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	answer, err := p.rpc.Metrics(call, &sinkpb.MetricsRequest{Sink: p.ref()}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		// What is wrong with the process, Check finds out.
		return status.Code(err) != codes.Unimplemented
	}
	metrics, wrong := readMetrics(answer)
	if len(wrong) > 0 {
		s.oddMetrics.Do(func() {
			s.opts.Logger.Warn("plugin gave metrics that cannot be shown: they are left out",
				"count", len(wrong), "error", s.texts.clean(wrong[0].Error(), MaxMessageLen))
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == p {
		s.metrics = metrics
	}
	return true
}

// readMetrics takes what is sound of an answer, and says why the rest is not.
func readMetrics(answer *sinkpb.MetricsResponse) (out []Metric, wrong []error) {
	names := make(map[string]bool)
	room := wire.MaxMetricSeries
	for i, in := range answer.GetMetrics() {
		if i == wire.MaxMetrics {
			wrong = append(wrong, fmt.Errorf("there are %d metrics, at most %d are shown", len(answer.GetMetrics()), wire.MaxMetrics))
			break
		}
		if names[in.GetName()] {
			wrong = append(wrong, fmt.Errorf("metric %q is there twice", in.GetName()))
			continue
		}
		m, errs := readMetric(in, &room)
		for _, err := range errs {
			wrong = append(wrong, fmt.Errorf("metric %q: %w", cut(in.GetName(), 100), err))
		}
		if m == nil {
			continue
		}
		names[m.Name] = true
		out = append(out, *m)
	}
	return out, wrong
}

// readMetric returns nil where nothing of the metric can be shown.
func readMetric(in *sinkpb.Metric, room *int) (*Metric, []error) {
	if err := wire.CheckMetric(in.GetKind(), in.GetName(), in.GetHelp(), in.GetLabelNames()); err != nil {
		return nil, []error{err}
	}
	out := &Metric{Name: in.GetName(), Help: in.GetHelp(), Labels: in.GetLabelNames()}
	switch in.GetKind() {
	case sinkpb.MetricKind_METRIC_KIND_COUNTER:
		out.Kind = MetricCounter
	case sinkpb.MetricKind_METRIC_KIND_GAUGE:
		out.Kind = MetricGauge
	case sinkpb.MetricKind_METRIC_KIND_HISTOGRAM:
		out.Kind = MetricHistogram
	default:
		return nil, []error{fmt.Errorf("its kind %d is unknown to this callbackd", in.GetKind())}
	}
	var wrong []error
	seen := make(map[string]bool)
	for _, s := range in.GetSeries() {
		if *room == 0 {
			return out, append(wrong, fmt.Errorf("there are more than %d series", wire.MaxMetricSeries))
		}
		series, err := readSeries(out, s)
		key := strings.Join(s.GetLabelValues(), "\xff") // which no UTF-8 holds
		if err == nil && seen[key] {
			err = fmt.Errorf("a series is there twice")
		}
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		seen[key] = true
		*room--
		out.Series = append(out.Series, series)
	}
	return out, wrong
}

func readSeries(m *Metric, in *sinkpb.MetricSeries) (MetricSeries, error) {
	out := MetricSeries{LabelValues: slices.Clone(in.GetLabelValues()), Value: in.GetValue()}
	if err := wire.CheckLabelValues(m.Labels, out.LabelValues); err != nil {
		return out, err
	}
	if m.Kind == MetricCounter && !(out.Value >= 0 && !math.IsInf(out.Value, 0)) {
		return out, fmt.Errorf("a counter is at %v", out.Value)
	}
	if m.Kind != MetricHistogram {
		return out, nil
	}
	h := in.GetHistogram()
	out.Count, out.Sum = h.GetCount(), h.GetSum()
	bounds := make([]float64, 0, len(h.GetBuckets()))
	out.Buckets = make(map[float64]uint64, len(h.GetBuckets()))
	below := uint64(0)
	for _, b := range h.GetBuckets() {
		if b.GetCumulativeCount() < below || b.GetCumulativeCount() > out.Count {
			return out, fmt.Errorf("the counts of a histogram's buckets are not cumulative")
		}
		below = b.GetCumulativeCount()
		bounds = append(bounds, b.GetUpperBound())
		out.Buckets[b.GetUpperBound()] = below
	}
	return out, wire.CheckBuckets(bounds)
}
