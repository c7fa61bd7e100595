package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// Measured is a Sink that keeps figures of its own. Metrics is called once, when
// the sink has been opened. The daemon shows each as
// callbackd_plugin_TYPE_NAME{sink="…"}: at most 64 metrics with 200 series
// together. A metric that breaks the rules is left out, and the log says why.
type Measured interface {
	Metrics() []Metric
}

// Metric is a Counter, a Gauge or a Histogram. Its name is of lower-case letters,
// digits and _, with the unit at the end: "written_bytes_total". Its labels, at
// most 8, have values from a small set that is known beforehand, never from
// events. Its methods take the label values in order, and may be called from
// any goroutine.
type Metric interface{ describe() *vec }

// Counter only ever grows. Its name ends in _total.
type Counter struct{ *vec }

// Gauge goes up and down.
type Gauge struct{ *vec }

// Histogram counts observations in buckets.
type Histogram struct{ *vec }

// NewCounter returns a counter.
func NewCounter(name, help string, labels ...string) *Counter {
	return &Counter{newVec(sinkpb.MetricKind_METRIC_KIND_COUNTER, name, help, nil, labels)}
}

// NewGauge returns a gauge.
func NewGauge(name, help string, labels ...string) *Gauge {
	return &Gauge{newVec(sinkpb.MetricKind_METRIC_KIND_GAUGE, name, help, nil, labels)}
}

// NewHistogram returns a histogram with the given upper bounds of its buckets,
// growing, at most 64.
func NewHistogram(name, help string, buckets []float64, labels ...string) *Histogram {
	return &Histogram{newVec(sinkpb.MetricKind_METRIC_KIND_HISTOGRAM, name, help, slices.Clone(buckets), labels)}
}

// Inc adds 1.
func (c *Counter) Inc(labelValues ...string) { c.Add(1, labelValues...) }

// Add adds v; what is not positive is ignored. With 0 the series begins to exist.
func (c *Counter) Add(v float64, labelValues ...string) {
	if s := c.series(labelValues); s != nil && v > 0 {
		s.add(v)
	}
}

// Set sets the value.
func (g *Gauge) Set(v float64, labelValues ...string) {
	if s := g.series(labelValues); s != nil {
		s.set(v)
	}
}

// Add adds v, which may be negative.
func (g *Gauge) Add(v float64, labelValues ...string) {
	if s := g.series(labelValues); s != nil {
		s.add(v)
	}
}

// Observe counts v.
func (h *Histogram) Observe(v float64, labelValues ...string) {
	s := h.series(labelValues)
	if s == nil || v != v {
		return
	}
	i, _ := slices.BinarySearch(h.buckets, v) // the first bound that is not below v
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.sum += v
	if i < len(s.inBucket) {
		s.inBucket[i]++
	}
}

// maxSeries bounds the series of one metric here; the daemon bounds those of all.
const maxSeries = wire.MaxMetricSeries

// vec is a metric with its series.
type vec struct {
	kind       sinkpb.MetricKind
	name, help string
	labels     []string
	buckets    []float64
	wrong      error // why it is left out

	plain *series // the one series where there are no labels

	mu    sync.RWMutex
	byKey map[string]*series
	order []*series
	// misused is told once in the log.
	misused error
}

// series is the figure for one set of label values.
type series struct {
	values []string

	mu       sync.Mutex
	value    float64
	count    uint64
	sum      float64
	inBucket []uint64
}

func newVec(kind sinkpb.MetricKind, name, help string, buckets []float64, labels []string) *vec {
	v := &vec{kind: kind, name: name, help: help, labels: labels, buckets: buckets, byKey: make(map[string]*series)}
	if v.wrong = wire.CheckMetric(kind, name, help, labels); v.wrong == nil {
		v.wrong = wire.CheckBuckets(buckets)
	}
	if v.wrong == nil && len(labels) == 0 {
		v.plain = &series{inBucket: make([]uint64, len(buckets))}
		v.order = []*series{v.plain}
	}
	return v
}

func (v *vec) describe() *vec { return v }

