package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// crashingFor is how long the crash suite kills, where CALLBACKD_CRASH_FOR does
	// not say.
	crashingFor = time.Minute
	// drainPatience bounds the wait until everything is settled at the end.
	drainPatience = 3 * time.Minute
	crashSenders  = 16
)

// TestCrashes kills the daemon and its sinks at random moments under load, with
// sinks that fail in many ways, and with reloads, redrives and discards in between.
// Afterwards each event that was answered has to be delivered or a dead letter, for
// each sink that it was routed to; deliveries of one key have to have arrived in
// their order; and the store has to open.
//
// CALLBACKD_CRASH_FOR says how long, CALLBACKD_SEED what is decided: the kind and the
// parameters of each step, what senders send, how receivers answer. When a step
// meets what is in flight is up to the machine, so a seed brings the same plan
// again, not the same run.
func TestCrashes(t *testing.T) {
	lasting, seed := crashingFor, rand.Uint64()
	if text := os.Getenv("CALLBACKD_CRASH_FOR"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			t.Fatalf("CALLBACKD_CRASH_FOR is %q, want a time like 10m", text)
		}
		lasting = d
	}
	if text := os.Getenv("CALLBACKD_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("CALLBACKD_SEED is %q, want a number", text)
		}
		seed = n
	}
	t.Logf("CALLBACKD_SEED=%d", seed)

	r := newCrashRig(t, seed)
	r.boot(r.stepRandom(0), newVariant(r.stepRandom(0)))
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for i := range crashSenders {
		senders.Go(func() { newCrashSender(r, i).run(stop) })
	}
	defer senders.Wait()
	stopped := sync.OnceFunc(func() { close(stop) })
	defer stopped()

	began := time.Now()
	for step := uint64(1); time.Since(began) < lasting && !t.Failed(); step++ {
		r.step(step)
	}
	took := time.Since(began)

	// The last kill, under load. Then everything may succeed.
	r.kill("at the end")
	r.ordered.gentle.Store(true)
	r.tiny.gentle.Store(true)
	r.boot(r.stepRandom(0), lastVariant())
	time.Sleep(500 * time.Millisecond)
	stopped()
	senders.Wait()
	r.verdict(took)
}

// crashRig is the daemon that is killed again and again, with all that is around it.
type crashRig struct {
	t    *testing.T
	seed uint64
	dir  string

	ledger        *ledger
	ordered, tiny *crashReceiver

	// daemon is the one that runs; nil: none takes callbacks.
	daemon atomic.Pointer[daemon]
	last   *daemon // the one that was started last
	// generation is the configuration in force; nil: nobody knows at present.
	generation atomic.Pointer[generation]
	file       variant // what is in the configuration file, and good

	deaths  map[string]*death // dead letters that were seen, by delivery id
	counted crashCounts
	journal []string
	began   time.Time
}

// crashCounts are what was done.
type crashCounts struct {
	kills       map[string]int // of the daemon, by the moment
	sinkKills   map[string]int // by sink; "?" where it is not known which
	pauses      int
	restarts    int // in good order
	good        int // reloads
	broken      int
	interrupted int // reloads that were hit by a kill
	redriven    int // dead letters, by their ids
	moved       int
	discarded   int
	jobs        int
}

// death is a dead letter that was seen while the daemon ran, and what was done to
// it.
type death struct {
	letter
	// Each is set before it is asked for: whether it was done nobody knows where
	// the daemon was killed.
	redriven, moved, discarded bool
	gone                       bool // the answer was that it is discarded
}

func newCrashRig(t *testing.T, seed uint64) *crashRig {
	t.Helper()
	l := &ledger{}
	r := &crashRig{
		t: t, seed: seed, dir: shortDir(t), ledger: l, deaths: map[string]*death{}, began: time.Now(),
		ordered: newCrashReceiver(t, seed, l, orderedFates, true),
		tiny:    newCrashReceiver(t, seed+1, l, tinyFates, false),
		counted: crashCounts{kills: map[string]int{}, sinkKills: map[string]int{}},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done last:\n%s", strings.Join(r.journal[max(0, len(r.journal)-60):], "\n"))
			if r.last != nil {
				t.Logf("the end of the daemon's log:\n%s", r.last.logEnd())
			}
		}
		if r.last != nil {
			r.last.kill()
		}
	})
	return r
}

// stepRandom is the source of a step's decisions. Each step has one of its own, so
// that it decides the same whatever those before it found.
func (r *crashRig) stepRandom(step uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, step)) }

