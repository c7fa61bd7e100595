package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestUnknownPath(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		for _, path := range []string{"/", "/ci/", "/CI", "//ci", "/ci/x", "/callbacks"} {
			if w := rig.do(post(path, "x")); w.Code != 404 || w.Body.String() != `{"error":"no source has this path"}` {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		expectMetrics(t, rig, "callbackd_callbacks_total", `
callbackd_callbacks_total{code="404",source="unknown"} 6`)
	})
}

// expectMetrics checks the series of a metric that are not zero.
func expectMetrics(t *testing.T, rig *rig, name, want string) {
	t.Helper()
	families, err := rig.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			value := m.GetCounter().GetValue()
			if m.GetHistogram() != nil {
				value = float64(m.GetHistogram().GetSampleCount())
			}
			if value == 0 {
				continue
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			fmt.Fprintf(&got, "\n%s{%s} %v", name, strings.Join(labels, ","), value)
		}
	}
	if got.String() != want {
		t.Errorf("got %s\nwant %s", got.String(), want)
	}
}

func TestMetrics(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		routes := fixed{
			{Pipeline: "a", Sink: "x"},
			{Pipeline: "a", Sink: "y"},
			{Pipeline: "b", Sink: "x", Dead: &event.Death{Reason: event.ReasonRoute}},
			{Pipeline: "c", Sink: "x"},
			{Pipeline: "d", Sink: "x", Dead: &event.Death{Reason: event.ReasonRoute}}, // only the order_by of its sink failed
			{Pipeline: "d", Sink: "y"},
			{Pipeline: "d", Sink: "z"},
		}
		rig := newRig(t, on, testSettings(), routes, httpSource(), tencentSource())
		if err := rig.Use(sourcesOf(rig), routes, []string{"a", "b", "c", "d"}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			rig.do(post("/ci", "x"))
		}
		rig.do(post("/chat", "x"))
		rig.do(post("/nowhere", "x"))
		rig.kept.err = errors.New("queue is full")
		rig.do(post("/ci", "x"))
		expectMetrics(t, rig, "callbackd_callbacks_total", `
callbackd_callbacks_total{code="202",source="ci"} 3
callbackd_callbacks_total{code="400",source="chat"} 1
callbackd_callbacks_total{code="404",source="unknown"} 1
callbackd_callbacks_total{code="503",source="ci"} 1`)
		expectMetrics(t, rig, "callbackd_callback_duration_seconds", `
callbackd_callback_duration_seconds{source="chat"} 1
callbackd_callback_duration_seconds{source="ci"} 4
callbackd_callback_duration_seconds{source="unknown"} 1`)
		expectMetrics(t, rig, "callbackd_events_accepted_total", `
callbackd_events_accepted_total{source="ci"} 3`)
		expectMetrics(t, rig, "callbackd_events_unrouted_total", "")
		expectMetrics(t, rig, "callbackd_pipeline_matches_total", `
callbackd_pipeline_matches_total{pipeline="a"} 3
callbackd_pipeline_matches_total{pipeline="c"} 3
callbackd_pipeline_matches_total{pipeline="d"} 3`)

		// All series exist before anything happens to them.
		if n := testutil.CollectAndCount(rig.metrics.callbacks); n != 10+11+1 {
			t.Errorf("%d series of callbacks", n)
		}
		if problems, err := testutil.GatherAndLint(rig.reg); err != nil || len(problems) > 0 {
			t.Errorf("%v %v", problems, err)
		}

		// What leaves the configuration leaves the metrics.
		if err := rig.Use(sourcesOf(rig)[:0], routes, []string{"a"}); err != nil {
			t.Fatal(err)
		}
		for vec, want := range map[prometheus.Collector]int{
			rig.metrics.callbacks: 1, rig.metrics.duration: 1, rig.metrics.accepted: 0, rig.metrics.unrouted: 0, rig.metrics.duplicate: 0, rig.metrics.matches: 1,
		} {
			if n := testutil.CollectAndCount(vec); n != want {
				t.Errorf("%d series stay, want %d", n, want)
			}
		}
	})
}

func sourcesOf(rig *rig) []*Source {
	var all []*Source
	for _, e := range rig.using.Load().entries {
		all = append(all, e.source)
	}
	return all
}