// series returns the series of the label values; nil where there can be none: a
// mistake in a metric must not cost a delivery.
func (v *vec) series(values []string) *series {
	if v.plain != nil && len(values) == 0 {
		return v.plain
	}
	if v.wrong != nil {
		return nil
	}
	key := ""
	switch len(values) {
	case 0:
	case 1:
		key = values[0]
	default:
		key = strings.Join(values, "\xff")
	}
	v.mu.RLock()
	s := v.byKey[key]
	v.mu.RUnlock()
	if s != nil && len(s.values) == len(values) {
		return s
	}
	return v.newSeries(key, values)
}

func (v *vec) newSeries(key string, values []string) *series {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := wire.CheckLabelValues(v.labels, values); err != nil {
		v.misused = err
		return nil
	}
	if s := v.byKey[key]; s != nil {
		return s
	}
	if len(v.order) >= maxSeries {
		v.misused = fmt.Errorf("it has more than %d sets of label values", maxSeries)
		return nil
	}
	s := &series{values: slices.Clone(values), inBucket: make([]uint64, len(v.buckets))}
	v.byKey[key] = s
	v.order = append(v.order, s)
	return s
}

func (s *series) add(v float64) {
	s.mu.Lock()
	s.value += v
	s.mu.Unlock()
}

func (s *series) set(v float64) {
	s.mu.Lock()
	s.value = v
	s.mu.Unlock()
}

// metrics are those of an open sink.
type metrics struct {
	all []*vec
	// toldMisuse has those whose misuse was logged.
	toldMisuse sync.Map // of *vec
}

// newMetrics asks the sink for its metrics.
func (s *server) newMetrics(opened Sink) *metrics {
	m := &metrics{}
	measured, ok := opened.(Measured)
	if !ok {
		return m
	}
	var list []Metric
	if err := s.guard("Metrics", func() error { list = measured.Metrics(); return nil }); err != nil {
		return m // it is in the log
	}
	names := make(map[string]bool)
	for _, metric := range list {
		if metric == nil {
			continue
		}
		v := metric.describe()
		wrong := v.wrong
		switch {
		case wrong != nil:
		case names[v.name]:
			wrong = errors.New("there is another one with its name")
		case len(m.all) == wire.MaxMetrics:
			wrong = fmt.Errorf("there are more than %d metrics", wire.MaxMetrics)
		}
		if wrong != nil {
			s.logger.Error("a metric of the sink is left out", "metric", v.name, "error", wrong)
			continue
		}
		names[v.name] = true
		m.all = append(m.all, v)
	}
	return m
}

// Metrics tells the figures of the sink.
func (s *server) Metrics(_ context.Context, req *sinkpb.MetricsRequest) (*sinkpb.MetricsResponse, error) {
	inst, err := s.instanceFor(req.GetSink())
	if err != nil {
		return nil, err
	}
	out := &sinkpb.MetricsResponse{}
	for _, v := range inst.metrics.all {
		metric, misused := v.read()
		out.Metrics = append(out.Metrics, metric)
		if misused == nil {
			continue
		}
		if _, told := inst.metrics.toldMisuse.LoadOrStore(v, true); !told {
			s.logger.Error("a metric of the sink is used wrongly: some of it is not counted", "metric", v.name, "error", misused)
		}
	}
	return out, nil
}

func (v *vec) read() (out *sinkpb.Metric, misused error) {
	v.mu.RLock()
	order, misused := v.order, v.misused
	v.mu.RUnlock()
	out = &sinkpb.Metric{Name: v.name, Help: v.help, Kind: v.kind, LabelNames: v.labels}
	for _, s := range order {
		out.Series = append(out.Series, v.readSeries(s))
	}
	return out, misused
}

func (v *vec) readSeries(s *series) *sinkpb.MetricSeries {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &sinkpb.MetricSeries{LabelValues: s.values}
	if v.kind != sinkpb.MetricKind_METRIC_KIND_HISTOGRAM {
		out.Value = s.value
		return out
	}
	out.Histogram = &sinkpb.MetricHistogram{Count: s.count, Sum: s.sum}
	sum := uint64(0)
	for i, n := range s.inBucket {
		sum += n
		out.Histogram.Buckets = append(out.Histogram.Buckets, &sinkpb.MetricBucket{UpperBound: v.buckets[i], CumulativeCount: sum})
	}
	return out
}
