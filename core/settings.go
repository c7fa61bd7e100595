package core

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/ingest"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/oklog/ulid/v2"
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

func queueOptions(cfg *config.Config, reg prometheus.Registerer, logger *slog.Logger) queue.Options {
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
		Logger: logger, AppendDuration: appends,
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
func registerInfo(reg prometheus.Registerer, build Build, loaded time.Time) {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "callbackd_build_info", Help: "Which program this is; always 1.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.GoVersion},
	})
	info.Set(1)
	success := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "callbackd_config_last_reload_successful", Help: "Whether the last attempt to load the configuration took effect.",
	})
	success.Set(1)
	at := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "callbackd_config_last_reload_success_timestamp_seconds", Help: "When the configuration took effect last.",
	})
	at.Set(float64(loaded.UnixMilli()) / 1000)
	reg.MustRegister(info, success, at)
}

// countingAppender counts the deliveries that are dead letters from the start:
// no worker ever sees them.
type countingAppender struct {
	queue.Queue
	metrics map[string]*deliver.SinkMetrics
}

// Append implements ingest.Appender.
func (a countingAppender) Append(ctx context.Context, ev *event.Event, routes []event.Route) error {
	if err := a.Queue.Append(ctx, ev, routes); err != nil {
		return fmt.Errorf("append event of source %q: %w", ev.Source, err)
	}
	a.count(routes)
	return nil
}

// AppendOnce implements ingest.Appender.
func (a countingAppender) AppendOnce(ctx context.Context, ev *event.Event, routes []event.Route, once event.Once) (first ulid.ULID, err error) {
	if first, err = a.Queue.AppendOnce(ctx, ev, routes, once); err != nil {
		return first, fmt.Errorf("append event of source %q: %w", ev.Source, err)
	}
	if first == ev.ID {
		a.count(routes)
	}
	return first, nil
}

func (a countingAppender) count(routes []event.Route) {
	for i := range routes {
		if d := routes[i].Dead; d != nil {
			a.metrics[routes[i].Sink].DeadLetter(d.Reason)
		}
	}
}
