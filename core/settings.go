package core

import (
	"log/slog"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/ingest"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/prometheus/client_golang/prometheus"
)

// SourceSettings says what a configured source is to ingest.
func SourceSettings(s *config.Source) ingest.SourceSettings {
	out := ingest.SourceSettings{
		Type: s.Type, Name: s.Name, Path: s.Path, MaxBody: s.MaxBody, AllowFrom: s.AllowFrom,
		RateLimit: (*ingest.Rate)(s.RateLimit),
		EventType: s.EventType, Subject: s.Subject, Time: s.Time,
		Dedupe:  (*ingest.Dedupe)(s.Dedupe),
		Tencent: (*ingest.Tencent)(s.Tencent),
		HMAC:    (*ingest.HMAC)(s.HMAC),
	}
	return out
}

func newSources(cfg *config.Config, logger *slog.Logger) ([]*ingest.Source, error) {
	out := make([]*ingest.Source, 0, len(cfg.Sources))
	for i := range cfg.Sources {
		s, err := ingest.NewSource(SourceSettings(&cfg.Sources[i]), logger)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func serverSettings(cfg *config.Config) ingest.ServerSettings {
	l := &cfg.Listen
	return ingest.ServerSettings{
		TLS: (*ingest.TLSFiles)(l.TLS), TrustedProxies: l.TrustedProxies, MaxConnections: l.MaxConnections,
		ReadHeaderTimeout: l.ReadHeaderTimeout, ReadTimeout: l.ReadTimeout, WriteTimeout: l.WriteTimeout,
		IdleTimeout: l.IdleTimeout, MaxHeaderBytes: l.MaxHeaderBytes, Grace: cfg.ShutdownGrace,
	}
}

func pipelineNames(cfg *config.Config) []string {
	out := make([]string, 0, len(cfg.Pipelines))
	for i := range cfg.Pipelines {
		out = append(out, cfg.Pipelines[i].Name)
	}
	return out
}

func sinkNames(cfg *config.Config) []string {
	out := make([]string, 0, len(cfg.Sinks))
	for i := range cfg.Sinks {
		out = append(out, cfg.Sinks[i].Name)
	}
	return out
}

// orders returns the order_by of the sinks that have one.
func orders(cfg *config.Config) map[string]pipeline.Text {
	out := make(map[string]pipeline.Text)
	for i := range cfg.Sinks {
		if s := &cfg.Sinks[i]; s.OrderBy != nil {
			out[s.Name] = s.OrderBy
		}
	}
	return out
}

func queueOptions(cfg *config.Config, watcher queue.Watcher, reg prometheus.Registerer, logger *slog.Logger) queue.Options {
	appends := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:                            "callbackd_queue_append_duration_seconds",
		Help:                            "How long it took to keep an event, synced to disk.",
		Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	})
	reg.MustRegister(appends)
	return queue.Options{
		Dir: cfg.Queue.Dir, MaxBytes: cfg.Queue.MaxBytes, ReserveBytes: cfg.Queue.ReserveBytes, Sinks: queueLimits(cfg),
		Watcher: watcher,
		Logger:  logger, AppendDuration: appends,
	}
}

// queueLimits says how much may be kept for each sink.
func queueLimits(cfg *config.Config) map[string]queue.Limits {
	whenFull := map[string]queue.WhenFull{
		config.WhenFullDeadLetter: queue.BuryNew, config.WhenFullRefuse: queue.RefuseNew, config.WhenFullDropOldest: queue.DropOldest,
	}
	out := make(map[string]queue.Limits, len(cfg.Sinks))
	for i := range cfg.Sinks {
		s := &cfg.Sinks[i]
		out[s.Name] = queue.Limits{
			MaxBacklog: s.MaxBacklog, WhenFull: whenFull[s.WhenFull],
			DeadMaxAge: s.DeadLetter.MaxAge, DeadMaxBytes: s.DeadLetter.MaxBytes,
		}
	}
	return out
}

// registerInfo registers what is known of the program and its configuration.
func registerInfo(reg prometheus.Registerer, build Build, loaded time.Time) *loadMetrics {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "callbackd_build_info", Help: "Which program this is; always 1.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.GoVersion},
	})
	info.Set(1)
	m := &loadMetrics{
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "callbackd_config_last_reload_successful", Help: "Whether the last attempt to load the configuration took effect.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "callbackd_config_last_reload_success_timestamp_seconds", Help: "When the configuration took effect last.",
		}),
	}
	reg.MustRegister(info, m.successful, m.at)
	m.succeeded(loaded)
	return m
}

// loadMetrics tell of the last time that the configuration was loaded.
type loadMetrics struct{ successful, at prometheus.Gauge }

func (m *loadMetrics) succeeded(at time.Time) {
	m.successful.Set(1)
	m.at.Set(float64(at.UnixMilli()) / 1000)
}

func (m *loadMetrics) failed() { m.successful.Set(0) }
