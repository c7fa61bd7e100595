package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// arrivals is what a sink has got, by the number of the callback.
type arrivals struct {
	times map[int]int
	total int
}

func (a *arrivals) add(n int) {
	if a.times == nil {
		a.times = map[int]int{}
	}
	a.times[n]++
	a.total++
}

func (a *arrivals) has(n int) bool   { return a.times[n] > 0 }
func (a *arrivals) repetitions() int { return a.total - len(a.times) }

// account is what is where at the end.
type account struct {
	rig *crashRig
	// numbers are those of the callbacks by the ids of their events, answered or not.
	numbers map[string]int
	// delivered by sink; moved is what the sink "spare" got, by the pipeline.
	delivered map[string]*arrivals
	moved     map[string]*arrivals
	// dead letters that are there, by sink and event id.
	dead map[string]map[string]letter
}

// verdict waits until everything is settled, and holds what is where against what
// was answered; then it redrives all dead letters, and looks again.
func (r *crashRig) verdict(took time.Duration) {
	r.awaitJobs()
	r.awaitDrained()
	a := r.takeAccount()
	a.checkIdentities()
	missing := a.missing(false)
	for _, m := range missing[:min(len(missing), 20)] {
		r.t.Errorf("lost: %s", m)
	}
	a.checkReasons()
	inOrder := a.checkOrder()
	r.report(took, a, len(missing), inOrder)

	left := 0
	for _, of := range a.dead {
		left += len(of)
	}
	if left > 0 {
		r.askForJob(map[string]any{"all": true, "per_second": 0})
		r.awaitJobs()
		r.awaitDrained()
	}
	after := r.takeAccount()
	for sink, of := range after.dead {
		r.t.Errorf("of the sink %s %d dead letters are left, although all were redriven", sink, len(of))
	}
	missing = after.missing(true)
	for _, m := range missing[:min(len(missing), 20)] {
		r.t.Errorf("lost after a redrive of all: %s", m)
	}
	r.checkEmpty()
	r.end()
	r.ended(r.last)
	if left := processesOf(r.t, r.dir); len(left) > 0 {
		r.t.Errorf("processes are left over: %v", left)
	}
	for _, w := range r.ledger.wrong[:min(len(r.ledger.wrong), 20)] {
		r.t.Error(w)
	}
	if r.counted.kills["under load"] == 0 || r.ledger.count() < 100 {
		r.t.Errorf("%v kills, %d callbacks answered: this shows nothing", r.counted.kills, r.ledger.count())
	}
}

// awaitDrained waits until no delivery is open.
func (r *crashRig) awaitDrained() {
	r.t.Helper()
	for deadline := time.Now().Add(drainPatience); ; time.Sleep(100 * time.Millisecond) {
		s, err := r.status()
		if err != nil {
			r.t.Fatalf("the daemon does not answer: %v", err)
		}
		open := int64(0)
		for _, of := range s.Sinks {
			open += of.open()
		}
		for _, of := range s.NotConfigured {
			open += of.open() + of.DeadLetters
		}
		if open == 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("after %v not all is settled: %+v", drainPatience, s)
		}
	}
}

// takeAccount reads what is where, and holds the counts of the status against it.
func (r *crashRig) takeAccount() *account {
	r.t.Helper()
	a := &account{
		rig: r, numbers: map[string]int{}, dead: map[string]map[string]letter{}, moved: map[string]*arrivals{"tiny": {}, "extra": {}},
		delivered: map[string]*arrivals{"all": {}, "extra": {}, "ordered": {}, "tiny": {}, "faulty": {}},
	}
	a.readLines("all.jsonl", func(id, via string, n int) {
		if known, ok := a.numbers[id]; ok && known != n {
			r.t.Errorf("the event %s is callback %d, and callback %d", id, known, n)
		}
		a.numbers[id] = n
		a.delivered["all"].add(n)
	})
	a.readLines("extra.jsonl", func(_, _ string, n int) { a.delivered["extra"].add(n) })
	a.readLines("spare.jsonl", func(id, via string, n int) {
		if a.moved[via] == nil {
			r.t.Errorf("the sink spare got the event %s by the pipeline %s", id, via)
			return
		}
		a.moved[via].add(n)
	})
	a.readRecord()
	for sink, of := range map[string]*crashReceiver{"ordered": r.ordered, "tiny": r.tiny} {
		of.mu.Lock()
		for _, n := range of.accepted {
			a.delivered[sink].add(n)
		}
		of.mu.Unlock()
	}
	letters, err := r.last.letters("", 1<<30)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range letters {
		if a.dead[l.Sink] == nil {
			a.dead[l.Sink] = map[string]letter{}
		}
		a.dead[l.Sink][l.EventID] = l
		if d := r.deaths[l.ID]; d == nil {
			r.deaths[l.ID] = &death{letter: l}
		} else if d.gone {
			r.t.Errorf("the dead letter %s of %s was discarded, and is there", l.ID, l.Sink)
		}
	}
	s, err := r.status()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, of := range s.Sinks {
		if int(of.DeadLetters) != len(a.dead[of.Name]) {
			r.t.Errorf("the status counts %d dead letters of %s, the list has %d", of.DeadLetters, of.Name, len(a.dead[of.Name]))
		}
	}
	return a
}

