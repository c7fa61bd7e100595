package deliver_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
)

var deadLine = regexp.MustCompile(`msg="deliveries became dead letters" sink=out count=(\d+) reason=(\w+)`)

// deaths are the counts and reasons that the log has told.
func (w *world) deaths() (out []string) {
	for _, m := range deadLine.FindAllStringSubmatch(w.log.String(), -1) {
		out = append(out, m[1]+" "+m[2])
	}
	return out
}

// What becomes a dead letter is told of when the interval is over, also where
// nothing dies any more, and at the stop.
func TestTheLastDeadLettersAreToldOf(t *testing.T) {
	for _, c := range []struct {
		name string
		stop time.Duration
		want []string
	}{
		{"by the time", 11 * time.Second, []string{"1 rejected", "524 rejected"}},
		{"by the stop", 2 * time.Second, []string{"1 rejected", "524 rejected"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newMemQueue(525)
				w := run(t, settings(), q, newFakeSink(all(host.Result{Outcome: host.OutcomeRejected, Message: "400"})), asIs)
				time.Sleep(c.stop)
				if n := q.ended()["rejected"]; n != 525 {
					t.Fatalf("%d were rejected", n)
				}
				if told := w.deaths(); len(told) != len(c.want) && c.stop > 10*time.Second {
					t.Errorf("before the stop: told %q, want %q", told, c.want)
				}
				w.end()
				if told := w.deaths(); !slices.Equal(told, c.want) {
					t.Errorf("told %q, want %q", told, c.want)
				}
			})
		})
	}
}

// What the log says of a sink some of whose attempts do not deliver.
func TestWhatIsToldOfASinkThatFailsNowAndThen(t *testing.T) {
	rejected := host.Result{Outcome: host.OutcomeRejected, Message: "400 Bad Request"}
	for _, c := range []struct {
		name      string
		every     time.Duration // an event
		third     host.Result   // of three
		downFirst time.Duration
		begins    int
		recovers  int // before the quiet at the end
	}{
		{"one in three is rejected", time.Second, rejected, 0, 0, 0},
		{"one in three is rejected, rarely", time.Minute, rejected, 0, 0, 0},
		{"so it is after it was down", time.Second, rejected, 30 * time.Second, 1, 1},
		{"one in three has to be tried again", time.Second, isDown(), 0, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
					for i, d := range batch.Deliveries {
						switch {
						case time.Since(began) < c.downFirst:
							result(host.Result{Index: i, Outcome: host.OutcomeRetry, Message: "down"})
						case strings.HasSuffix(string(d.Event.Body), "bad") && d.Attempt == 1:
							r := c.third
							r.Index = i
							result(r)
						default:
							result(host.Result{Index: i, Outcome: host.OutcomeDelivered})
						}
					}
					return nil
				})
				q := newMemQueue(0)
				w := run(t, settings(), q, sink, asIs)
				for i := range 90 {
					q.add(fmt.Sprint(i, []string{"good", "good", "bad"}[i%3]))
					time.Sleep(c.every)
				}
				for line, want := range map[string]int{"begins to fail": c.begins, "has recovered": c.recovers} {
					if n := strings.Count(w.log.String(), line); n != want {
						t.Errorf("%q was told %d times, want %d:\n%s", line, n, want, w.log)
					}
				}
				time.Sleep(time.Hour)
				w.end()
				if begins, recovers := strings.Count(w.log.String(), "begins to fail"), strings.Count(w.log.String(), "has recovered"); begins != c.begins || recovers != begins {
					t.Errorf("at the end: begins to fail %d times, has recovered %d times:\n%s", begins, recovers, w.log)
				}
			})
		})
	}
}

// A sink that rejects everything does not say that it fails, but what it costs.
func TestASinkThatRejectsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemQueue(40)
		w := run(t, settings(), q, newFakeSink(all(host.Result{Outcome: host.OutcomeRejected, Message: "404 Not Found"})), asIs)
		time.Sleep(time.Minute)
		w.end()
		if told := w.log.String(); strings.Contains(told, "begins to fail") || !strings.Contains(told, "404 Not Found") {
			t.Errorf("told:\n%s", told)
		}
	})
}
