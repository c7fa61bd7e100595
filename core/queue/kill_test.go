package queue

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

const killDir = "CALLBACKD_QUEUE_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		victim(dir)
		return
	}
	// There are three models, which share most of their steps; the command line may
	// ask for more.
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// victim appends, settles and redrives until it is killed, and prints what was
// answered: "a ID" appended, "s ID" about to be settled as delivered or dead, "x ID" is
// a dead letter, "r ID" about to be redriven, "R ID" was; "o KEY ID" appended in order,
// "O ID" about to be settled, in order; "1 KEY ID" the first event of a key.
func victim(dir string) {
	// So few in memory that order keys are parked.
	q, err := Open(context.Background(), Options{Dir: dir, WindowEvents: 64})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("ready")
	v := &victimLog{}
	for a := range 12 {
		go func() {
			routes := []event.Route{{Pipeline: "p", Sink: "audit"}, {Pipeline: "p", Sink: "slow"}, {Pipeline: "p", Sink: "ordered"}}
			for i := uint64(0); ; i++ {
				ev := benchEvent(uint64(time.Now().UnixNano())<<8 + uint64(a)<<1 + i&1)
				ev.Subject = fmt.Sprint("key", i%3, "of", a%4)
				routes[2].Order = event.OrderKey(ev.Subject)
				if err := q.Append(context.Background(), ev, routes); err != nil {
					v.fail(err)
					return
				}
				v.say("a " + ev.ID.String() + "\n")
			}
		}()
	}
	for a := range 4 { // each key comes again and again
		go func() {
			for i := uint64(0); ; i++ {
				ev := benchEvent(uint64(time.Now().UnixNano())<<8 + 100 + uint64(a))
				key := fmt.Sprint("once", time.Now().UnixMilli()/2)
				first, err := q.AppendOnce(context.Background(), ev, []event.Route{{Pipeline: "p", Sink: "once"}}, event.Once{Key: key, Window: time.Hour})
				if err != nil {
					v.fail(err)
					return
				}
				v.say("1 " + key + " " + first.String() + "\n")
			}
		}()
	}
	go victimRedrives(q, v)
	go victimOrdered(q, v)
	for n := 0; ; n++ {
		ls, err := q.Take(context.Background(), "audit", Want{MaxEvents: 20, MaxBytes: 1 << 20, Lease: time.Minute})
		if err != nil {
			v.fail(err)
			return
		}
		var before, after strings.Builder
		var ss []Settlement
		for i, l := range ls {
			st := Settlement{Lease: l.Lease, Attempts: l.Attempts + 1}
			switch (n + i) % 4 {
			case 0:
				st.Dead = &event.Death{Reason: event.ReasonRejected}
				fmt.Fprintf(&after, "x %s\n", l.Event.ID)
			case 1:
				st.Retry = &Retry{At: time.Now()}
			default:
				st.Delivered = true
			}
			if st.Delivered { // it may be gone from now on
				fmt.Fprintf(&before, "s %s\n", l.Event.ID)
			}
			ss = append(ss, st)
		}
		v.say(before.String())
		if err := q.Settle(context.Background(), ss); err != nil {
			v.fail(err)
			return
		}
		v.say(after.String())
	}
}

// victimLog prints whole lines.
type victimLog struct{ mu sync.Mutex }

func (v *victimLog) say(lines string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, _ = os.Stdout.WriteString(lines)
}

func (v *victimLog) fail(err error) { v.say("error " + err.Error() + "\n") }

// victimRedrives redrives some of the dead letters, again and again.
func victimRedrives(q *Embedded, v *victimLog) {
	for ; ; time.Sleep(time.Millisecond) {
		var keys []DeadKey
		var before, after strings.Builder
		err := q.DeadLetters(context.Background(), Filter{Sink: "audit"}, func(l DeadLetter) bool {
			if l.Key.Seq%3 == 0 {
				keys = append(keys, l.Key)
				fmt.Fprintf(&before, "r %s\n", l.EventID)
				fmt.Fprintf(&after, "R %s\n", l.EventID)
			}
			return len(keys) < 10
		})
		if err == nil {
			v.say(before.String())
			_, err = q.Redrive(context.Background(), keys)
		}
		if err != nil {
			v.fail(err)
			return
		}
		v.say(after.String())
	}
}

// victimOrdered settles what is ordered, slower than it comes.
func victimOrdered(q *Embedded, v *victimLog) {
	for n := 0; ; n++ {
		ls, err := q.Take(context.Background(), "ordered", Want{MaxEvents: 8, MaxBytes: 1 << 20, Lease: time.Minute})
		if err != nil {
			v.fail(err)
			return
		}
		var ss []Settlement
		var lines strings.Builder
		for i, l := range ls {
			st := Settlement{Lease: l.Lease, Attempts: l.Attempts + 1}
			if (n+i)%3 == 0 {
				st.Retry = &Retry{At: time.Now().Add(5 * time.Millisecond), Error: "x"}
			} else {
				st.Delivered = true
				fmt.Fprintf(&lines, "O %s\n", l.Event.ID)
			}
			ss = append(ss, st)
		}
		v.say(lines.String())
		if err := q.Settle(context.Background(), ss); err != nil {
			v.fail(err)
			return
		}
	}
}

// killed is what a victim said.
type killed struct {
	appended, settled, ordered map[string]bool
	dead                       map[string]bool   // and not about to be redriven
	redriving                  map[string]bool   // maybe redriven
	first                      map[string]string // by key
}

