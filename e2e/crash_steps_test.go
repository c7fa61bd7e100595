package e2e_test

import (
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"
)

// crashStep is one thing that is done to the daemon. random decides how; it is
// asked for the same numbers however things stand.
type crashStep struct {
	weight int
	do     func(r *crashRig, random *rand.Rand)
}

// crashSteps are what the suite chooses from.
var crashSteps = []crashStep{
	{5, (*crashRig).killUnderLoad},
	{2, (*crashRig).killInStart},
	{2, (*crashRig).killInStop},
	{3, (*crashRig).killInReload},
	{2, (*crashRig).killInRedrive},
	{1, (*crashRig).restart},
	{9, (*crashRig).killSink},
	{2, (*crashRig).killSinkInReload},
	{3, (*crashRig).pauseSink},
	{1, (*crashRig).pauseDaemon},
	{5, (*crashRig).reload},
	{3, (*crashRig).reloadBroken},
	{4, (*crashRig).redriveSome},
	{2, (*crashRig).moveSome},
	{2, (*crashRig).discardSome},
	{2, (*crashRig).redriveAll},
	{2, (*crashRig).moveOrphans},
	{6, (*crashRig).turnReceiver},
}

// step does the step of a number.
func (r *crashRig) step(number uint64) {
	random := r.stepRandom(number)
	time.Sleep(moment(random, 400*time.Millisecond))
	total := 0
	for _, s := range crashSteps {
		total += s.weight
	}
	drawn := random.IntN(total)
	for _, s := range crashSteps {
		if drawn -= s.weight; drawn < 0 {
			s.do(r, random)
			break
		}
	}
	select {
	case <-r.last.exited:
		r.t.Fatalf("after step %d the daemon does not run: %v", number, r.last.err)
	default:
	}
}

// moment is a time below most, mostly a short one.
func moment(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Float64() * random.Float64() * float64(most))
}

func (r *crashRig) killUnderLoad(random *rand.Rand) {
	time.Sleep(moment(random, time.Second))
	r.kill("under load")
	r.boot(random, r.file)
}

func (r *crashRig) killInStart(random *rand.Rand) {
	r.kill("under load")
	for range 1 + random.IntN(3) {
		r.launch(r.file)
		time.Sleep(moment(random, 2*time.Second))
		r.kill("in its start")
	}
	r.boot(random, r.file)
}

func (r *crashRig) killInStop(random *rand.Rand) {
	r.daemon.Store(nil)
	_ = r.last.cmd.Process.Signal(syscall.SIGTERM)
	time.Sleep(moment(random, 600*time.Millisecond))
	r.kill("in its stop")
	r.boot(random, r.file)
}

func (r *crashRig) restart(random *rand.Rand) {
	v := newVariant(random)
	r.end()
	r.counted.restarts++
	r.boot(random, v)
}

// killInReload kills while a reload is under way, of a configuration that is good or
// broken. What is in the file then, made good, is what the next start has.
func (r *crashRig) killInReload(random *rand.Rand) {
	v, wrong, after := newVariant(random), random.IntN(4*len(crashBroken)), moment(random, 1500*time.Millisecond)
	text := r.config(v, "")
	if wrong < len(crashBroken) {
		text = r.brokenConfig(v, wrong)
	}
	answered := r.beginReload(text)
	time.Sleep(after)
	r.kill("in a reload")
	<-answered
	r.counted.interrupted++
	r.boot(random, v)
}

// killSinkInReload kills processes of sinks while a reload is under way. Whether it
// succeeds nobody knows; it says so.
func (r *crashRig) killSinkInReload(random *rand.Rand) {
	v, times := newVariant(random), 1+random.IntN(3)
	before := r.generation.Load()
	answered := r.beginReload(r.config(v, ""))
	for range times {
		time.Sleep(moment(random, 400*time.Millisecond))
		choice := random.IntN(1 << 20)
		if pids := r.last.pluginPIDs("callbackd-sink-"); len(pids) > 0 && syscall.Kill(pids[choice%len(pids)], syscall.SIGKILL) == nil {
			r.counted.sinkKills["?"]++
		}
	}
	code := <-answered
	r.counted.interrupted++
	r.note("killed sinks in a reload to %+v: %d", v, code)
	switch code {
	case http.StatusOK:
		r.file = v
		r.generation.Store(&generation{v})
	case http.StatusInternalServerError, http.StatusUnprocessableEntity:
		r.generation.Store(before)
	default:
		r.t.Errorf("a reload in which sinks were killed is answered with %d", code)
	}
}