func (r *crashRig) note(format string, args ...any) {
	r.journal = append(r.journal, fmt.Sprintf("%9.3f ", time.Since(r.began).Seconds())+fmt.Sprintf(format, args...))
}

func (r *crashRig) config(v variant, more string) string {
	return v.config(r.ordered.url, r.tiny.url, more)
}

// boot starts the daemon with a configuration, until it takes callbacks. Now and
// then what the one before has started need not be gone.
func (r *crashRig) boot(random *rand.Rand, v variant) {
	r.t.Helper()
	if random.IntN(2) == 0 {
		eventually(r.t, "nothing outlives a killed daemon", func() bool { return len(processesOf(r.t, r.dir)) == 0 })
	}
	began := time.Now()
	d := r.launch(v)
	select {
	case <-d.listening():
	case <-d.exited:
		r.t.Fatalf("the daemon ended at its start: %v\n%s", d.err, d.logEnd())
	case <-time.After(patience):
		r.t.Fatalf("the daemon does not take callbacks")
	}
	r.note("started in %v with %+v", time.Since(began).Round(time.Millisecond), v)
	r.generation.Store(&generation{v})
	r.daemon.Store(d)
}

// launch starts the daemon with a configuration, and waits for nothing.
func (r *crashRig) launch(v variant) *daemon {
	r.t.Helper()
	if r.last != nil {
		r.ended(r.last)
	}
	r.generation.Store(nil)
	r.file = v
	r.last = spawn(r.t, r.dir, r.config(v, ""))
	return r.last
}

// ended looks at what a daemon that is gone has said.
func (r *crashRig) ended(d *daemon) {
	log := d.log()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "this is a fault of callbackd", "the store failed", "the store is damaged"} {
		if i := strings.Index(log, bad); i >= 0 && !r.saidBySink(log, i) {
			r.t.Errorf("the log of the daemon has %q:\n%s", bad, log[max(0, i-2000):min(len(log), i+8000)])
			return
		}
	}
}

// saidBySink tells whether what is at i in a log is a line that a plugin printed.
func (r *crashRig) saidBySink(log string, i int) bool {
	line := log[strings.LastIndexByte(log[:i], '\n')+1:]
	if end := strings.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	return strings.Contains(line, "callbackd-sink-fault") || strings.Contains(line, "sink=faulty")
}

// kill ends the daemon with SIGKILL.
func (r *crashRig) kill(when string) {
	r.daemon.Store(nil)
	select {
	case <-r.last.exited: // by itself: a stop was sooner done
		if r.last.err != nil {
			r.t.Errorf("the daemon ended before it was killed %s: %v\n%s", when, r.last.err, r.last.logEnd())
		}
		r.counted.restarts++
		r.note("too late for a kill %s", when)
		return
	default:
	}
	r.counted.kills[when]++
	r.last.kill()
	r.note("killed %s", when)
}

// end stops the daemon as an operator does.
func (r *crashRig) end() {
	r.t.Helper()
	r.daemon.Store(nil)
	began := time.Now()
	r.last.stop()
	r.note("ended in good order after %v", time.Since(began).Round(time.Millisecond))
}

// status asks the daemon that runs; an error says that it does not answer.
func (r *crashRig) status() (s crashStatus, err error) {
	code, err := r.last.api("GET", "/api/v1/status", nil, &s)
	if err == nil && code != 200 {
		err = fmt.Errorf("the status is answered with %d", code)
	}
	return s, err
}

// sinkProcess returns the process of a sink that runs, chosen by a number.
func (r *crashRig) sinkProcess(choice int) (sink string, p *os.Process) {
	s, err := r.status()
	if err != nil {
		r.t.Fatalf("the daemon does not answer: %v", err)
	}
	for i := range s.Sinks {
		of := s.Sinks[(choice+i)%len(s.Sinks)]
		if of.PID == 0 {
			continue
		}
		p, err := os.FindProcess(of.PID)
		// It may be gone by now, and its number another's.
		if err == nil && slices.Contains(r.last.pluginPIDs("callbackd-sink-"), of.PID) {
			return of.Name, p
		}
	}
	return "", nil
}

// pause stops a process for a moment.
func (r *crashRig) pause(what string, p *os.Process, d time.Duration) {
	if p.Signal(syscall.SIGSTOP) != nil {
		return // it is gone
	}
	time.Sleep(d)
	_ = p.Signal(syscall.SIGCONT)
	r.counted.pauses++
	r.note("paused %s for %v", what, d)
}
