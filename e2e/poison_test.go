package e2e_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// poisonConfig has a sink whose plugin exits at each batch with a poison event in
// it. It lingers, so that the poison has much company.
const poisonConfig = `
source "http" "in" { path = "/in" }
sink "fault" "bad" {
  batch { linger = "1s" }
  retry {
    min_backoff  = "200ms"
    max_backoff  = "1s"
    max_attempts = 1
  }
  config {
    record     = "bad.ids"
    on_deliver = "exit"
    only       = "poison"
  }
}
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.bad, sink.audit]
}`

const innocents = 500

// postPoison posts a poison callback among innocents, and returns the ids of the
// innocent events.
func postPoison(d *daemon) map[string]bool {
	d.t.Helper()
	ids := make(map[string]bool)
	var mu sync.Mutex
	post := func(from, to int) {
		var all sync.WaitGroup
		for c := range 8 {
			all.Go(func() {
				for n := from + c; n < to; n += 8 {
					if id := postInnocent(d, strconv.Itoa(n)); id != "" {
						mu.Lock()
						ids[id] = true
						mu.Unlock()
					}
				}
			})
		}
		all.Wait()
	}
	post(0, innocents/2)
	d.mustPost("/in", "poison", http.StatusAccepted)
	post(innocents/2, innocents)
	if len(ids) != innocents {
		d.t.Fatalf("%d of %d innocent callbacks were accepted", len(ids), innocents)
	}
	return ids
}

// postInnocent returns the event's id; empty: it was not accepted.
func postInnocent(d *daemon, body string) string {
	code, answer, err := d.post("/in", "text/plain", []byte(body))
	if err != nil || code != http.StatusAccepted {
		return ""
	}
	_, id, _ := strings.Cut(answer, `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	return id
}

// missingIDs returns how many of the events the bad sink has not taken, and how
// many deliveries it has taken twice.
func missingIDs(d *daemon, ids map[string]bool) (missing, twice int) {
	taken := map[string]int{}
	for _, line := range d.lines("bad.ids") {
		id, _, _ := strings.Cut(line, "_")
		taken[id]++
	}
	for id := range ids {
		if taken[id] == 0 {
			missing++
		}
		if taken[id] > 1 {
			twice++
		}
	}
	return missing, twice
}

// untilConvicted posts an innocent now and then until the poison is a dead letter:
// a crash counts only when others were delivered in between. Each of them has to
// be in the file of the other sink at once.
func untilConvicted(d *daemon, ids map[string]bool) {
	d.t.Helper()
	const dead = `callbackd_dead_letters_total{reason="crashed",sink="bad"}`
	for deadline := time.Now().Add(patience); d.metric(dead) != 1; {
		if time.Now().After(deadline) {
			d.t.Fatalf("the poison event was not convicted within %v", patience)
		}
		lines, began := len(d.lines("audit.jsonl")), time.Now()
		id := postInnocent(d, "later")
		if id == "" {
			d.t.Fatal("a callback was not accepted")
		}
		ids[id] = true
		eventually(d.t, "the other sink has it", func() bool { return len(d.lines("audit.jsonl")) > lines })
		if took := time.Since(began); took > 2*time.Second {
			d.t.Errorf("the other sink was held up for %v", took)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// settledWell checks what must hold once the poison is a dead letter.
func settledWell(d *daemon, ids map[string]bool) {
	d.t.Helper()
	eventually(d.t, "every innocent is delivered", func() bool { missing, _ := missingIDs(d, ids); return missing == 0 })
	for _, sink := range []string{"bad", "audit"} {
		for _, state := range []string{"pending", "delayed", "in_flight"} {
			d.eventuallyMetric(fmt.Sprintf(`callbackd_queue_deliveries{sink=%q,state=%q}`, sink, state), 0)
		}
		for _, reason := range []string{"crashed", "rejected", "exhausted", "expired", "render", "route", "overflow"} {
			want := 0.0
			if sink == "bad" && reason == "crashed" {
				want = 1
			}
			if got := d.metric(fmt.Sprintf(`callbackd_dead_letters_total{reason=%q,sink=%q}`, reason, sink)); got != want {
				d.t.Errorf("%v dead letters of %s with the reason %s, want %v", got, sink, reason, want)
			}
		}
	}
	if got := d.metric(`callbackd_dead_letters_kept{sink="bad"}`); got != 1 {
		d.t.Errorf("%v dead letters are kept, want 1", got)
	}
	if got := d.metric(`callbackd_sink_restarts_total{sink="audit"}`); got != 0 {
		d.t.Errorf("the other sink was restarted %v times", got)
	}
	if lines := len(d.lines("audit.jsonl")); lines < len(ids)+1 {
		d.t.Errorf("the other sink has %d of %d events", lines, len(ids)+1)
	}
}

// restarts waits until the bad sink was started again at least so many times: the
// last start comes after the conviction.
func restarts(d *daemon, least float64) (n float64) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%v restarts", least), func() bool {
		n = d.metric(`callbackd_sink_restarts_total{sink="bad"}`)
		return n >= least
	})
	return n
}

// One event of which the plugin dies, among hundreds: it is the only one to end
// as a dead letter, and soon.
func TestAPoisonEventConvictsOnlyItself(t *testing.T) {
	d := start(t, t.TempDir(), poisonConfig)
	began := time.Now()
	ids := postPoison(d)
	untilConvicted(d, ids)
	took := time.Since(began)
	settledWell(d, ids)
	if _, twice := missingIDs(d, ids); twice != 0 {
		t.Errorf("%d innocents were delivered twice, although none was taken when the plugin died", twice)
	}
	// Once in company, three times alone, and few that others had no part in.
	if restarts := restarts(d, 4); restarts > 6 {
		t.Errorf("%v restarts, want about 4", restarts)
	}
	if n := strings.Count(d.log(), "the plugin died with deliveries in flight"); n < 1 || n > 2 {
		t.Errorf("it was told %d times", n)
	}
	t.Logf("%d innocents, convicted after %v", len(ids), took)
}

// Suspicion outlives the daemon: what was found out before a SIGKILL is not found
// out again.
func TestAPoisonEventIsConvictedOverAKill(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir, poisonConfig)
	ids := postPoison(d)
	// In company, and once alone: that one counts.
	eventually(t, "the plugin has died of it alone", func() bool { return d.metric(`callbackd_sink_restarts_total{sink="bad"}`) >= 2 })
	d.kill()
	eventually(t, "no plugin outlives the daemon", func() bool { return len(orphans(t)) == 0 })
	d = start(t, dir, poisonConfig)
	untilConvicted(d, ids)
	settledWell(d, ids)
	if restarts := restarts(d, 1); restarts > 3 { // two that count, and one that others had no part in
		t.Errorf("%v restarts after the kill: what was known before was forgotten", restarts)
	}
	if n := strings.Count(d.log(), "the plugin died with deliveries in flight"); n != 0 {
		t.Errorf("the poison had company again after the kill, %d times", n)
	}
}
