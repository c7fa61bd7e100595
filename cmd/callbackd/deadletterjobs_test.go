package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/callbackd/callbackd/core/redrive"
)

// TestFollowedJobOutlastsItsDaemon: a daemon that starts again is waited for, and the
// job that it goes on with is followed to its end.
func TestFollowedJobOutlastsItsDaemon(t *testing.T) {
	const id = "01JD0000000000000000000000"
	var asked atomic.Int64
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		job := redrive.Job{ID: id, Kind: redrive.Redrive, State: redrive.Running, Done: 5, Found: 5, TotalEstimate: 10, Rate: 100}
		switch n := asked.Add(1); {
		case r.URL.Path != "/api/v1/jobs/"+id:
			http.NotFound(w, r)
			return
		case n == 3 || n == 4:
			panic(http.ErrAbortHandler) // the connection ends without an answer
		case n > 4:
			job.State, job.Done, job.Found = redrive.Done, 10, 10
		}
		_ = json.NewEncoder(w).Encode(job)
	}))
	defer daemon.Close()
	var out, told bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&told)
	root.SetArgs([]string{"deadletter", "jobs", id, "--wait", "--admin", daemon.URL})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, told.String())
	}
	if !strings.Contains(out.String(), "10 of 10 found") {
		t.Errorf("what became of the job: %s", out.String())
	}
	wantTold := "job " + id + ": 5 of about 10 redriven, 100/s\n" +
		"job " + id + ": the daemon does not answer, waiting for it\n"
	if told.String() != wantTold {
		t.Errorf("it told\n%swant\n%s", told.String(), wantTold)
	}
}
