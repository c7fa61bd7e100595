package redrive

import (
	"slices"
	"sync"

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

// Metrics count what becomes of dead letters. Its methods may be called from any
// goroutine.
type Metrics struct {
	redriven, discarded *prometheus.CounterVec

	mu      sync.Mutex
	present map[string]bool // the sinks that have series
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		present: make(map[string]bool),
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
// others go, until something of them is redriven or discarded.
func (m *Metrics) Use(sinks []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.present {
		if !slices.Contains(sinks, s) {
			m.redriven.DeleteLabelValues(s)
			m.discarded.DeletePartialMatch(prometheus.Labels{"sink": s})
			delete(m.present, s)
		}
	}
	for _, s := range sinks {
		m.add(s)
	}
}

// add makes the series of a sink, where there are none.
func (m *Metrics) add(sink string) {
	if m.present[sink] {
		return
	}
	m.present[sink] = true
	m.redriven.WithLabelValues(sink)
	for _, c := range []Cause{CauseOperator, CauseAge, CauseSize} {
		m.discarded.WithLabelValues(sink, string(c))
	}
}

// Discarded counts n dead letters of a sink that were removed for good.
func (m *Metrics) Discarded(sink string, cause Cause, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 {
		m.add(sink)
		m.discarded.WithLabelValues(sink, string(cause)).Add(float64(n))
	}
}

// Redriven counts n dead letters of a sink that were redriven.
func (m *Metrics) Redriven(sink string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 {
		m.add(sink)
		m.redriven.WithLabelValues(sink).Add(float64(n))
	}
}