// readLines reads the file of a file sink. Each of its lines is whole.
func (a *account) readLines(name string, f func(id, via string, n int)) {
	t := a.rig.t
	t.Helper()
	a.eachLine(name, func(line []byte) {
		var event struct {
			ID   string
			Data struct {
				N   *int
				Via string
			}
		}
		if err := json.Unmarshal(line, &event); err != nil || event.ID == "" || event.Data.N == nil {
			t.Errorf("%s has a line that is none: %.200q (%v)", name, line, err)
			return
		}
		f(event.ID, event.Data.Via, *event.Data.N)
	})
}

// readRecord reads what the fault sink took: ids of deliveries, a line each. It
// needs the numbers of the events.
func (a *account) readRecord() {
	a.eachLine("faulty.ids", func(line []byte) {
		id, _, ok := strings.Cut(string(line), "_")
		if !ok {
			return // it has noted that it closed
		}
		n, known := a.numbers[id]
		if !known {
			a.rig.t.Errorf("the sink faulty got the event %s, the sink all did not", id)
			return
		}
		a.delivered["faulty"].add(n)
	})
}

func (a *account) eachLine(name string, f func([]byte)) {
	t := a.rig.t
	t.Helper()
	file, err := os.Open(filepath.Join(a.rig.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// checkIdentities: each callback is one event, also one that was told twice, and it
// has the id that was answered.
func (a *account) checkIdentities() {
	t := a.rig.t
	ids := map[int]string{}
	for id, n := range a.numbers {
		if known := ids[n]; known != "" {
			t.Errorf("callback %d has become the events %s and %s", n, known, id)
		}
		ids[n] = id
	}
	for _, p := range a.rig.ledger.all {
		if p.id == "" {
			continue
		}
		if id := ids[p.N]; id != "" && id != p.id {
			t.Errorf("callback %d was answered with the id %s, and is the event %s", p.N, p.id, id)
		}
		a.numbers[p.id] = p.N
	}
}

// sinksOf are the sinks that a callback was routed to, as far as that is known.
func sinksOf(p *posted) []string {
	sinks := []string{"all", "ordered"}
	if p.Tiny {
		sinks = append(sinks, "tiny")
	}
	if p.Faulty {
		sinks = append(sinks, "faulty")
	}
	if p.Extra && p.routing == withExtra {
		sinks = append(sinks, "extra")
	}
	return sinks
}

// missing are the deliveries of answered events that are nowhere. alive: a dead
// letter does not count as being somewhere.
func (a *account) missing(alive bool) (out []string) {
	discarded := map[string]bool{}
	for _, d := range a.rig.deaths {
		if d.discarded {
			discarded[d.Sink+" "+d.EventID] = true
		}
	}
	for _, p := range a.rig.ledger.all {
		if p.id == "" {
			continue
		}
		for _, sink := range sinksOf(p) {
			_, dead := a.dead[sink][p.id]
			spare, deadSpare := a.dead["spare"][p.id]
			switch {
			case a.delivered[sink].has(p.N):
			case discarded[sink+" "+p.id], discarded["spare "+p.id]:
			case a.moved[sink] != nil && a.moved[sink].has(p.N):
			case dead && !alive:
			case deadSpare && spare.Pipeline == sink && !alive:
			default:
				out = append(out, fmt.Sprintf("callback %d, event %s, sink %s; known of it: %+v", p.N, p.id, sink, a.history(sink, p.id)))
			}
		}
	}
	// And nothing is where it does not belong.
	for sink, got := range a.delivered {
		for n := range got.times {
			p := a.rig.ledger.find(n)
			if p == nil || sink == "tiny" && !p.Tiny || sink == "faulty" && !p.Faulty || sink == "extra" && (!p.Extra || p.routing == withoutExtra) {
				a.rig.t.Errorf("the sink %s got callback %d, which was not routed to it", sink, n)
			}
		}
	}
	return out
}

func (a *account) history(sink, event string) (known []death) {
	for _, d := range a.rig.deaths {
		if d.Sink == sink && d.EventID == event {
			known = append(known, *d)
		}
	}
	return known
}

// checkReasons: each dead letter that was seen has died as it was promised.
func (a *account) checkReasons() {
	r := a.rig
	innocent := map[string]int{}
	for _, d := range r.deaths {
		n, known := a.numbers[d.EventID]
		if !known {
			r.t.Errorf("a dead letter of %s has the event %s, which nobody else has: %+v", d.Sink, d.EventID, d)
			continue
		}
		var ok bool
		switch d.Sink + " " + d.Reason {
		case "ordered rejected":
			ok = r.ordered.rejected[n]
		case "ordered exhausted":
			ok = d.Attempts >= 4 && r.ordered.attempts[n] >= 1
		case "tiny overflow":
			ok = d.Attempts == 0
		case "faulty rejected":
			ok = d.Attempts >= 1
		case "faulty exhausted":
			ok = d.Attempts >= faultyAttempts
		default:
			ok = d.Reason == "crashed"
		}
		if !ok {
			r.t.Errorf("a dead letter is not one that can be: %+v", d)
		}
		if p := r.ledger.find(n); d.Reason == "crashed" && (d.Sink != "faulty" || p.Word != "poison") {
			innocent[d.Sink]++
		}
	}
	// A process that is killed from outside speaks against what it was at alone. It
	// takes three such kills to convict one event.
	for sink, n := range innocent {
		if most := (r.counted.sinkKills[sink] + r.counted.sinkKills["?"]) / 3; n > most {
			r.t.Errorf("%d events of %s were convicted that do no harm, with %d kills of the sink", n, sink, r.counted.sinkKills[sink])
		}
	}
}

// checkOrder holds the first acceptance of each callback by the receiver behind
// order_by against the order in which callbacks of its key were sent, each after the
// answer to the one before. What was redriven is exempt. It returns how many it
// looked at.
func (a *account) checkOrder() (looked int) {
	r := a.rig
	redriven := map[int]bool{}
	for _, d := range r.deaths {
		if d.Sink == "ordered" && d.redriven {
			redriven[a.numbers[d.EventID]] = true
		}
	}
	r.ordered.mu.Lock()
	defer r.ordered.mu.Unlock()
	seen, last, wrong := map[int]bool{}, map[string]int{}, 0
	for _, n := range r.ordered.accepted {
		p := r.ledger.find(n)
		if seen[n] || redriven[n] || p.late {
			continue
		}
		seen[n] = true
		looked++
		if before, ok := last[p.Key]; ok && n < before {
			if wrong++; wrong <= 20 {
				r.t.Errorf("out of order: of the key %s callback %d was first accepted after callback %d; known of it: %+v", p.Key, n, before, a.history("ordered", p.id))
			}
			continue
		}
		last[p.Key] = n
	}
	return looked
}

// checkEmpty: with nothing left to do the queue holds nothing but the keys of
// dedupe, of about 70 bytes.
func (r *crashRig) checkEmpty() {
	s, err := r.status()
	if err != nil {
		r.t.Fatal(err)
	}
	once := 0
	for _, p := range r.ledger.all {
		if p.Once != "" {
			once++
		}
	}
	if s.Queue.Bytes < 0 || s.Queue.Bytes > int64(150*once) {
		r.t.Errorf("nothing is left to be delivered, and the queue holds %d bytes; %d callbacks had a key", s.Queue.Bytes, once)
	}
}

// report tells what was done, and what became of it.
func (r *crashRig) report(took time.Duration, a *account, missing, inOrder int) {
	total := func(m map[string]int) (n int) {
		for _, x := range m {
			n += x
		}
		return n
	}
	c, reasons, left := &r.counted, map[string]int{}, 0
	for _, d := range r.deaths {
		reasons[d.Sink+" "+d.Reason]++
	}
	for _, of := range a.dead {
		left += len(of)
	}
	found := 0
	for _, p := range r.ledger.all {
		if p.id == "" && a.delivered["all"].has(p.N) {
			found++
		}
	}
	var delivered, repeated []string
	for _, sink := range slices.Sorted(maps.Keys(a.delivered)) {
		delivered = append(delivered, fmt.Sprintf("%s %d", sink, len(a.delivered[sink].times)))
		repeated = append(repeated, fmt.Sprintf("%s %d", sink, a.delivered[sink].repetitions()))
	}
	r.t.Logf(`CALLBACKD_SEED=%d: %d kills of the daemon and %d of sinks survived in %v
kills of the daemon: %v
kills of sinks: %v; pauses: %d
restarts in good order: %d; reloads: %d good, %d broken, %d hit by a kill
callbacks: %d answered, %d lost; %d requests had no success, %d callbacks without an answer are events all the same; %d told again
delivered: %s; moved: tiny %d, extra %d
delivered again: %s
in order: %d deliveries
dead letters seen: %v; at the end: %d
done to dead letters by their ids: redriven %d, moved %d, discarded %d; jobs: %d`,
		r.seed, total(c.kills), total(c.sinkKills), took.Round(time.Second), c.kills, c.sinkKills, c.pauses,
		c.restarts, c.good, c.broken, c.interrupted,
		r.ledger.count(), missing, r.ledger.unanswered.Load(), found, r.ledger.repeated.Load(),
		strings.Join(delivered, ", "), len(a.moved["tiny"].times), len(a.moved["extra"].times), strings.Join(repeated, ", "),
		inOrder, reasons, left, c.redriven, c.moved, c.discarded, c.jobs)
}
