package admin

import (
	"slices"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/prometheus/client_golang/prometheus"
)

// QueueCollector shows what the queue holds, read at each scrape.
type QueueCollector struct {
	stats func() queue.Stats

	deliveries, oldest, dead, bytes, limit *prometheus.Desc
	backlog, maxBacklog, blocked, behind   *prometheus.Desc
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
		backlog:    desc("callbackd_queue_backlog_bytes", "Bytes of the deliveries that are not settled, with their events.", "sink"),
		maxBacklog: desc("callbackd_queue_backlog_limit_bytes", "Bytes that the deliveries that are not settled may take.", "sink"),
		blocked:    desc("callbackd_queue_order_keys_blocked", "Order keys that are held up by a delivery that is tried again.", "sink"),
		behind:     desc("callbackd_queue_order_waiting", "Deliveries that wait behind one of their order key that is tried again.", "sink"),
	}
}

// Describe implements prometheus.Collector.
func (c *QueueCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.deliveries, c.oldest, c.dead, c.bytes, c.limit, c.backlog, c.maxBacklog, c.blocked, c.behind} {
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
		gauge(c.backlog, float64(s.Bytes), sink)
		if s.MaxBacklog > 0 {
			gauge(c.maxBacklog, float64(s.MaxBacklog), sink)
		}
		gauge(c.blocked, float64(s.BlockedKeys), sink)
		gauge(c.behind, float64(s.Behind), sink)
		age := 0.0
		if !s.OldestPending.IsZero() {
			age = max(0, time.Since(s.OldestPending).Seconds())
		}
		gauge(c.oldest, age, sink)
	}
}

// SinkCollector shows the state of the sinks' processes, and the figures that the
// plugins keep themselves, read at each scrape.
type SinkCollector struct {
	sinks func() []SinkStatus

	up, state, pinned, restarts *prometheus.Desc
}

// NewSinkCollector returns a collector of the sinks' states.
func NewSinkCollector(sinks func() []SinkStatus) *SinkCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &SinkCollector{
		sinks:    sinks,
		up:       desc("callbackd_sink_up", "Whether the sink's process runs and is configured.", "sink"),
		state:    desc("callbackd_sink_state", "What the sink's process is doing: 1 for the present state, 0 for the others.", "sink", "state"),
		pinned:   desc("callbackd_sink_pinned", "Whether the running program was verified against its pin.", "sink"),
		restarts: desc("callbackd_sink_restarts_total", "Restarts of the sink's process.", "sink"),
	}
}

// Describe implements prometheus.Collector. It describes nothing: which figures
// plugins keep is not known beforehand.
func (*SinkCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *SinkCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, on bool, labels ...string) {
		value := 0.0
		if on {
			value = 1
		}
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	figures := make(figures)
	for _, s := range c.sinks() {
		gauge(c.up, s.Up, s.Name)
		for _, phase := range host.Phases() {
			gauge(c.state, s.State == string(phase), s.Name, string(phase))
		}
		gauge(c.pinned, s.Pinned, s.Name)
		out <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(s.Restarts), s.Name)
		for _, m := range s.Metrics {
			figures.collect(out, s.Name, s.Plugin, m)
		}
	}
}

// figures are the metrics of plugins that were collected, by their full names.
// Sinks of one type may run programs of different versions: a metric that does
// not agree with the first of its name is left out, or the scrape as a whole
// would fail.
type figures map[string]figure

type figure struct {
	desc   *prometheus.Desc
	kind   host.MetricKind
	labels []string
}

func (f figures) collect(out chan<- prometheus.Metric, sink, plugin string, m host.Metric) {
	name := "callbackd_plugin_" + strings.ToLower(strings.ReplaceAll(plugin, "-", "_")) + "_" + m.Name
	known, ok := f[name]
	if !ok {
		known = figure{
			desc: prometheus.NewDesc(name, m.Help, append([]string{"sink"}, m.Labels...), nil),
			kind: m.Kind, labels: m.Labels,
		}
		f[name] = known
	}
	if known.kind != m.Kind || !slices.Equal(known.labels, m.Labels) {
		return
	}
	for _, s := range m.Series {
		labels := append([]string{sink}, s.LabelValues...)
		var metric prometheus.Metric
		var err error
		switch m.Kind {
		case host.MetricHistogram:
			metric, err = prometheus.NewConstHistogram(known.desc, s.Count, s.Sum, s.Buckets, labels...)
		case host.MetricCounter:
			metric, err = prometheus.NewConstMetric(known.desc, prometheus.CounterValue, s.Value, labels...)
		default:
			metric, err = prometheus.NewConstMetric(known.desc, prometheus.GaugeValue, s.Value, labels...)
		}
		if err == nil { // it is checked; what is wrong with one must not cost the scrape
			out <- metric
		}
	}
}
