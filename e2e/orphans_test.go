package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	// defaultKills is enough for each of the ways in which a plugin notices, under load
	// and in the midst of a start.
	defaultKills = 15
	// soon is how long what belonged to a killed daemon may live on.
	soon = 2 * time.Second
)

// kills is how often the daemon is killed: CALLBACKD_KILLS, or 15.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CALLBACKD_KILLS")
	if text == "" {
		return defaultKills
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("CALLBACKD_KILLS is %q, want a number of 1 at least", text)
	}
	return n
}

// doomedConfig has the three plugins of a daemon that is killed. The fault sink
// heeds one sign of the daemon's end, and starts a process that heeds none.
func doomedConfig(receiver, heeds, grandchild string) string {
	return fmt.Sprintf(`
source "http" "in" { path = "/in" }
plugin "fault" {
  env = { FAULTSINK_PARENT = %q, FAULTSINK_GRANDCHILD = %q }
}
sink "fault" "odd" { }
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
sink "webhook" "crm" {
  config { url = "%s/" }
  retry {
    min_backoff = "100ms"
    max_backoff = "1s"
  }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.odd, sink.audit, sink.crm]
}`, heeds, grandchild, receiver)
}

// TestNothingOutlivesAKilledDaemon kills the daemon again and again, under load and
// in the midst of its start: each time everything that it has started is gone
// within 2 s, the queue opens again, and at the end nothing answered is lost.
func TestNothingOutlivesAKilledDaemon(t *testing.T) {
	n := kills(t)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	out := receive(t, "")
	dir := shortDir(t)
	tmp := filepath.Join(dir, "t")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &poster{answered: map[int]bool{}}
	longest := map[string]time.Duration{}
	most, inStart := 0, 0
	began := time.Now()
	for kill := range n {
		heeds := []string{"both", "signal", "pipe"}[kill%3]
		pidFile := filepath.Join(dir, "grandchild")
		_ = os.Remove(pidFile)
		config := doomedConfig(out.url, heeds, pidFile)
		var left map[int]string
		var took time.Duration
		if kill%5 == 4 {
			inStart++
			d := launch(t, dir, config, "TMPDIR="+tmp)
			time.Sleep(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
			left, took = killAndCount(t, d)
		} else {
			d := start(t, dir, config, "TMPDIR="+tmp)
			if _, err := os.Stat(pidFile); err != nil {
				t.Errorf("kill %d: the plugin had started nothing: %v", kill, err)
			}
			before := p.count()
			posted := make(chan struct{})
			go func() {
				defer close(posted)
				p.post(d, 1<<30, nil)
			}()
			eventually(t, "callbacks are answered", func() bool { return p.count() >= before+20 })
			time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
			// The daemon, three plugins, the guard of each, and the grandchild.
			if here := processesOf(t, dir); len(here) < 8 {
				t.Errorf("kill %d: too few processes, this shows nothing: %v", kill, here)
			}
			left, took = killAndCount(t, d)
			<-posted
		}
		if len(left) > 0 {
			t.Errorf("kill %d (the plugin heeds %s, seed %d): after %v there are %d processes: %v", kill, heeds, seed, soon, len(left), left)
		}
		longest[heeds] = max(longest[heeds], took)
		litter, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, len(litter))
	}
	killing := time.Since(began)

	d := start(t, dir, doomedConfig(out.url, "both", filepath.Join(dir, "grandchild")), "TMPDIR="+tmp)
	eventually(t, "every answered callback is in the file", func() bool { return len(p.missing(d.lines("audit.jsonl"))) == 0 })
	eventually(t, "every answered callback was relayed", func() bool { return len(p.missing(out.taken())) == 0 })
	for _, sink := range []string{"odd", "audit", "crm"} {
		for _, state := range []string{"pending", "delayed", "in_flight"} {
			d.eventuallyMetric(fmt.Sprintf(`callbackd_queue_deliveries{sink=%q,state=%q}`, sink, state), 0)
		}
	}
	d.stop()
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("after the orderly stop there are processes: %v", left)
	}
	t.Logf("seed %d: %d kills in %v, %d of them during the start, %d callbacks answered and none lost; longest until nothing was left, by what the plugin heeds: %v; folders of killed daemons in TMPDIR: %d",
		seed, n, killing.Round(time.Second), inStart, p.count(), longest, most)
}

// killAndCount kills the daemon, and returns how long it took from there until
// nothing of it was left, or what was left in the end.
func killAndCount(t *testing.T, d *daemon) (left map[int]string, took time.Duration) {
	t.Helper()
	began := time.Now()
	d.kill()
	for {
		left = processesOf(t, d.dir)
		if took = time.Since(began); len(left) == 0 || took > soon {
			return left, took
		}
		time.Sleep(time.Millisecond)
	}
}