func TestUnrouted(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), fixed(nil), httpSource(), tencentSource())
		if w := rig.do(post("/ci", "x")); w.Code != 202 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := rig.do(post(chatQuery, "{}")); w.Code != 200 || w.Body.String() != okAnswer {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if rig.kept.count() != 0 {
			t.Error("an event without routes was kept")
		}
		expectMetrics(t, rig, "callbackd_events_unrouted_total", `
callbackd_events_unrouted_total{source="chat"} 1
callbackd_events_unrouted_total{source="ci"} 1`)
		expectMetrics(t, rig, "callbackd_events_accepted_total", `
callbackd_events_accepted_total{source="chat"} 1
callbackd_events_accepted_total{source="ci"} 1`)
	})
}

// TestDeadRoutesAreKept: a match that fails must not lose the event.
func TestDeadRoutesAreKept(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		dead := fixed{{Pipeline: "p", Sink: "s", Dead: &event.Death{Reason: event.ReasonRoute, Error: "e"}}}
		rig := newRig(t, on, testSettings(), dead, httpSource())
		if w := rig.do(post("/ci", "x")); w.Code != 202 || rig.kept.count() != 1 || rig.kept.routes[0][0].Dead == nil {
			t.Errorf("%d, kept %d", w.Code, rig.kept.count())
		}
	})
}

// TestNotKept: no error of the appender ends in a success.
func TestNotKept(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, on, testSettings(), oneRoute(), httpSource(), tencentSource())
			for _, err := range []error{
				errors.New("queue is full"), fmt.Errorf("append: %w", errors.New("queue has failed")), context.Canceled, context.DeadlineExceeded,
			} {
				rig.kept.err = err
				w := rig.do(post("/ci", "x"))
				if w.Code != 503 || w.Header().Get("Retry-After") != "5" || !strings.HasPrefix(w.Body.String(), `{"error":"`) {
					t.Errorf("%v: %d %s, Retry-After %q", err, w.Code, w.Body, w.Header().Get("Retry-After"))
				}
				w = rig.do(post(chatQuery, "{}"))
				if w.Code != 503 || !strings.HasPrefix(w.Body.String(), `{"ActionStatus":"FAIL"`) {
					t.Errorf("%v: %d %s", err, w.Code, w.Body)
				}
			}
			expectMetrics(t, rig, "callbackd_events_accepted_total", "")

			// One warning when it begins, one when it is over for a while.
			rig.kept.err = nil
			rig.do(post("/ci", "x"))
			if n := strings.Count(rig.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings:\n%s", n, rig.log)
			}
			time.Sleep(outageQuiet)
			rig.do(post("/ci", "x"))
			rig.do(post("/ci", "x"))
			if n := strings.Count(rig.log.String(), "level=WARN"); n != 2 || !strings.Contains(rig.log.String(), "accepted again") {
				t.Errorf("%d warnings:\n%s", n, rig.log)
			}
		})
	})
}

// TestSenderHangsUp: a commit that may have begun does not see that the sender is
// gone.
func TestSenderHangsUp(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		ctx, cancel := context.WithCancel(t.Context())
		rig.kept.hook = func(context.Context) { cancel() }
		w := rig.do(post("/ci", "x").WithContext(ctx))
		if ctx.Err() == nil || rig.kept.ctxErr != nil || rig.kept.count() != 1 || w.Code != 202 {
			t.Errorf("request %v, append %v, kept %d, %d", ctx.Err(), rig.kept.ctxErr, rig.kept.count(), w.Code)
		}
	})
}

type panics struct{ value any }

func (p panics) Route(*event.View) []event.Route { panic(p.value) }

func TestPanic(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		var none []int
		for _, value := range []any{"body: {secret}", fmt.Errorf("body: {secret}")} {
			rig := newRig(t, on, testSettings(), panics{value}, httpSource())
			w := rig.do(post("/ci", "{secret}"))
			if w.Code != 500 || !strings.HasPrefix(w.Body.String(), `{"error":"`) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			expectMetrics(t, rig, "callbackd_callbacks_total", `
callbackd_callbacks_total{code="500",source="ci"} 1`)
			log := rig.log.String()
			if !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "server_test.go") || strings.Contains(log, "{secret}") {
				t.Errorf("log %s", log)
			}
			if rig.inFlight.Load() != 0 {
				t.Error("it still counts as in work")
			}
		}
		rig := newRig(t, on, testSettings(), router(func(*event.View) []event.Route { _ = none[3]; return nil }), httpSource())
		if w := rig.do(post("/ci", "x")); w.Code != 500 || !strings.Contains(rig.log.String(), "index out of range [3]") {
			t.Errorf("%d, log %s", w.Code, rig.log)
		}
	})
}

