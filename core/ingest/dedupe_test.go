package ingest

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// byHeader is the key of a callback in its header x-event-id. "fail" fails.
func byHeader(v *event.View) (string, bool, error) {
	key, ok := v.Event.Headers.Get("x-event-id")
	if key == "fail" {
		return "", false, errors.New("the body says: {secret}")
	}
	return key, ok, nil
}

func deduped(s SourceSettings) SourceSettings {
	s.Dedupe = &Dedupe{Key: byHeader, Window: time.Hour}
	return s
}

func keyed(req *http.Request, key string) *http.Request {
	req.Header.Set("X-Event-Id", key)
	return req
}

// Of callbacks with the same key, the first becomes an event, and its id answers
// the others.
func TestDedupe(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), deduped(httpSource()), deduped(tencentSource()))
		first := rig.do(keyed(post("/ci", "one"), "k"))
		again := rig.do(keyed(post("/ci", "two"), "k"))
		other := rig.do(keyed(post("/ci", "three"), "K"))
		if first.Code != 202 || again.Code != 202 || again.Body.String() != first.Body.String() || other.Body.String() == first.Body.String() {
			t.Errorf("%d %s\n%d %s\n%s", first.Code, first.Body, again.Code, again.Body, other.Body)
		}
		if id := rig.kept.events[0].ID.String(); !strings.Contains(first.Body.String(), id) || string(rig.kept.events[0].Body) != "one" {
			t.Errorf("event %s answered by %s", id, first.Body)
		}
		if !strings.Contains(rig.log.String(), "duplicate_of="+rig.kept.events[0].ID.String()) {
			t.Errorf("log %s", rig.log)
		}
		// The same key of another source is another one.
		for range 2 {
			if w := rig.do(keyed(post(chatQuery, "{}"), "k")); w.Code != 200 || w.Body.String() != okAnswer {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		if rig.kept.count() != 3 || rig.kept.windows[0] != time.Hour {
			t.Errorf("%d were kept, %v", rig.kept.count(), rig.kept.windows)
		}
		expectMetrics(t, rig, "callbackd_events_accepted_total", `
callbackd_events_accepted_total{source="chat"} 1
callbackd_events_accepted_total{source="ci"} 2`)
		expectMetrics(t, rig, "callbackd_events_duplicate_total", `
callbackd_events_duplicate_total{source="chat"} 1
callbackd_events_duplicate_total{source="ci"} 1`)
		expectMetrics(t, rig, "callbackd_pipeline_matches_total", `
callbackd_pipeline_matches_total{pipeline="p"} 3`)
		expectMetrics(t, rig, "callbackd_callbacks_total", `
callbackd_callbacks_total{code="200",source="chat"} 2
callbackd_callbacks_total{code="202",source="ci"} 3`)
	})
}

// No key: each callback is a new one. A key that fails does not cost the event,
// and is told once, without what the sender sent.
func TestDedupeWithoutKey(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), deduped(httpSource()))
		answers := make(map[string]bool)
		for range 2 {
			answers[rig.do(post("/ci", "x")).Body.String()] = true
			answers[rig.do(keyed(post("/ci", "x"), "")).Body.String()] = true
			answers[rig.do(keyed(post("/ci", "x"), "fail")).Body.String()] = true
		}
		if len(answers) != 6 || rig.kept.count() != 6 || len(rig.kept.onces) != 0 {
			t.Errorf("%d answers, %d kept, keys %v", len(answers), rig.kept.count(), rig.kept.onces)
		}
		if log := rig.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "the key of dedupe fails") || strings.Contains(log, "{secret}") {
			t.Errorf("log %s", log)
		}
		expectMetrics(t, rig, "callbackd_events_duplicate_total", "")
		if n := testutil.CollectAndCount(rig.metrics.duplicate); n != 1 {
			t.Errorf("%d series from the start", n)
		}
	})
}

// The key of an event that goes nowhere is kept all the same, so that the answer
// is the id of the first one.
func TestDedupeUnrouted(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), fixed(nil), deduped(httpSource()))
		first, again := rig.do(keyed(post("/ci", "x"), "k")), rig.do(keyed(post("/ci", "x"), "k"))
		if first.Code != 202 || again.Body.String() != first.Body.String() || rig.kept.count() != 1 || len(rig.kept.routes[0]) != 0 {
			t.Errorf("%s, then %s; kept %d", first.Body, again.Body, rig.kept.count())
		}
		expectMetrics(t, rig, "callbackd_events_unrouted_total", `
callbackd_events_unrouted_total{source="ci"} 1`)
		expectMetrics(t, rig, "callbackd_events_accepted_total", `
callbackd_events_accepted_total{source="ci"} 1`)
	})
}

// What could not be kept is no duplicate when it comes again.
func TestDedupeNotKept(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), deduped(httpSource()))
		rig.kept.err = errors.New("queue is full")
		if w := rig.do(keyed(post("/ci", "x"), "k")); w.Code != 503 || w.Header().Get("Retry-After") != "5" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		rig.kept.err = nil
		if w := rig.do(keyed(post("/ci", "x"), "k")); w.Code != 202 || rig.kept.count() != 1 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		expectMetrics(t, rig, "callbackd_events_duplicate_total", "")
	})
}

// No key of one source is a key of another, whatever their names are and what the
// sender writes.
func TestKeysOfSourcesDiffer(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), deduped(httpSource()), func() SourceSettings {
			s := deduped(httpSource())
			s.Name, s.Path = "c", "/c"
			return s
		}())
		rig.do(keyed(post("/ci", "x"), "k"))
		rig.do(keyed(post("/c", "x"), "ik"))
		if rig.kept.count() != 2 || rig.kept.onces["\x02cik"] != rig.kept.events[0].ID || rig.kept.onces["\x01cik"] != rig.kept.events[1].ID {
			t.Errorf("kept %d, keys %q", rig.kept.count(), rig.kept.onces)
		}
	})
}

func TestDedupeSettings(t *testing.T) {
	for _, d := range []Dedupe{{Window: time.Second}, {Key: byHeader}, {Key: byHeader, Window: -1}} {
		s := httpSource()
		s.Dedupe = &d
		if _, err := NewSource(s, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "dedupe") {
			t.Errorf("%+v: %v", d, err)
		}
	}
}
