package ingest

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// unknownSource is the source label of requests that no source takes.
const unknownSource = "unknown"

// Metrics of all sources, and of the routing of their events. Labels come from
// the configuration and from closed sets only.
type Metrics struct {
	callbacks *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	accepted  *prometheus.CounterVec
	unrouted  *prometheus.CounterVec
	duplicate *prometheus.CounterVec
	matches   *prometheus.CounterVec
}

// NewMetrics registers the metrics. It panics if they are registered already.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_callbacks_total", Help: "Callbacks that were answered, by HTTP status.",
		}, []string{"source", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "callbackd_callback_duration_seconds",
			Help:                            "Time from a callback's headers to the end of its answer.",
			Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"source"}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_events_accepted_total", Help: "Callbacks that became events.",
		}, []string{"source"}),
		unrouted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_events_unrouted_total", Help: "Accepted events that no pipeline matched.",
		}, []string{"source"}),
		duplicate: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_events_duplicate_total", Help: "Callbacks that came again, and were not kept a second time.",
		}, []string{"source"}),
		matches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_pipeline_matches_total", Help: "Accepted events that a pipeline matched.",
		}, []string{"pipeline"}),
	}
	reg.MustRegister(m.callbacks, m.duration, m.accepted, m.unrouted, m.duplicate, m.matches)
	return m
}

// sourceMetrics are the series of one source.
type sourceMetrics struct {
	callbacks map[int]prometheus.Counter
	duration  prometheus.Observer

	accepted, unrouted, duplicate prometheus.Counter
}

// source returns the series of a source. They exist from then on, so that the
// first refusal shows as a rise.
func (m *Metrics) source(name string, codes []int) *sourceMetrics {
	s := m.requests(name, codes)
	s.accepted = m.accepted.WithLabelValues(name)
	s.unrouted = m.unrouted.WithLabelValues(name)
	s.duplicate = m.duplicate.WithLabelValues(name)
	return s
}

// requests returns the series of what can be said about any request.
func (m *Metrics) requests(name string, codes []int) *sourceMetrics {
	s := &sourceMetrics{callbacks: make(map[int]prometheus.Counter), duration: m.duration.WithLabelValues(name)}
	for _, code := range codes {
		s.callbacks[code] = m.callbacks.WithLabelValues(name, strconv.Itoa(code))
	}
	return s
}

// answered counts a request. code is one of those that the series were made for.
func (s *sourceMetrics) answered(code int, took time.Duration) {
	if c := s.callbacks[code]; c != nil {
		c.Inc()
	}
	s.duration.Observe(took.Seconds())
}

// forgetSource drops the series of a source that left the configuration.
func (m *Metrics) forgetSource(name string) {
	labels := prometheus.Labels{"source": name}
	m.callbacks.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.accepted.DeletePartialMatch(labels)
	m.unrouted.DeletePartialMatch(labels)
	m.duplicate.DeletePartialMatch(labels)
}
