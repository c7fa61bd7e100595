package core

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// lines is a log that can be read while it is written to.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// told are the lines since the last call, without the words behind a colon.
func (l *lines) told() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range regexp.MustCompile(`level=(\w+) msg="([^":]*)(?:: [^"]*)?" (.*)\n`).FindAllStringSubmatch(l.text.String(), -1) {
		out = append(out, m[1]+" "+m[2]+" "+m[3])
	}
	l.text.Reset()
	return out
}

func newLines() (*lines, *slog.Logger) {
	l := &lines{}
	return l, slog.New(slog.NewTextHandler(l, nil))
}

// What the queue ends by itself is told of: the first at once, the others when the
// interval is over, for each sink by itself, and all that is left at the stop.
func TestWatcher(t *testing.T) {
	const (
		dead    = `WARN deliveries became dead letters `
		dropped = `WARN deliveries were dropped for newer ones `
		outgrew = `ERROR dead letters were deleted for good, the oldest, for want of room `
		aged    = `WARN dead letters were deleted for good at the end of dead_letter.max_age `
	)
	limits := map[string]queue.Limits{
		"a": {MaxBacklog: 1000, DeadMaxBytes: 500, DeadMaxAge: time.Hour},
		"b": {MaxBacklog: 2000, DeadMaxBytes: 700},
	}
	for _, c := range []struct {
		name   string
		happen func(w *watcher, sink string)
		line   string
		detail string // of sink a
	}{
		{"overflow", func(w *watcher, sink string) { w.DeadLetter(sink, event.ReasonOverflow) }, dead, "reason=overflow"},
		{"route", func(w *watcher, sink string) { w.DeadLetter(sink, event.ReasonRoute) }, dead, "reason=route"},
		{"dropped", func(w *watcher, sink string) { w.Dropped(sink, 1) }, dropped, "limit_bytes=1000"},
		{"size", func(w *watcher, sink string) { w.Discarded(sink, false, 1) }, outgrew, "limit_bytes=500"},
		{"age", func(w *watcher, sink string) { w.Discarded(sink, true, 1) }, aged, "limit=1h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, logger := newLines()
				reg := prometheus.NewRegistry()
				w := newWatcher(deliver.NewMetrics(reg), redrive.NewMetrics(reg), limits, logger)
				want := func(when string, want ...string) {
					t.Helper()
					synctest.Wait()
					if told := log.told(); !slices.Equal(told, want) {
						t.Errorf("%s: told %q, want %q", when, told, want)
					}
				}
				line := func(count int) string { return fmt.Sprintf("%ssink=a count=%d %s", c.line, count, c.detail) }
				for range 2418 {
					c.happen(w, "a")
				}
				want("at once", line(1))
				c.happen(w, "b")
				if told := log.told(); len(told) != 1 || !regexp.MustCompile(`sink=b count=1 `).MatchString(told[0]) {
					t.Errorf("another sink: told %q", told)
				}
				time.Sleep(9 * time.Second)
				want("after 9 s")
				time.Sleep(time.Second)
				want("after 10 s", line(2417))
				c.happen(w, "a")
				time.Sleep(time.Second)
				want("within the next interval")
				w.stop()
				want("at the stop", line(1))
				time.Sleep(time.Minute)
				want("after the stop")
			})
		})
	}
}

// A queue whose dead letters go beyond their limit, by what comes in and by a limit
// that is lowered, says so; the counters and the lines agree.
func TestWhatAQueueDeletesIsToldOf(t *testing.T) {
	log, logger := newLines()
	reg := prometheus.NewRegistry()
	letters := redrive.NewMetrics(reg)
	cfg := &config.Config{
		Queue: config.Queue{Dir: t.TempDir() + "/queue", MaxBytes: 1 << 20},
		Sinks: []config.Sink{{Name: "dl", MaxBacklog: 10_000, WhenFull: config.WhenFullDeadLetter, DeadLetter: config.DeadLetter{MaxBytes: 50_000}}},
	}
	w := newWatcher(deliver.NewMetrics(reg), letters, queueLimits(cfg), logger)
	q, err := queue.Open(t.Context(), queueOptions(cfg, w, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		ev := &event.Event{ID: ulid.Make(), Source: "s", Accepted: time.Now(), Body: make([]byte, 1000)}
		if err := q.Append(t.Context(), ev, []event.Route{{Pipeline: "p", Sink: "dl"}}); err != nil {
			t.Fatal(err)
		}
	}
	stats := q.Stats().Sinks["dl"]
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	w.stop()
	counts := map[string]int{}
	for _, line := range log.told() {
		m := regexp.MustCompile(`^(WARN|ERROR) .* sink=dl count=(\d+) (reason=overflow|limit_bytes=50000)$`).FindStringSubmatch(line)
		if m == nil {
			t.Errorf("told %q", line)
			continue
		}
		n := 0
		_, _ = fmt.Sscan(m[2], &n)
		counts[m[1]] += n
	}
	buried := 100 - int(stats.Pending)
	if buried < 50 || counts["WARN"] != buried || counts["ERROR"] != buried-int(stats.Dead) || counts["ERROR"] == 0 {
		t.Errorf("%d became dead letters, %d of them are there; told %v", buried, stats.Dead, counts)
	}
	metric := fmt.Sprintf(`# HELP callbackd_dead_letters_discarded_total Dead letters that were removed for good, by cause.
# TYPE callbackd_dead_letters_discarded_total counter
callbackd_dead_letters_discarded_total{cause="age",sink="dl"} 0
callbackd_dead_letters_discarded_total{cause="operator",sink="dl"} 0
callbackd_dead_letters_discarded_total{cause="size",sink="dl"} %d
`, counts["ERROR"])
	if err := testutil.GatherAndCompare(reg, strings.NewReader(metric), "callbackd_dead_letters_discarded_total"); err != nil {
		t.Error(err)
	}
}
