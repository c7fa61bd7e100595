package queue

import (
	"bufio"
	"context"
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
	os.Exit(m.Run())
}

// victim appends and settles until it is killed, and prints what was answered:
// "a ID" appended, "s ID" about to be settled as delivered, "x ID" is a dead
// letter.
func victim(dir string) {
	q, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("ready")
	var mu sync.Mutex
	say := func(lines string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = os.Stdout.WriteString(lines)
	}
	routes := []event.Route{{Pipeline: "p", Sink: "audit"}, {Pipeline: "p", Sink: "slow"}}
	for a := range 16 {
		go func() {
			for i := uint64(0); ; i++ {
				ev := benchEvent(uint64(time.Now().UnixNano())<<8 + uint64(a)<<1 + i&1)
				if err := q.Append(context.Background(), ev, routes); err != nil {
					say("error " + err.Error() + "\n")
					return
				}
				say("a " + ev.ID.String() + "\n")
			}
		}()
	}
	for n := 0; ; n++ {
		ls, err := q.Take(context.Background(), "audit", Want{MaxEvents: 20, MaxBytes: 1 << 20, Lease: time.Minute})
		if err != nil {
			say("error " + err.Error() + "\n")
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
			if st.Retry == nil { // it may be gone from now on
				fmt.Fprintf(&before, "s %s\n", l.Event.ID)
			}
			ss = append(ss, st)
		}
		say(before.String())
		if err := q.Settle(context.Background(), ss); err != nil {
			say("error " + err.Error() + "\n")
			return
		}
		say(after.String())
	}
}

// TestKill kills a process with SIGKILL at some moment, several times over the
// same store: everything that it had been answered is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	appended := make(map[string]bool)
	settled := make(map[string]bool)
	dead := make(map[string]bool)
	for round := range 5 {
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
				time.AfterFunc(time.Duration(150+137*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
			case "a":
				appended[id] = true
			case "s":
				settled[id] = true
			case "x":
				dead[id] = true
			case "error":
				t.Fatal(lines.Text())
			}
		}
		_ = cmd.Wait()
	}
	if len(appended) < 100 || len(dead) < 10 {
		t.Fatalf("only %d appended and %d dead letters: the test shows nothing", len(appended), len(dead))
	}

	q := openBench(t, Options{Dir: dir})
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
	for id := range appended {
		if !slow[id] {
			t.Errorf("event %s is lost for sink slow", id)
		}
		if !audit[id] && !settled[id] && letters[id] == 0 {
			t.Errorf("event %s is lost for sink audit", id)
		}
	}
	for id := range dead {
		if letters[id] != 1 || audit[id] {
			t.Errorf("dead letter %s: %d times, pending %v", id, letters[id], audit[id])
		}
	}
	t.Logf("%d events were answered, %d settled, %d of them dead; nothing was lost", len(appended), len(settled), len(dead))
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
