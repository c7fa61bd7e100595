package e2e_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// mostAtATime bounds the dead letters that one step names.
const mostAtATime = 200

// letterSinks are those whose dead letters are redriven and discarded.
var letterSinks = []string{"ordered", "faulty", "tiny", "tiny", "", "faulty"}

// some chooses dead letters of a sink, and remembers them.
func (r *crashRig) some(sink string, random *rand.Rand) (chosen []*death) {
	source := rand.New(rand.NewPCG(random.Uint64(), 0)) // how many there are is not the plan's
	share := random.Float64()
	all, err := r.last.letters(sink, mostAtATime)
	if err != nil {
		r.t.Errorf("dead letters cannot be listed: %v", err)
		return nil
	}
	for _, l := range all {
		if source.Float64() > share {
			continue
		}
		d := r.deaths[l.ID]
		if d == nil {
			d = &death{}
			r.deaths[l.ID] = d
		}
		if d.gone {
			r.t.Errorf("the dead letter %s was discarded, and is there", l.ID)
		}
		d.letter = l
		chosen = append(chosen, d)
	}
	return chosen
}

func idsOf(chosen []*death) []string {
	ids := make([]string, len(chosen))
	for i, d := range chosen {
		ids[i] = d.ID
	}
	return ids
}

// answer is what POST …/redrive and …/discard say of named dead letters.
type answer struct {
	Found, Done int
	Stopped     string
}

// redrives chooses dead letters, and returns what redrives them.
func (r *crashRig) redrives(random *rand.Rand) func() {
	chosen := r.some(letterSinks[random.IntN(len(letterSinks))], random)
	chosen = slices.DeleteFunc(chosen, func(d *death) bool { return d.Sink == "extra" && !r.file.extra })
	for _, d := range chosen {
		d.redriven = true
	}
	return func() {
		if len(chosen) == 0 {
			return
		}
		a, code, err := r.act("redrive", map[string]any{"ids": idsOf(chosen)})
		if err == nil && code == http.StatusOK {
			r.counted.redriven += a.Done
		}
	}
}

func (r *crashRig) redriveSome(random *rand.Rand) { r.redrives(random)() }

// moveSome redrives dead letters to another sink.
func (r *crashRig) moveSome(random *rand.Rand) {
	chosen := r.some("tiny", random)
	for _, d := range chosen {
		d.moved = true
	}
	if len(chosen) == 0 {
		return
	}
	a, code, err := r.act("redrive", map[string]any{"ids": idsOf(chosen), "to": "spare"})
	if err != nil || code != http.StatusOK {
		r.t.Errorf("dead letters cannot be moved: %d (%v)", code, err)
	}
	r.counted.moved += a.Done
}

func (r *crashRig) discardSome(random *rand.Rand) {
	chosen := r.some(letterSinks[random.IntN(len(letterSinks))], random)
	chosen = chosen[:len(chosen)/2]
	for _, d := range chosen {
		d.discarded = true
	}
	if len(chosen) == 0 {
		return
	}
	a, code, err := r.act("discard", map[string]any{"ids": idsOf(chosen)})
	if err != nil || code != http.StatusOK {
		r.t.Errorf("dead letters cannot be discarded: %d (%v)", code, err)
		return
	}
	r.counted.discarded += a.Done
	if a.Done == len(chosen) {
		for _, d := range chosen {
			d.gone = true
		}
	}
}

// act asks for something to be done to named dead letters. Only an answer that must
// not be is told here: whether there is one is the caller's.
func (r *crashRig) act(what string, body any) (a answer, code int, err error) {
	code, err = r.last.api(http.MethodPost, "/api/v1/deadletters/"+what, body, &a)
	if err == nil && code/100 != 2 && code != http.StatusServiceUnavailable {
		r.t.Errorf("%s of dead letters is answered with %d", what, code)
	}
	return a, code, err
}

// redriveAll starts a job. Not for the ordered sink: redriven ones are out of order,
// so which ones they are has to be known.
func (r *crashRig) redriveAll(random *rand.Rand) {
	sink := []string{"tiny", "faulty"}[random.IntN(2)]
	rate := []int{0, 50, 1000}[random.IntN(3)]
	r.askForJob(map[string]any{"all": true, "filter": map[string]any{"sink": sink}, "per_second": rate})
}

// moveOrphans takes away the sink that comes and goes, and starts a job for what
// waits for it.
func (r *crashRig) moveOrphans(random *rand.Rand) {
	v := newVariant(random)
	v.extra = false
	r.reloadTo(v)
	r.askForJob(map[string]any{"all": true, "orphans": true, "filter": map[string]any{"sink": "extra"}, "to": "spare"})
}

func (r *crashRig) askForJob(body any) {
	var job crashJob
	code, err := r.last.api(http.MethodPost, "/api/v1/deadletters/redrive", body, &job)
	if err != nil {
		return // it was killed
	}
	switch code {
	case http.StatusAccepted:
		r.counted.jobs++
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
	case http.StatusConflict: // the sink is not there, and nothing waits for it
	default:
		r.t.Errorf("a job for %v is answered with %d", body, code)
	}
}

// awaitJobs waits until all jobs have ended, and well.
func (r *crashRig) awaitJobs() {
	r.t.Helper()
	var unfinished []crashJob
	for deadline := time.Now().Add(drainPatience); ; time.Sleep(100 * time.Millisecond) {
		var list struct{ Jobs []crashJob }
		r.last.mustAPI(http.MethodGet, "/api/v1/jobs", nil, &list)
		unfinished = nil
		for _, j := range list.Jobs {
			if !j.ended() {
				unfinished = append(unfinished, j)
			}
		}
		if len(unfinished) == 0 {
			for _, j := range list.Jobs {
				if j.State == "failed" {
					r.t.Errorf("a job failed: %+v", j)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("jobs have not ended after %v: %+v", drainPatience, unfinished)
		}
	}
}
