package deliver

import (
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of all sinks.
type Metrics struct {
	attempts        *prometheus.CounterVec
	attemptDuration *prometheus.HistogramVec
	deliveries      *prometheus.CounterVec
	lag             *prometheus.HistogramVec
	deadLetters     *prometheus.CounterVec
	breakerOpen     *prometheus.GaugeVec
}

// Results of a delivery, for callbackd_deliveries_total.
const (
	resultDelivered = "delivered"
	resultDead      = "dead"
	resultDropped   = "dropped"
)

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"sink"})
	}
	m := &Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_attempts_total", Help: "Attempts to deliver, by outcome.",
		}, []string{"sink", "outcome"}),
		attemptDuration: histogram("callbackd_attempt_duration_seconds",
			"How long attempts took, from the hand-over of the batch to the result.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_deliveries_total", Help: "Deliveries that ended, by result.",
		}, []string{"sink", "result"}),
		lag: histogram("callbackd_delivery_lag_seconds",
			"Time from the acceptance of an event to its delivery.",
			[]float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callbackd_dead_letters_total", Help: "Deliveries that became dead letters, by reason.",
		}, []string{"sink", "reason"}),
		breakerOpen: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "callbackd_breaker_open", Help: "1 while the breaker of the sink is open or half open.",
		}, []string{"sink"}),
	}
	reg.MustRegister(m.attempts, m.attemptDuration, m.deliveries, m.lag, m.deadLetters, m.breakerOpen)
	return m
}

// Sink returns the metrics of one sink. All its series exist from then on, so
// that the first failure shows as a rise.
func (m *Metrics) Sink(name string) *SinkMetrics {
	s := &SinkMetrics{
		attempts:        make(map[event.Outcome]prometheus.Counter),
		attemptDuration: m.attemptDuration.WithLabelValues(name),
		delivered:       m.deliveries.WithLabelValues(name, resultDelivered),
		dead:            m.deliveries.WithLabelValues(name, resultDead),
		lag:             m.lag.WithLabelValues(name),
		deadLetters:     make(map[event.Reason]prometheus.Counter),
		breakerOpen:     m.breakerOpen.WithLabelValues(name),
	}
	m.deliveries.WithLabelValues(name, resultDropped)
	for _, o := range event.Outcomes() {
		s.attempts[o] = m.attempts.WithLabelValues(name, string(o))
	}
	for _, r := range event.Reasons() {
		s.deadLetters[r] = m.deadLetters.WithLabelValues(name, string(r))
	}
	return s
}

// Forget removes the series of a sink that has left the configuration.
func (m *Metrics) Forget(name string) {
	of := prometheus.Labels{"sink": name}
	for _, vec := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{m.attempts, m.attemptDuration, m.deliveries, m.lag, m.deadLetters, m.breakerOpen} {
		vec.DeletePartialMatch(of)
	}
}

// DeadLetter counts a delivery that was a dead letter from the start: no worker ever
// sees it.
func (m *Metrics) DeadLetter(sink string, reason event.Reason) {
	m.deliveries.WithLabelValues(sink, resultDead).Inc()
	m.deadLetters.WithLabelValues(sink, string(reason)).Inc()
}

// Dropped counts deliveries that the queue dropped for newer ones.
func (m *Metrics) Dropped(sink string, n int) {
	m.deliveries.WithLabelValues(sink, resultDropped).Add(float64(n))
}

// SinkMetrics are the metrics of one sink.
type SinkMetrics struct {
	attempts        map[event.Outcome]prometheus.Counter
	attemptDuration prometheus.Observer
	delivered, dead prometheus.Counter
	lag             prometheus.Observer
	deadLetters     map[event.Reason]prometheus.Counter
	breakerOpen     prometheus.Gauge
}

// DeadLetter counts a delivery that became a dead letter.
func (m *SinkMetrics) DeadLetter(reason event.Reason) {
	m.dead.Inc()
	m.deadLetters[reason].Inc()
}

func (m *SinkMetrics) attempt(outcome event.Outcome, took time.Duration) {
	m.attempts[outcome].Inc()
	m.attemptDuration.Observe(took.Seconds())
}