func (r *crashRig) killInRedrive(random *rand.Rand) {
	after, job := moment(random, 300*time.Millisecond), random.IntN(2) == 0
	asked := make(chan struct{})
	change := r.redrives(random)
	go func() {
		defer close(asked)
		if job {
			r.askForJob(map[string]any{"all": true, "filter": map[string]any{"sink": "tiny"}})
		} else {
			change()
		}
	}()
	time.Sleep(after)
	r.kill("in a redrive")
	<-asked
	r.boot(random, r.file)
}

func (r *crashRig) killSink(random *rand.Rand) {
	sink, p := r.sinkProcess(random.IntN(1 << 20))
	if p == nil || p.Kill() != nil {
		return
	}
	r.counted.sinkKills[sink]++
	r.note("killed the sink %s", sink)
}

func (r *crashRig) pauseSink(random *rand.Rand) {
	choice, d := random.IntN(1<<20), moment(random, 2*time.Second)
	if sink, p := r.sinkProcess(choice); p != nil {
		r.pause(sink, p, d)
	}
}

// pauseDaemon stops the daemon for a moment. Now and then it is killed meanwhile.
func (r *crashRig) pauseDaemon(random *rand.Rand) {
	d, killed := moment(random, 2*time.Second), random.IntN(3) == 0
	if !killed {
		r.pause("the daemon", r.last.cmd.Process, d)
		return
	}
	_ = r.last.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	r.kill("while it was stopped")
	r.boot(random, r.file)
}

func (r *crashRig) reload(random *rand.Rand) { r.reloadTo(newVariant(random)) }

// reloadTo lets a good configuration take effect.
func (r *crashRig) reloadTo(v variant) {
	began := time.Now()
	code := <-r.beginReload(r.config(v, ""))
	r.note("reload to %+v: %d after %v", v, code, time.Since(began).Round(time.Millisecond))
	if code != http.StatusOK {
		r.t.Errorf("a good configuration is not taken: %d", code)
		return
	}
	r.counted.good++
	r.file = v
	r.generation.Store(&generation{v})
	r.checkSinks()
}

// reloadBroken asks for a reload of a configuration that is wrong, which changes
// nothing.
func (r *crashRig) reloadBroken(random *rand.Rand) {
	v, which := newVariant(random), random.IntN(len(crashBroken))
	before := r.generation.Load()
	code := <-r.beginReload(r.brokenConfig(v, which))
	r.note("broken reload, %s: %d", crashBroken[which].name, code)
	if want := crashBroken[which].code; code != want {
		r.t.Errorf("a reload of a broken configuration, %s, is answered with %d, want %d", crashBroken[which].name, code, want)
	}
	r.counted.broken++
	r.generation.Store(before)
	r.checkSinks()
}

func (r *crashRig) brokenConfig(v variant, which int) string {
	b := crashBroken[which]
	if b.change != nil {
		b.change(&v)
	}
	return r.config(v, b.more)
}

// beginReload asks for a reload of a text. The answer's status follows; 0: none.
// Until the caller says what came of it nobody knows which configuration is in
// force.
func (r *crashRig) beginReload(text string) <-chan int {
	r.generation.Store(nil)
	write(r.t, r.last.cmd.Args[len(r.last.cmd.Args)-1], text)
	answered := make(chan int, 1)
	d := r.last
	go func() {
		code, _ := d.reload()
		answered <- code
	}()
	return answered
}

// checkSinks holds the sinks of the daemon against those of the configuration.
func (r *crashRig) checkSinks() {
	s, err := r.status()
	if err != nil {
		r.t.Errorf("the daemon does not answer: %v", err)
		return
	}
	want := 5
	if r.generation.Load().extra {
		want++
	}
	if len(s.Sinks) != want {
		r.t.Errorf("after a reload there are %d sinks, want %d", len(s.Sinks), want)
	}
}

// turnReceiver lets the receiver behind a webhook sink go down, or come back: a
// backlog grows, that of the ordered sink with many deliveries of one key in it.
func (r *crashRig) turnReceiver(random *rand.Rand) {
	name, of, down := "tiny", r.tiny, random.IntN(2) == 0
	if random.IntN(3) == 0 {
		name, of = "ordered", r.ordered
	}
	of.down.Store(down)
	r.note("the receiver of %s is down: %v", name, down)
}
