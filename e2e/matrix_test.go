package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fault is a row of the matrix: what a plugin does wrong, and what has to be seen
// of it, so that no row passes because its fault did not happen.
type fault struct {
	name string
	// env, plugin and settings go into the configuration: of the plugin block, as
	// NAME=value, its other attributes, and of the config block.
	env, plugin, settings string
	// tls: daemon and plugins talk as they do by default. Making the keys is most of
	// the work that a start takes under the race detector, so most rows do without.
	tls bool
	// meanwhile happens in the first half of the window.
	meanwhile func(*trial)
	// signs are what has to be seen of the fault while the daemon runs, last what
	// its log has to hold after the stop.
	signs, last []sign
}

// sign tells what is missing; empty: nothing.
type sign func(*trial) string

// works: the faulty sink delivers all the same.
func works(tr *trial) string {
	if tr.d.metric(`callbackd_deliveries_total{result="delivered",sink="bad"}`) > 0 {
		return ""
	}
	return "a delivery to the faulty sink"
}

// startsAgain: the plugin was started again.
func startsAgain(tr *trial) string {
	if tr.restarts() > 0 {
		return ""
	}
	return "a restart"
}

// down: the sink cannot be used, and the daemon says so.
func down(tr *trial) string {
	if up := tr.d.metric(`callbackd_sink_up{sink="bad"}`); up != 0 {
		return fmt.Sprintf("callbackd_sink_up 0, it is %v", up)
	}
	if code, text := tr.d.get("/-/ready"); code != http.StatusServiceUnavailable || !strings.Contains(text, `sink "bad"`) {
		return fmt.Sprintf("not ready because of the sink, it is %d %s", code, text)
	}
	return ""
}

// outcome: attempts ended that way.
func outcome(what string) sign {
	return func(tr *trial) string {
		if tr.d.metric(fmt.Sprintf(`callbackd_attempts_total{outcome=%q,sink="bad"}`, what)) > 0 {
			return ""
		}
		return "an attempt with the outcome " + what
	}
}

// says: the daemon's log has the text.
func says(text string) sign {
	return func(tr *trial) string {
		if strings.Contains(tr.d.log(), text) {
			return ""
		}
		return fmt.Sprintf("%q in the log", text)
	}
}

// signalPlugin sends a signal to the faulty plugin, and only to it.
func signalPlugin(sig syscall.Signal) func(*trial) {
	return func(tr *trial) {
		for _, pid := range tr.d.pluginPIDs("callbackd-sink-fault") {
			_ = syscall.Kill(pid, sig)
		}
	}
}

// faultGroup are rows that are measured at the same time, beside a daemon whose
// sinks are both sound.
type faultGroup struct {
	name   string
	window time.Duration
	rows   []fault
}

const panics, exits = "I was told to panic", "exited with status 3"

// slowGroup are the faults that take the daemon a while to come upon: it asks for
// metrics each 5 s, and for a sign of life each 10 s. It runs beside all others.
func slowGroup() faultGroup {
	return faultGroup{"slowly noticed", 37 * time.Second, []fault{
		{name: "panic in Check", settings: `on_check = "panic"`, signs: []sign{works, startsAgain, says(panics)}},
		{name: "exit in Check", settings: `on_check = "exit"`, signs: []sign{works, startsAgain, says(exits)}},
		{name: "hang in Check", settings: `on_check = "hang"`, signs: []sign{works, startsAgain, says("checks in a row went unanswered")}},
		{name: "panic in Metrics", settings: `metrics = "panic"`, signs: []sign{works, startsAgain, says(panics)}},
		{name: "exit in Metrics", settings: `metrics = "exit"`, signs: []sign{works, startsAgain, says(exits)}},
		{name: "hang in Metrics", settings: `metrics = "hang"`, signs: []sign{works}},
		{
			name: "stopped by SIGSTOP", meanwhile: signalPlugin(syscall.SIGSTOP),
			signs: []sign{works, startsAgain, says("checks in a row went unanswered")},
		},
	}}
}