type router func(*event.View) []event.Route

func (f router) Route(v *event.View) []event.Route { return f(v) }

// TestTooManyAtOnce: HTTP/2 has many requests on a connection, so connections
// alone bound nothing.
func TestTooManyAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.MaxConnections = 2
		rig := newRig(t, on, settings, oneRoute(), httpSource())
		hold, entered := make(chan struct{}), make(chan struct{}, 2)
		rig.kept.hook = func(context.Context) { entered <- struct{}{}; <-hold }
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if w := rig.do(post("/ci", "x")); w.Code != 202 {
					t.Errorf("held: %d", w.Code)
				}
			})
		}
		<-entered
		<-entered
		if w := rig.do(post("/ci", "x")); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		close(hold)
		wg.Wait()
		rig.kept.hook = nil
		if w := rig.do(post("/ci", "x")); w.Code != 202 {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
}

func TestUse(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		logger := slog.New(slog.DiscardHandler)
		source := func(name, path string) *Source {
			s := httpSource()
			s.Name, s.Path = name, path
			src, err := NewSource(s, logger)
			if err != nil {
				t.Fatal(err)
			}
			return src
		}
		for _, tt := range []struct {
			sources []*Source
			want    string
		}{
			{[]*Source{source("a", "/a"), source("a", "/b")}, `name "a"`},
			{[]*Source{source("a", "/a"), source("b", "/a")}, `path "/a"`},
		} {
			if err := rig.Use(tt.sources, oneRoute(), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if w := rig.do(post("/ci", "x")); w.Code != 202 {
				t.Errorf("a failed exchange changed something: %d", w.Code)
			}
		}
		// Callbacks that come in while sources are exchanged see one state or the other.
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if w := rig.do(post("/ci", "x")); w.Code != 202 {
						t.Errorf("%d", w.Code)
						return
					}
				}
			})
		}
		for i := range 50 {
			sources := []*Source{source("ci", "/ci")}
			if i%2 == 0 {
				sources = append(sources, source("b", "/b"))
			}
			if err := rig.Use(sources, oneRoute(), []string{"p"}); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		wg.Wait()
		if w := rig.do(post("/b", "x")); w.Code != 404 {
			t.Errorf("a source that left answers %d", w.Code)
		}
	})
}

func TestServerSettings(t *testing.T) {
	for name, spoil := range map[string]func(*ServerSettings){
		"max_connections":     func(s *ServerSettings) { s.MaxConnections = 0 },
		"read_header_timeout": func(s *ServerSettings) { s.ReadHeaderTimeout = 0 },
		"read_timeout":        func(s *ServerSettings) { s.ReadTimeout = 0 },
		"write_timeout":       func(s *ServerSettings) { s.WriteTimeout = -1 },
		"idle_timeout":        func(s *ServerSettings) { s.IdleTimeout = 0 },
		"max_header_bytes":    func(s *ServerSettings) { s.MaxHeaderBytes = 0 },
		"grace":               func(s *ServerSettings) { s.Grace = 0 },
	} {
		settings := testSettings()
		spoil(&settings)
		_, err := NewServer(settings, &kept{}, NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNothingSecretStays sends secrets everywhere, and looks for them.
func TestNothingSecretStays(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		req := post("/ci?Sign=hush1&access_token=hush2&user=u&api_key=hush3", "hush-body")
		for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "X-Hub-Signature-256", "X-Gitlab-Token"} {
			req.Header.Set(name, "hush4")
		}
		req.Header.Set("X-Event", "push")
		rig.do(req)
		ev := rig.kept.events[0]
		if text := fmt.Sprint(ev.Headers, ev.Query); strings.Contains(text, "hush") || !strings.Contains(text, "push") {
			t.Errorf("event %s", text)
		}
		req = post("/nowhere?token=hush1", "hush")
		req.Method = http.MethodGet
		rig.do(req)
		if log := rig.log.String(); strings.Contains(log, "hush") || strings.Contains(log, "push") || !strings.Contains(log, "callback answered") {
			t.Errorf("log %s", log)
		}
	})
}
