package deliver_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/prometheus/client_golang/prometheus"
)

var delivered = host.Result{Outcome: host.OutcomeDelivered}

func asIs(v *event.View, _ string) (pipeline.Rendered, error) {
	return pipeline.Rendered{Body: v.Event.Body}, nil
}

func settings() deliver.Settings {
	return deliver.Settings{
		Sink: "out", Timeout: 30 * time.Second, MaxInFlight: 64, MaxCalls: 4, MaxBatchEvents: 16, MaxBatchBytes: 1 << 20,
		Retry: deliver.Retry{MinBackoff: time.Second, MaxBackoff: time.Minute, MaxAge: time.Hour}, Grace: 10 * time.Second,
	}
}

// world is a worker with what is around it.
type world struct {
	t       *testing.T
	reg     *prometheus.Registry
	log     *logBuffer
	worker  *deliver.Worker
	stop    context.CancelFunc
	stopped chan error
}

// logBuffer can be read while it is written to.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

// run starts a worker inside a synctest bubble.
func run(t *testing.T, s deliver.Settings, q deliver.Queue, sink deliver.Sink, render deliver.Render) *world {
	t.Helper()
	w := &world{t: t, reg: prometheus.NewRegistry(), log: &logBuffer{}, stopped: make(chan error, 1)}
	metrics := deliver.NewMetrics(w.reg).Sink("out")
	w.worker = deliver.NewWorker(s, q, sink, render, metrics, slog.New(slog.NewTextHandler(w.log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	w.stop = cancel
	go func() { w.stopped <- w.worker.Run(ctx) }()
	return w
}

func (w *world) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.stopped; err != nil {
		w.t.Errorf("Run: %v", err)
	}
}

func (w *world) metric(name string, want float64, labels ...string) {
	w.t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var got []string
			for _, l := range m.Label {
				got = append(got, l.GetName()+"="+l.GetValue())
			}
			if strings.Join(got, ",") != strings.Join(labels, ",") {
				continue
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.GetHistogram(); h != nil {
				value = float64(h.GetSampleCount())
			}
			if value != want {
				w.t.Errorf("%s%v = %v, want %v", name, labels, value, want)
			}
			return
		}
	}
	w.t.Errorf("no series %s%v", name, labels)
}