func faultGroups(dir string) []faultGroup {
	// A daemon whose plugins do not come up takes callbacks after 5 s.
	const window = 4 * time.Second
	return []faultGroup{
		{"start", window, []fault{
			{name: "exit at the start", env: "FAULTSINK_START=exit:7", signs: []sign{down, says("exited with status 7")}},
			{name: "never a handshake", env: "FAULTSINK_START=silent", signs: []sign{down}},
			{name: "noise before the handshake", env: "FAULTSINK_START=garbage", signs: []sign{down, says("not a plugin's handshake")}},
			{name: "first line without end", env: "FAULTSINK_START=endless", signs: []sign{down, says("longer than 16 KiB")}},
			{name: "closed standard output", env: "FAULTSINK_START=close", signs: []sign{down, says("closed its standard output")}},
			{name: "wrong protocol version", env: "FAULTSINK_START=version:99", signs: []sign{down, says("speaks version 99")}},
			{name: "handshake, then deaf", tls: true, env: "FAULTSINK_START=deaf", signs: []sign{down}},
			{name: "handshake, then an exit", tls: true, env: "FAULTSINK_START=dead", signs: []sign{down, startsAgain}},
			{name: "start of 7 s", tls: true, env: "FAULTSINK_START=slow:7s", signs: []sign{works}},
		}},
		{"description and settings", window, []fault{
			{name: "panic in Describe", env: "FAULTSINK_DESCRIBE=panic", signs: []sign{down, says("exited with status 2")}},
			{name: "exit in Describe", env: "FAULTSINK_DESCRIBE=exit", signs: []sign{down, says(exits)}},
			{name: "hang in Describe", env: "FAULTSINK_DESCRIBE=hang", signs: []sign{down}},
			{name: "Describe of 50 MB", env: "FAULTSINK_DESCRIBE=huge", signs: []sign{down, says("larger than max")}},
			{name: "20,000 attributes", env: "FAULTSINK_DESCRIBE=many", signs: []sign{down, says("describes itself wrongly")}},
			{name: "panic in Configure", settings: `on_configure = "panic"`, signs: []sign{down, startsAgain, says(panics)}},
			{name: "exit in Configure", settings: `on_configure = "exit"`, signs: []sign{down, startsAgain, says(exits)}},
			{name: "hang in Configure", settings: `on_configure = "hang"`, signs: []sign{down}},
		}},
		{"deliveries", window, []fault{
			{name: "panic in Deliver", settings: `on_deliver = "panic"`, signs: []sign{startsAgain, says(panics)}},
			{name: "exit in Deliver", settings: `on_deliver = "exit"`, signs: []sign{startsAgain, says(exits)}},
			{name: "exit after a result", settings: `on_deliver = "exit_after_first"`, signs: []sign{startsAgain, says(exits)}},
			{name: "hang in Deliver", settings: `on_deliver = "hang"`, signs: []sign{outcome("retry")}},
			{name: "100 MB on stderr in each Deliver", settings: `on_deliver = "flood"`, signs: []sign{says("lines were dropped")}},
			{name: "memory without end", plugin: `max_memory = "256MiB"`, settings: `on_deliver = "grow"`, signs: []sign{startsAgain, says("out of memory")}},
			{name: "no results", settings: `results = "none"`, signs: []sign{outcome("retry")}},
			{name: "results missing", settings: `results = "missing"`, signs: []sign{outcome("retry")}},
		}},
		{"results and output", window, []fault{
			{name: "duplicate results", settings: `results = "duplicate"`, signs: []sign{works, says("belong to no delivery")}},
			{name: "results of unknown ids", settings: `results = "unknown_id"`, signs: []sign{works, says("belong to no delivery")}},
			{name: "unknown outcome", settings: `results = "unknown_outcome"`, signs: []sign{outcome("retry")}},
			{name: "results of 10 MB", settings: `results = "oversized"`, signs: []sign{outcome("rejected")}},
			{name: "results that trickle for ever", settings: `results = "trickle_unknown"`, signs: []sign{outcome("retry"), says("belong to no delivery")}},
			{name: "noise after the handshake", env: "FAULTSINK_STDOUT=noise:1048576", signs: []sign{works}},
			{name: "100 MB on stderr", env: "FAULTSINK_STDERR=flood:104857600", signs: []sign{works, says("lines were dropped")}},
			{name: "odd JSON on stderr", env: "FAULTSINK_STDERR=odd", signs: []sign{works, says("well-formed")}},
			{name: "32 MB without a line's end", env: "FAULTSINK_STDERR=line:33554432", signs: []sign{works}, last: []sign{says("zzzz")}},
		}},
		{"end and offspring", window, []fault{
			{name: "panic in Close", settings: `on_close = "panic"`, signs: []sign{works}, last: []sign{says("did not close in good order"), says(panics)}},
			{name: "exit in Close", settings: `on_close = "exit"`, signs: []sign{works}, last: []sign{says("did not close in good order"), says(exits)}},
			{name: "hang in Close", settings: `on_close = "hang"`, signs: []sign{works}, last: []sign{says("did not answer Close")}},
			{name: "100 MB on stderr in Close", settings: `on_close = "flood"`, signs: []sign{works}},
			{name: "hang in Close, TERM ignored", env: "FAULTSINK_TERM=ignore", settings: `on_close = "hang"`, signs: []sign{works}, last: []sign{says("did not answer Close")}},
			{
				name: "grandchild", env: "FAULTSINK_GRANDCHILD=quiet:" + filepath.Join(dir, "quiet"),
				meanwhile: signalPlugin(syscall.SIGKILL), signs: []sign{works, startsAgain},
			},
			{
				name: "grandchild holds the pipes", env: "FAULTSINK_GRANDCHILD=" + filepath.Join(dir, "holds"),
				meanwhile: signalPlugin(syscall.SIGKILL), signs: []sign{works, startsAgain},
			},
			{
				name: strayName, env: "FAULTSINK_GRANDCHILD=away:" + filepath.Join(dir, "away"),
				meanwhile: signalPlugin(syscall.SIGKILL), signs: []sign{works, startsAgain},
			},
		}},
	}
}

