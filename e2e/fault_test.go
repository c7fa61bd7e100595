package e2e_test

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// poster posts numbered callbacks and remembers which were answered with success.
type poster struct {
	next     atomic.Int64
	mu       sync.Mutex
	answered map[int]bool
	// numbers are those of bodies that were parsed, by their hash; see numberOf.
	numbers map[uint64]int
	seed    maphash.Seed
}

// post posts up to a total from several connections, until stop is closed.
func (p *poster) post(d *daemon, total int, stop <-chan struct{}) {
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-d.exited:
					return
				default:
				}
				n := int(p.next.Add(1))
				if n > total {
					return
				}
				code, _, err := d.post("/in", "application/json", fmt.Appendf(nil, `{"n":%d}`, n))
				if err == nil && code == http.StatusAccepted {
					p.mu.Lock()
					p.answered[n] = true
					p.mu.Unlock()
				}
			}
		})
	}
	all.Wait()
}

func (p *poster) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.answered)
}

// missing returns those that were answered but are not among the bodies.
func (p *poster) missing(bodies []string) (missing []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[int]bool{}
	for _, b := range bodies {
		if n, ok := p.numberOf(b); ok {
			seen[n] = true
		}
	}
	for n := range p.answered {
		if !seen[n] {
			missing = append(missing, n)
		}
	}
	return missing
}

// numberOf reads the number of a callback out of its body, or out of the line that a
// file sink writes of it; what is not whole has none. It parses a body once, since these
// tests look at the same ones again and again.
func (p *poster) numberOf(body string) (n int, ok bool) {
	if p.numbers == nil {
		p.numbers, p.seed = map[uint64]int{}, maphash.MakeSeed()
	}
	key := maphash.String(p.seed, body)
	if n, ok = p.numbers[key]; ok {
		return n, true
	}
	var x struct {
		N    int
		Data struct{ N int }
	}
	if json.Unmarshal([]byte(body), &x) != nil {
		return 0, false
	}
	p.numbers[key] = x.N + x.Data.N
	return p.numbers[key], true
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func relayConfig(url string) string {
	return fmt.Sprintf(`
source "http" "in" { path = "/in" }
sink "webhook" "crm" {
  config { url = "http://%s/" }
  retry {
    min_backoff = "100ms"
    max_backoff = "1s"
  }
}
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.crm, sink.audit]
}`, url)
}

// A SIGKILL at any moment loses nothing that was answered.
func TestKillingTheDaemonLosesNothing(t *testing.T) {
	const total = 1000
	dir, address := t.TempDir(), freeAddress(t) // nobody listens there: the sink crm is down
	config := relayConfig(address)
	p := &poster{answered: map[int]bool{}}
	for kill := 1; kill <= 3; kill++ {
		d := start(t, dir, config)
		posted := make(chan struct{})
		go func() {
			defer close(posted)
			p.post(d, total*kill/4, nil)
		}()
		goal := total * kill / 4 * 3 / 4
		for deadline := time.Now().Add(patience); p.count() < goal && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		d.kill()
		<-posted
		eventually(t, "no plugin outlives the daemon", func() bool { return len(orphans(t)) == 0 })
	}
	out := receive(t, address) // the sink is back
	d := start(t, dir, config)
	p.post(d, total, nil)
	if p.count() < total/2 {
		t.Fatalf("only %d callbacks were answered: this tests nothing", p.count())
	}
	eventually(t, "every answered callback was relayed", func() bool { return len(p.missing(out.taken())) == 0 })
	eventually(t, "every answered callback is in the file", func() bool { return len(p.missing(d.lines("audit.jsonl"))) == 0 })
	for _, sink := range []string{"crm", "audit"} {
		for _, state := range []string{"pending", "delayed", "in_flight"} {
			d.eventuallyMetric(fmt.Sprintf(`callbackd_queue_deliveries{sink=%q,state=%q}`, sink, state), 0)
		}
	}
	t.Logf("%d answered over 3 kills, %d relayed, %d lines", p.count(), len(out.all()), len(d.lines("audit.jsonl")))
}

// orphans returns processes of the built sinks that have lost their daemon.
func orphans(t *testing.T) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(cmdline), filepath.Join(programs, "callbackd-sink-")) && !strings.Contains(string(stat), ") Z") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A sink whose process is killed again and again loses nothing, and the other
// sink does not notice.
func TestKillingASinkLosesNothingAndHoldsUpNobody(t *testing.T) {
	out := receive(t, "")
	d := start(t, t.TempDir(), relayConfig(strings.TrimPrefix(out.url, "http://")))
	p := &poster{answered: map[int]bool{}}
	stop := make(chan struct{})
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		p.post(d, 1<<30, stop)
	}()

	const killing = 4 * time.Second
	kills, longest, lines, lastGrowth := 0, time.Duration(0), 0, time.Now()
	for end := time.Now().Add(killing); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, pid := range d.pluginPIDs("callbackd-sink-webhook") {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills++
			}
		}
		if n := len(d.lines("audit.jsonl")); n > lines {
			longest, lines, lastGrowth = max(longest, time.Since(lastGrowth)), n, time.Now()
		}
	}
	longest = max(longest, time.Since(lastGrowth))
	close(stop)
	<-posted
	if kills < 2 {
		t.Errorf("the sink was killed %d times: this tests nothing", kills)
	}
	// Were it held up by the other one, it would stand still all the time.
	if longest > killing/3 {
		t.Errorf("the file sink stood still for %v while the other one was killed", longest)
	}
	eventually(t, "every callback is in the file", func() bool { return len(p.missing(d.lines("audit.jsonl"))) == 0 })
	eventually(t, "every callback was relayed", func() bool { return len(p.missing(out.taken())) == 0 })
	if got := d.metric(`callbackd_sink_restarts_total{sink="crm"}`); got < 2 {
		t.Errorf("%v restarts were counted", got)
	}
	if got := d.metric(`callbackd_sink_restarts_total{sink="audit"}`); got != 0 {
		t.Errorf("the other sink was restarted %v times", got)
	}
	t.Logf("%d kills, %d callbacks, the other sink's longest pause was %v", kills, p.count(), longest)
}

// A sink that cannot be opened at present holds up nobody, and works once it can.
func TestASinkThatCannotBeOpenedYet(t *testing.T) {
	dir := t.TempDir()
	taken, err := os.Create(filepath.Join(dir, "taken.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := syscall.Flock(int(taken.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir, `
source "http" "in" { path = "/in" }
sink "file" "blocked" {
  config { path = "taken.jsonl" }
}
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.blocked, sink.audit]
}`)
	d.mustPost("/in", "x", http.StatusAccepted)
	eventually(t, "the other sink has it", func() bool { return len(d.lines("audit.jsonl")) == 1 })
	if code, text := d.get("/-/ready"); code != http.StatusServiceUnavailable || !strings.Contains(text, "locked by another process") {
		t.Errorf("ready: %d %s", code, text)
	}
	if err := syscall.Flock(int(taken.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sink has it too", func() bool { return len(d.lines("taken.jsonl")) == 1 })
	if code, text := d.get("/-/ready"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, text)
	}
}
