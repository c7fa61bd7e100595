package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/rogpeppe/go-internal/testscript"
)

// awaitLetters waits until a daemon keeps so many dead letters: await N NAME
func awaitLetters(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await N NAME")
	}
	want, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	eventually(ts, "so many dead letters", func() bool {
		resp, err := http.Get("http://" + ts.Getenv(args[1]+"_ADMIN") + "/api/v1/deadletters/summary")
		ts.Check(err)
		defer resp.Body.Close()
		var s admin.DeadLetterSummary
		ts.Check(json.NewDecoder(resp.Body).Decode(&s))
		return s.Kept == want
	})
}

// awaitLines waits until a file has so many lines: lines N FILE
func awaitLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines N FILE")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	eventually(ts, "so many lines in "+args[1], func() bool {
		content, _ := os.ReadFile(ts.MkAbs(args[1]))
		return bytes.Count(content, []byte("\n")) == want
	})
}

func eventually(ts *testscript.TestScript, what string, is func() bool) {
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	for !is() {
		select {
		case <-overdue.C:
			ts.Fatalf("there are not %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// firstLetter sets a variable to the id of the first dead letter of a sink, in the
// JSON that was printed last: first SINK VARIABLE
func firstLetter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: first SINK VARIABLE")
	}
	var page admin.DeadLetterPage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &page))
	for _, d := range page.DeadLetters {
		if d.Sink == args[0] {
			ts.Setenv(args[1], d.ID)
			return
		}
	}
	ts.Fatalf("there is none of sink %s", args[0])
}

// readVariable sets a variable to the text of a file: read VARIABLE FILE
func readVariable(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: read VARIABLE FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// awaitProgress waits until a job has done something, and is not done: progress ID
// NAME
func awaitProgress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: progress ID NAME")
	}
	eventually(ts, "jobs that have done some", func() bool {
		resp, err := http.Get("http://" + ts.Getenv(args[1]+"_ADMIN") + "/api/v1/jobs/" + args[0])
		ts.Check(err)
		defer resp.Body.Close()
		var job redrive.Job
		ts.Check(json.NewDecoder(resp.Body).Decode(&job))
		if job.State.Ended() {
			ts.Fatalf("the job has ended: %+v", job)
		}
		return job.Done > 2
	})
}

// slay kills a daemon: slay NAME
func slay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: slay NAME")
	}
	d := findDaemon(ts, args[0])
	ts.Check(d.cmd.Process.Kill())
	d.waitForEnd(ts)
}

// countIDs checks that a file of events has so many different ones: ids N FILE
func countIDs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ids N FILE")
	}
	ids := make(map[string]bool)
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		var ev struct{ ID string }
		ts.Check(json.Unmarshal([]byte(line), &ev))
		ids[ev.ID] = true
	}
	if got := strconv.Itoa(len(ids)); got != args[0] {
		ts.Fatalf("%s has %s events, want %s", args[1], got, args[0])
	}
}