// strayName is the row whose grandchildren nobody ends: what has left its process
// group by its own will is beyond what a daemon without privileges can find.
const strayName = "grandchild left its group with the pipes"

// What each row has to hold.
const (
	worstShare = 0.6 // of the healthy rate beside a sound sink
	mostShare  = 0.9 // likewise, the median of all rows
	// longestGap is between two healthy deliveries, on top of the longest that the
	// daemon with sound sinks had in the same window: that one is the machine's.
	longestGap = time.Second
	// longestStop: 2 s for deliveries, 2 s for Close, 8 s to end what does not; and
	// a machine that stops ten daemons at once.
	longestStop = 15 * time.Second
	// mostMemory is what a fault may cost the daemon beyond one with sound sinks.
	mostMemory = 768 << 20
)

// pace is how many callbacks a second each of up to 18 daemons gets, each of which
// syncs twice for each of them.
func pace() int {
	if raceEnabled {
		return 15
	}
	return 40
}

// TestNoPluginHarmsTheDaemon holds the whole matrix of faults against the whole
// daemon: whatever a plugin prints, returns or does, the daemon lives, another
// sink keeps its rate, nothing that was answered is lost there, and nothing of the
// plugin is left over after the daemon's stop.
func TestNoPluginHarmsTheDaemon(t *testing.T) {
	dir := shortDir(t)
	slow := begin(t, slowGroup())
	all := append([]*trial(nil), slow.trials...)
	for _, g := range faultGroups(dir) {
		measured := begin(t, g)
		measured.finish()
		all = append(all, measured.trials...)
	}
	slow.finish()

	var shares []float64
	var table strings.Builder
	fmt.Fprintf(&table, "%-42s %9s %9s %6s %10s %10s %9s %7s %8s\n", "fault", "healthy/s", "sound/s", "share", "gap", "sound gap", "restarts", "stop", "memory")
	for _, tr := range all {
		shares = append(shares, tr.share())
		fmt.Fprintf(&table, "%-42s %9.1f %9.1f %5.0f%% %10v %10v %9.0f %7v %5d MB\n", tr.fault.name, tr.rate(), tr.beside.rate(), 100*tr.share(),
			tr.gap.Round(time.Millisecond), tr.beside.gap.Round(time.Millisecond), tr.restarted, tr.stopped.Round(100*time.Millisecond), tr.memory>>20)
	}
	slices.Sort(shares)
	median := shares[len(shares)/2]
	t.Logf("%d rows, %d callbacks a second each; the healthy sink beside the fault, and beside a sound sink at the same time:\n%smedian share %.0f%%", len(all), pace(), &table, 100*median)
	if median < mostShare {
		t.Errorf("in the median the healthy sink keeps %.0f%% of its rate, want %.0f%%", 100*median, 100*mostShare)
	}
}

