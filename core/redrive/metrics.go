package redrive

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Cause is why dead letters were discarded.
type Cause string

// The causes.
const (
	// CauseOperator: somebody wanted it.
	CauseOperator Cause = "operator"
	// CauseAge and CauseSize: the sink's dead_letter limits.
	CauseAge  Cause = "age"
	CauseSize Cause = "size"
)

// Metrics count what becomes of dead letters.
type Metrics struct {
	redriven, discarded *prometheus.CounterVec
	present             []string
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		redriven: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_dead_letters_redriven_total", Help: "Dead letters that were redriven, by the sink that they were of.",
		}, []string{"sink"}),
		discarded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_dead_letters_discarded_total", Help: "Dead letters that were removed for good, by cause.",
		}, []string{"sink", "cause"}),
	}
	reg.MustRegister(m.redriven, m.discarded)
	return m
}

// Use says which sinks are configured. Their series exist from then on; those of
// sinks that were configured before, and are not now, go. It is for one goroutine at
// a time.
func (m *Metrics) Use(sinks []string) {
	for _, s := range m.present {
		if !slices.Contains(sinks, s) {
			m.redriven.DeleteLabelValues(s)
			m.discarded.DeletePartialMatch(prometheus.Labels{"sink": s})
		}
	}
	for _, s := range sinks {
		m.redriven.WithLabelValues(s)
		for _, c := range []Cause{CauseOperator, CauseAge, CauseSize} {
			m.discarded.WithLabelValues(s, string(c))
		}
	}
	m.present = slices.Clone(sinks)
}

// Discarded counts n dead letters of a sink that were removed for good.
func (m *Metrics) Discarded(sink string, cause Cause, n int) {
	if n > 0 {
		m.discarded.WithLabelValues(sink, string(cause)).Add(float64(n))
	}
}

// Redriven counts n dead letters of a sink that were redriven.
func (m *Metrics) Redriven(sink string, n int) {
	if n > 0 {
		m.redriven.WithLabelValues(sink).Add(float64(n))
	}
}
