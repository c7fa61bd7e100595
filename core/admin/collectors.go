package admin

import (
	"time"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/prometheus/client_golang/prometheus"
)

// QueueCollector shows what the queue holds, read at each scrape.
type QueueCollector struct {
	stats func() queue.Stats

	deliveries, oldest, dead, bytes, limit *prometheus.Desc
}

// NewQueueCollector returns a collector of stats.
func NewQueueCollector(stats func() queue.Stats) *QueueCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &QueueCollector{
		stats:      stats,
		deliveries: desc("callbackd_queue_deliveries", "Deliveries that are not settled, by state.", "sink", "state"),
		oldest:     desc("callbackd_queue_oldest_pending_seconds", "Age of the oldest delivery that is not settled; 0 without one.", "sink"),
		dead:       desc("callbackd_dead_letters_kept", "Dead letters that are kept.", "sink"),
		bytes:      desc("callbackd_queue_bytes", "Bytes of events that are kept."),
		limit:      desc("callbackd_queue_limit_bytes", "Bytes of events that may be kept."),
	}
}

// Describe implements prometheus.Collector.
func (c *QueueCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.deliveries, c.oldest, c.dead, c.bytes, c.limit} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *QueueCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	stats := c.stats()
	gauge(c.bytes, float64(stats.Bytes))
	gauge(c.limit, float64(stats.LimitBytes))
	for sink, s := range stats.Sinks {
		gauge(c.deliveries, float64(s.Pending), sink, "pending")
		gauge(c.deliveries, float64(s.InFlight), sink, "in_flight")
		gauge(c.deliveries, float64(s.Delayed), sink, "delayed")
		gauge(c.dead, float64(s.Dead), sink)
		age := 0.0
		if !s.OldestPending.IsZero() {
			age = max(0, time.Since(s.OldestPending).Seconds())
		}
		gauge(c.oldest, age, sink)
	}
}

// SinkState is what a SinkCollector shows of a sink.
type SinkState struct {
	Name     string
	Up       bool
	Restarts uint64
}

// SinkCollector shows the state of the sinks' processes, read at each scrape.
type SinkCollector struct {
	states       func() []SinkState
	up, restarts *prometheus.Desc
}

// NewSinkCollector returns a collector of states.
func NewSinkCollector(states func() []SinkState) *SinkCollector {
	return &SinkCollector{
		states:   states,
		up:       prometheus.NewDesc("callbackd_sink_up", "Whether the sink's process runs and is configured.", []string{"sink"}, nil),
		restarts: prometheus.NewDesc("callbackd_sink_restarts_total", "Restarts of the sink's process.", []string{"sink"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *SinkCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.up
	out <- c.restarts
}

// Collect implements prometheus.Collector.
func (c *SinkCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.states() {
		up := 0.0
		if s.Up {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, s.Name)
		out <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(s.Restarts), s.Name)
	}
}