// shortDir is a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cbm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// trial is one daemon with a faulty and a healthy sink.
type trial struct {
	fault  fault
	d      *daemon
	tmp    string
	beside *trial // the one with sound sinks; nil: this is it
	poster poster
	failed int // callbacks that were not answered with success

	stop, posted chan struct{}
	growth       growth

	// What was found.
	window    time.Duration
	lines     int
	gap       time.Duration
	restarted float64
	stopped   time.Duration
	started   time.Time
	ran       time.Duration
	memory    int
	missing   []string // signs, empty where they were seen
}

func (tr *trial) rate() float64 { return float64(tr.lines) / tr.window.Seconds() }

func (tr *trial) share() float64 { return tr.rate() / max(tr.beside.rate(), 0.1) }

func (tr *trial) restarts() float64 {
	return tr.d.metric(`callbackd_sink_restarts_total{sink="bad"}`)
}

func (tr *trial) config() string {
	var env strings.Builder
	if name, value, ok := strings.Cut(tr.fault.env, "="); ok {
		fmt.Fprintf(&env, "%s = %q", name, value)
	}
	return fmt.Sprintf(`
shutdown_grace = "2s"
source "http" "in" { path = "/in" }
plugin "file" {
  tls = %t
  %s
}
plugin "fault" {
  tls = %t
  env = { %s }
  %s
}
sink "fault" "bad" {
  timeout = "1s"
  retry {
    min_backoff = "100ms"
    max_backoff = "1s"
  }
  config {
    %s
  }
}
sink "file" "healthy" {
  config { path = "healthy.jsonl" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.bad, sink.healthy]
}`, tr.fault.tls, endAtOnce(), tr.fault.tls, &env, tr.fault.plugin, tr.fault.settings)
}

// measured is a group under way.
type measured struct {
	t      *testing.T
	group  faultGroup
	trials []*trial
	sound  *trial
	from   time.Time
}

// begin starts the daemons of a group and the load on them.
func begin(t *testing.T, g faultGroup) *measured {
	t.Helper()
	m := &measured{t: t, group: g, sound: &trial{fault: fault{name: "none", signs: []sign{works}}}}
	for _, f := range g.rows {
		m.trials = append(m.trials, &trial{fault: f, beside: m.sound})
	}
	for _, tr := range m.everyone() {
		dir := shortDir(t)
		tr.tmp = filepath.Join(dir, "t")
		if err := os.Mkdir(tr.tmp, 0o700); err != nil {
			t.Fatal(err)
		}
		tr.started = time.Now()
		tr.d = launch(t, dir, tr.config(), "TMPDIR="+tr.tmp)
	}
	for _, tr := range m.everyone() {
		select {
		case <-tr.d.listening():
		case <-tr.d.exited:
			t.Fatalf("%s: the daemon ended at its start: %v\n%s", tr.fault.name, tr.d.err, tr.d.logEnd())
		case <-time.After(patience):
			t.Fatalf("%s: the daemon does not take callbacks\n%s", tr.fault.name, tr.d.logEnd())
		}
	}
	for _, tr := range m.everyone() {
		eventually(t, tr.fault.name+": the healthy sink is ready", func() bool {
			return tr.d.metric(`callbackd_sink_up{sink="healthy"}`) == 1
		})
	}
	for _, tr := range m.everyone() {
		tr.begin()
	}
	// The window begins in the midst of it.
	time.Sleep(500 * time.Millisecond)
	m.from = time.Now()
	for _, tr := range m.trials {
		if tr.fault.meanwhile != nil {
			tr.fault.meanwhile(tr)
		}
	}
	return m
}

func (m *measured) everyone() []*trial { return append([]*trial{m.sound}, m.trials...) }