// run lets a victim work for a while.
func (k *killed) run(t *testing.T, dir string, length time.Duration) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		kind, id, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "ready":
			time.AfterFunc(length, func() { _ = cmd.Process.Kill() })
		case "a":
			k.appended[id] = true
		case "s":
			k.settled[id] = true
		case "O":
			k.ordered[id] = true
		case "x":
			k.dead[id] = true
		case "r":
			k.redriving[id] = true
		case "R":
			delete(k.dead, id)
		case "1":
			key, id, _ := strings.Cut(id, " ")
			if was, known := k.first[key]; known && was != id {
				t.Errorf("the first event of %s was %s and is %s", key, was, id)
			}
			k.first[key] = id
		case "error":
			t.Fatal(lines.Text())
		}
	}
	_ = cmd.Wait()
}

// TestKill kills a process with SIGKILL at some moment, several times over the
// same store: everything that it had been answered is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	k := &killed{
		appended: make(map[string]bool), settled: make(map[string]bool), ordered: make(map[string]bool), dead: make(map[string]bool),
		redriving: make(map[string]bool), first: make(map[string]string),
	}
	for round := range 5 {
		k.run(t, dir, time.Duration(150+137*round)*time.Millisecond)
	}
	if len(k.appended) < 100 || len(k.dead) < 10 || len(k.redriving) < 10 || len(k.first) < 10 || len(k.ordered) < 20 {
		t.Fatalf("only %d appended, %d dead letters, %d redriven, %d keys, %d settled in order: the test shows nothing",
			len(k.appended), len(k.dead), len(k.redriving), len(k.first), len(k.ordered))
	}

	q := openBench(t, Options{Dir: dir, WindowEvents: 64})
	readAll(t, q)
	k.checkOrdered(t, q)
	slow := allEvents(t, q, "slow")
	audit := make(map[string]bool)
	for _, id := range waitingIDs(t, q, "audit") {
		audit[id] = true
	}
	letters := make(map[string]int)
	if err := q.DeadLetters(t.Context(), Filter{Sink: "audit"}, func(d DeadLetter) bool {
		letters[d.EventID.String()]++
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for id := range k.appended {
		if !slow[id] {
			t.Errorf("event %s is lost for sink slow", id)
		}
		if !audit[id] && !k.settled[id] && letters[id] == 0 {
			t.Errorf("event %s is lost for sink audit", id)
		}
	}
	for id := range k.dead {
		if !k.redriving[id] && (letters[id] != 1 || audit[id]) {
			t.Errorf("dead letter %s: %d times, pending %v", id, letters[id], audit[id])
		}
	}
	once := make(map[string]bool)
	for _, id := range waitingIDs(t, q, "once") {
		if once[id] {
			t.Errorf("event %s comes twice", id)
		}
		once[id] = true
	}
	firsts := make(map[string]bool)
	for key, id := range k.first {
		firsts[id] = true
		if !once[id] {
			t.Errorf("event %s, the first of key %s, is lost", id, key)
		}
		// The key is remembered.
		again, err := q.AppendOnce(t.Context(), benchEvent(1), nil, event.Once{Key: key, Window: time.Hour})
		if err != nil || again.String() != id {
			t.Errorf("the first event of %s was %s and is %s, %v", key, id, again, err)
		}
	}
	// Those that were killed with their last key unanswered.
	if extra := len(once) - len(firsts); extra > 5*4 {
		t.Errorf("%d events of keys that come once, of which %d were answered", len(once), len(firsts))
	}
	readAll(t, q)
	t.Logf("%d events were answered, %d settled, %d in order, %d are dead, %d were redriven, %d keys; nothing was lost",
		len(k.appended), len(k.settled), len(k.ordered), len(k.dead), len(k.redriving), len(k.first))
}

// checkOrdered takes and settles all that is left for the ordered sink: each key goes
// in the order of acceptance, and nothing is lost.
func (k *killed) checkOrdered(t *testing.T, q *Embedded) {
	seqs := make(map[string]uint64)
	have := make(map[string]bool)
	for {
		st := q.Stats().Sinks["ordered"]
		if st.Pending+st.Delayed == 0 {
			break
		}
		ls, err := q.Take(t.Context(), "ordered", Want{MaxEvents: 100, MaxBytes: 16 << 20, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var ss []Settlement
		batch := make(map[string]bool)
		for _, l := range ls {
			key := l.Event.Subject
			if batch[key] || l.Lease.Seq <= seqs[key] || !l.Ordered {
				t.Errorf("event %d of %s comes after %d, in one batch %v, ordered %v", l.Lease.Seq, key, seqs[key], batch[key], l.Ordered)
			}
			seqs[key], batch[key], have[l.Event.ID.String()] = l.Lease.Seq, true, true
			ss = append(ss, Settlement{Lease: l.Lease, Delivered: true, Attempts: l.Attempts + 1})
		}
		if err := q.Settle(t.Context(), ss); err != nil {
			t.Fatal(err)
		}
	}
	for id := range k.appended {
		if !have[id] && !k.ordered[id] {
			t.Errorf("event %s is lost for sink ordered", id)
		}
	}
}

// waitingIDs takes all that is due or delayed for a sink.
func waitingIDs(t *testing.T, q *Embedded, sink string) (ids []string) {
	t.Helper()
	for {
		st := q.Stats().Sinks[sink]
		if st.Pending+st.Delayed == 0 {
			return ids
		}
		ls, err := q.Take(t.Context(), sink, Want{MaxEvents: 1000, MaxBytes: 16 << 20, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			ids = append(ids, l.Event.ID.String())
		}
	}
}
