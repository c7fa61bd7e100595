package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// documented finds the blocks for a shell on a page.
var documented = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")

// TestDeadLetterPage runs every command and every request that the page shows.
func TestDeadLetterPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "dead-letters.md"))
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("callbackd")
	if err != nil {
		t.Fatal(err)
	}
	q, address := serveDeadLetters(t)
	commands := 0
	for _, block := range documented.FindAllSubmatch(page, -1) {
		for line := range strings.Lines(string(block[1])) {
			line = strings.TrimSpace(line)
			letter := somethingToDo(t, q)
			job := ""
			if strings.Contains(line, "$JOB") {
				job = slowJob(t, q, address)
			}
			line = strings.ReplaceAll(line, "http://127.0.0.1:8081", "http://"+address)
			if strings.HasPrefix(line, "curl ") {
				if _, err := exec.LookPath("curl"); err != nil {
					t.Logf("curl is not there, not run: %s", line)
					commands++
					continue
				}
				line = "curl --fail-with-body " + strings.TrimPrefix(line, "curl ")
			}
			commands++
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			cmd := exec.CommandContext(ctx, "sh", "-c", line)
			cmd.Env = append(os.Environ(), "ID="+letter, "JOB="+job, adminURLEnv+"=http://"+address,
				"PATH="+filepath.Dir(program)+string(filepath.ListSeparator)+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			cancel()
			if err != nil || len(bytes.TrimSpace(out)) == 0 {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands are on the page", commands)
	}
}

// serveDeadLetters serves what a daemon does of dead letters.
func serveDeadLetters(t *testing.T) (*queue.Embedded, string) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	q, err := queue.Open(t.Context(), queue.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := redrive.New(t.Context(), q, redrive.NewMetrics(prometheus.NewRegistry()), logger)
	if err != nil {
		t.Fatal(err)
	}
	server, err := admin.New(admin.Settings{
		Address: "127.0.0.1:0", Registry: prometheus.NewRegistry(), Logger: logger,
		NotReady:    func() []string { return nil },
		Status:      func() admin.Status { return admin.Status{Ready: true, NotConfigured: admin.NotConfigured(q.Stats())} },
		DeadLetters: &admin.DeadLetters{Queue: q, Jobs: jobs, Mask: func(s string) string { return s }},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { done <- server.Run(ctx, ln) }()
	go func() { done <- jobs.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q, ln.Addr().String()
}

// somethingToDo keeps dead letters of a sink and of one that has left the
// configuration, which has an orphan, too. It returns the id of the first one.
func somethingToDo(t *testing.T, q *queue.Embedded) string {
	t.Helper()
	id := keepRoute(t, q, "a", event.Route{Sink: "crm", Dead: &event.Death{Reason: event.ReasonExpired}})
	keepRoute(t, q, "a", event.Route{Sink: "old-crm", Dead: &event.Death{Reason: event.ReasonRejected}})
	keepRoute(t, q, "a", event.Route{Sink: "old-crm"})
	q.Configure(map[string]queue.Limits{"crm": {}})
	return id
}

// keepRoute keeps an event of a type, and returns the id of its delivery.
func keepRoute(t *testing.T, q *queue.Embedded, eventType string, route event.Route) string {
	t.Helper()
	now := time.Now().UTC()
	route.Pipeline = "p"
	ev := &event.Event{ID: ulid.Make(), Source: "chat", Type: eventType, Time: now, Accepted: now, Body: []byte("{}")}
	if err := q.Append(t.Context(), ev, []event.Route{route}); err != nil {
		t.Fatal(err)
	}
	return event.DeliveryID(ev.ID, route.Pipeline, route.Sink)
}

// slowJob begins a job that takes some seconds, and returns its id.
func slowJob(t *testing.T, q *queue.Embedded, address string) string {
	t.Helper()
	for range 4 {
		keepRoute(t, q, "slow", event.Route{Sink: "crm", Dead: &event.Death{Reason: event.ReasonExpired}})
	}
	var stdout, stderr bytes.Buffer
	args := []string{"deadletter", "discard", "--all", "--type", "slow", "--per-second", "1", "--yes", "--detach", "--admin", "http://" + address}
	if code := run(t.Context(), args, http.NoBody, &stdout, &stderr); code != exitOK {
		t.Fatal(fmt.Sprint(args), stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}