// finish ends the window, the load and the daemons, and judges each row.
func (m *measured) finish() {
	m.t.Helper()
	time.Sleep(time.Until(m.from.Add(m.group.window)))
	to := time.Now()
	for _, tr := range m.everyone() {
		tr.lines, tr.gap = tr.growth.between(m.from, to)
		tr.window = to.Sub(m.from)
	}
	for _, tr := range m.everyone() {
		close(tr.stop)
		<-tr.posted
	}
	for _, tr := range m.everyone() {
		tr.look(m.t)
	}
	m.end()
	m.t.Logf("%s: ready after %v, judged after %v", m.group.name, m.from.Sub(m.sound.started), time.Since(m.sound.started))
	m.t.Run(m.group.name, func(t *testing.T) {
		t.Run("no fault", m.sound.judgeStop)
		for _, tr := range m.trials {
			t.Run(tr.fault.name, func(t *testing.T) {
				tr.judge(t)
				tr.judgeStop(t)
			})
		}
	})
}

// end stops all daemons at the same time.
func (m *measured) end() {
	http.DefaultClient.CloseIdleConnections() // the daemon would wait for those that were never used
	began := time.Now()
	for _, tr := range m.everyone() {
		_ = tr.d.cmd.Process.Signal(syscall.SIGTERM)
	}
	var all sync.WaitGroup
	for _, tr := range m.everyone() {
		all.Go(func() {
			tr.d.awaitEnd()
			tr.stopped, tr.ran = time.Since(began), time.Since(tr.started)
		})
	}
	all.Wait()
}

// begin posts callbacks at the pace, and watches the healthy sink's file.
func (tr *trial) begin() {
	tr.poster.answered = map[int]bool{}
	tr.stop, tr.posted = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(tr.posted)
		var all sync.WaitGroup
		all.Go(func() { tr.growth.watch(filepath.Join(tr.d.dir, "healthy.jsonl"), tr.stop) })
		due := make(chan struct{})
		all.Go(func() { tr.beat(due) })
		for range 4 { // one that waits for its answer does not hold up the others
			all.Go(func() { tr.post(due) })
		}
		all.Wait()
	}()
}

// beat sends at the pace until stop is closed.
func (tr *trial) beat(due chan<- struct{}) {
	defer close(due)
	ticker := time.NewTicker(time.Second / time.Duration(pace()))
	defer ticker.Stop()
	for {
		select {
		case <-tr.stop:
			return
		case <-ticker.C:
		}
		select {
		case <-tr.stop:
			return
		case due <- struct{}{}:
		}
	}
}

// post posts a callback whenever one is due.
func (tr *trial) post(due <-chan struct{}) {
	for range due {
		n := int(tr.poster.next.Add(1))
		code, _, err := tr.d.post("/in", "application/json", fmt.Appendf(nil, `{"n":%d}`, n))
		tr.poster.mu.Lock()
		if err == nil && code == http.StatusAccepted {
			tr.poster.answered[n] = true
		} else {
			tr.failed++
		}
		tr.poster.mu.Unlock()
	}
}

// look takes down what only a running daemon tells.
func (tr *trial) look(t *testing.T) {
	t.Helper()
	eventually(t, tr.fault.name+": nothing that was answered is missing in the healthy sink", func() bool {
		return len(tr.poster.missing(tr.d.lines("healthy.jsonl"))) == 0
	})
	if code, text := tr.d.get("/-/healthy"); code != http.StatusOK {
		t.Errorf("%s: healthy: %d %s", tr.fault.name, code, text)
	}
	tr.restarted = tr.restarts()
	for _, s := range tr.fault.signs {
		// On a slow machine some take a while.
		for deadline := time.Now().Add(patience / 2); s(tr) != "" && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
		}
		tr.missing = append(tr.missing, s(tr))
	}
	tr.memory = peakMemory(tr.d.cmd.Process.Pid)
	// Nothing is lost in the faulty sink either: what it has not taken is kept.
	var kept float64
	eventually(t, tr.fault.name+": each delivery to the faulty sink is accounted for", func() bool {
		_, scrape := tr.d.get("/metrics")
		kept = 0
		for line := range strings.Lines(scrape) {
			series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if strings.Contains(series, `sink="bad"`) && (strings.HasPrefix(series, "callbackd_queue_deliveries{") || strings.HasPrefix(series, "callbackd_deliveries_total{")) {
				n, _ := strconv.ParseFloat(value, 64)
				kept += n
			}
		}
		return int(kept) == tr.poster.count()
	})
}

// judge holds the row against what has to hold beside any fault.
func (tr *trial) judge(t *testing.T) {
	for _, s := range tr.fault.last {
		tr.missing = append(tr.missing, s(tr))
	}
	for _, what := range tr.missing {
		if what != "" {
			t.Errorf("this row shows nothing: it lacks %s", what)
		}
	}
	if share := tr.share(); share < worstShare {
		t.Errorf("the healthy sink delivers %.1f/s beside the fault, %.1f/s without: %.0f%%, want %.0f%%", tr.rate(), tr.beside.rate(), 100*share, 100*worstShare)
	}
	if tr.gap > longestGap+tr.beside.gap {
		t.Errorf("the healthy sink stood still for %v, that of the daemon without a fault for %v", tr.gap, tr.beside.gap)
	}
	if tr.failed > 0 || tr.poster.count() == 0 {
		t.Errorf("%d callbacks were answered with success, %d were not", tr.poster.count(), tr.failed)
	}
	if tr.memory > tr.beside.memory+mostMemory {
		t.Errorf("the daemon had up to %d MB in memory, the one without a fault %d MB", tr.memory>>20, tr.beside.memory>>20)
	}
	// A flood costs no more than 100 lines a second, and one that says how many
	// more there were before each.
	if n, most := strings.Count(tr.d.log(), "\n"), 2000+300*int(tr.ran.Seconds()); n > most {
		t.Errorf("the log has %d lines after %v, want %d at most", n, tr.ran, most)
	}
}

// judgeStop holds what the daemon has left behind against nothing.
func (tr *trial) judgeStop(t *testing.T) {
	if t.Failed() {
		t.Logf("the end of the daemon's log:\n%s", tr.d.logEnd())
	}
	if tr.stopped > longestStop {
		t.Errorf("the stop took %v", tr.stopped)
	}
	left := processesOf(t, tr.d.dir)
	if tr.fault.name == strayName {
		for pid, program := range left {
			if strings.HasPrefix(program, "/bin/sleep") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				delete(left, pid)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("after the stop processes are left over: %v", left)
	}
	files, err := os.ReadDir(tr.tmp)
	if err != nil || len(files) > 0 {
		t.Errorf("after the stop TMPDIR holds %v (%v)", files, err)
	}
	if missing := tr.poster.missing(tr.d.lines("healthy.jsonl")); len(missing) > 0 {
		t.Errorf("after the stop %d answered callbacks are missing in the healthy sink", len(missing))
	}
}

// peakMemory is the most that a process had in memory so far, in bytes.
func peakMemory(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			return kilobytes << 10
		}
	}
	return 0
}

// growth is when lines came to a file.
type growth struct {
	mu   sync.Mutex
	came []arrival
}

type arrival struct {
	at    time.Time
	lines int
}

// watch follows a file, which need not be there yet, until stop is closed.
func (g *growth) watch(path string, stop <-chan struct{}) {
	var file *os.File
	defer func() { _ = file.Close() }() // nil: an error, no harm
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		var err error
		if file == nil {
			if file, err = os.Open(path); err != nil {
				file = nil
				continue
			}
		}
		b, err := io.ReadAll(file)
		if lines := bytes.Count(b, []byte("\n")); err == nil && lines > 0 {
			g.mu.Lock()
			g.came = append(g.came, arrival{time.Now(), lines})
			g.mu.Unlock()
		}
	}
}

// between returns how many lines came, and the longest time in which none did.
func (g *growth) between(from, to time.Time) (lines int, gap time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := from
	for _, a := range g.came {
		if a.at.Before(from) || a.at.After(to) {
			continue
		}
		lines, gap, last = lines+a.lines, max(gap, a.at.Sub(last)), a.at
	}
	return lines, max(gap, to.Sub(last))
}
