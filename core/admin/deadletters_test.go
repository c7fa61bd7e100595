package admin_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
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

const secret = "s3cret-of-the-configuration"

// letters is an API over a queue with two sinks.
type letters struct {
	*testing.T
	q   *queue.Embedded
	url string
}

func serveLetters(t *testing.T) *letters {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Options{
		Dir: t.TempDir(), Sinks: map[string]queue.Limits{"crm": {}, "audit": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := redrive.New(t.Context(), q, redrive.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- jobs.Run(ctx) }()
	url := serveSettings(t, admin.Settings{
		Address: "127.0.0.1:0", Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		NotReady: func() []string { return nil },
		Status:   func() admin.Status { return admin.Status{NotConfigured: admin.NotConfigured(q.Stats())} },
		DeadLetters: &admin.DeadLetters{Queue: q, Jobs: jobs, Mask: func(s string) string {
			return strings.ReplaceAll(s, secret, "(sensitive)")
		}},
	})
	t.Cleanup(func() { // after the context of the test has ended
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return &letters{t, q, url}
}

// die keeps a dead letter.
func (l *letters) die(sink string, reason event.Reason, change func(*event.Event)) string {
	l.Helper()
	now := time.Now().UTC()
	ev := &event.Event{ID: ulid.Make(), Source: "chat", Type: "a", Subject: "g1", Time: now, Accepted: now, ContentType: "text/plain", Body: []byte("the body")}
	if change != nil {
		change(ev)
	}
	death := &event.Death{Reason: reason, Error: "the receiver says " + secret}
	if err := l.q.Append(l.Context(), ev, []event.Route{{Pipeline: "p", Sink: sink, Dead: death}}); err != nil {
		l.Fatal(err)
	}
	return event.DeliveryID(ev.ID, "p", sink)
}

// ask asks for a path, with a body where there is one, and decodes the answer.
func (l *letters) ask(method, path, body string, wantCode int, into any) string {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), method, l.url+path, strings.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	if resp.StatusCode != wantCode {
		l.Fatalf("%s %s %s: %s %s, want %d", method, path, body, resp.Status, text, wantCode)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			l.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	if strings.Contains(string(text), secret) {
		l.Errorf("%s %s shows a secret: %s", method, path, text)
	}
	return string(text)
}

func TestListPages(t *testing.T) {
	l := serveLetters(t)
	var want []string
	for i := range 30 {
		sink, reason, typ := "crm", event.ReasonRejected, "a"
		if i%3 == 0 {
			sink = "audit"
		}
		if i%5 == 0 {
			reason, typ = event.ReasonExpired, "b"
		}
		want = append(want, l.die(sink, reason, func(ev *event.Event) { ev.Type = typ; ev.Headers = event.Pairs{{Name: "x", Value: "the header"}} }))
	}
	var got []string
	query, pages := url.Values{"limit": {"7"}}, 0
	for {
		var page admin.DeadLetterPage
		text := l.ask("GET", "/api/v1/deadletters?"+query.Encode(), "", 200, &page)
		if strings.Contains(text, "the body") || strings.Contains(text, "the header") {
			t.Errorf("a body or a header is in the list: %s", text)
		}
		for _, d := range page.DeadLetters {
			got = append(got, d.ID)
			if d.EventID == "" || d.Source != "chat" || d.Subject != "g1" || d.Pipeline != "p" || d.Error != "the receiver says (sensitive)" || d.BodySize != 8 || d.Accepted.IsZero() || d.Died.IsZero() {
				t.Errorf("%+v", d)
			}
		}
		pages++
		if page.Next == "" {
			break
		}
		query.Set("after", page.Next)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || pages != 5 {
		t.Errorf("in %d pages:\n%v, want\n%v", pages, got, want)
	}
	for query, n := range map[string]int{
		"":                      30,
		"sink=audit":            10,
		"sink=nowhere":          0,
		"reason=expired":        6,
		"type=b&sink=audit":     2,
		"pipeline=p&limit=1000": 30,
		"pipeline=q":            0,
		"since=1h":              30,
		"until=1h":              0,
		"since=2020-01-01T00:00:00Z&until=2099-01-01T00:00:00%2B01:00": 30,
	} {
		var page admin.DeadLetterPage
		if l.ask("GET", "/api/v1/deadletters?"+query, "", 200, &page); len(page.DeadLetters) != n || page.Next != "" {
			t.Errorf("%s: %d of %d", query, len(page.DeadLetters), n)
		}
	}
	var s admin.DeadLetterSummary
	l.ask("GET", "/api/v1/deadletters/summary?sink=crm", "", 200, &s)
	if s.Kept != 30 || s.Scanned != 20 || !s.Complete || len(s.Counts) != 2 || s.Counts[0].Reason != "expired" || s.Counts[0].Count != 4 || s.Counts[1].Count != 16 {
		t.Errorf("%+v", s)
	}
}

func TestShow(t *testing.T) {
	l := serveLetters(t)
	long := strings.Repeat("ü", 100_000)
	for _, c := range []struct {
		name, body, query string
		text              string
		raw               []byte
		cut, masked       bool
	}{
		{"text", "a\n\tb<&>", "", "a\n\tb<&>", nil, false, false},
		{"none", "", "", "", nil, false, false},
		{"bytes", "\xff\x00", "", "", []byte("\xff\x00"), false, false},
		{"control characters", "a\x1b[31m", "", "", []byte("a\x1b[31m"), false, false},
		{"a secret", "x" + secret, "", "x(sensitive)", nil, false, true},
		{"a secret in bytes", "\xff" + secret, "", "", []byte("\xff(sensitive)"), false, true},
		{"long", "x" + long, "", ("x" + long)[:64<<10-1], nil, true, false},
		{"long, all of it", long, "?body=full", long, nil, false, false},
	} {
		id := l.die("crm", event.ReasonRejected, func(ev *event.Event) {
			ev.Body = []byte(c.body)
			ev.Headers, ev.Query = event.Pairs{{Name: "h", Value: "v" + secret}}, event.Pairs{{Name: "q", Value: "\xff"}}
		})
		var d admin.FullDeadLetter
		l.ask("GET", "/api/v1/deadletters/"+id+c.query, "", 200, &d)
		if d.ID != id || d.Body != c.text || d.BodyBase64 != base64.StdEncoding.EncodeToString(c.raw) || d.BodyCut != c.cut || d.BodyMasked != c.masked || d.BodySize != len(c.body) {
			t.Errorf("%s: %+.200v", c.name, d)
		}
		if d.ContentType != "text/plain" || d.Headers["h"] != "v(sensitive)" || d.Query["q"] != "\uFFFD" {
			t.Errorf("%s: %+.200v", c.name, d)
		}
	}
}

func TestActions(t *testing.T) {
	l := serveLetters(t)
	var ids []string
	for range 10 {
		ids = append(ids, l.die("crm", event.ReasonRejected, nil))
	}
	time.Sleep(time.Millisecond) // they died before the jobs are asked for
	var answer redrive.Answer
	l.ask("POST", "/api/v1/deadletters/redrive", fmt.Sprintf(`{"ids": [%q, %q, "none"]}`, ids[0], ids[1]), 200, &answer)
	if answer.Found != 2 || answer.Done != 2 || len(answer.Missing) != 1 {
		t.Errorf("%+v", answer)
	}
	l.ask("POST", "/api/v1/deadletters/discard", fmt.Sprintf(`{"ids": [%q]}`, ids[2]), 200, &answer)
	if answer.Done != 1 {
		t.Errorf("%+v", answer)
	}
	var job redrive.Job
	l.ask("POST", "/api/v1/deadletters/redrive", `{"filter": {"sink": "crm", "since": "1h"}, "all": true}`, 202, &job)
	if job.PerSecond != redrive.DefaultPerSecond || job.Kind != redrive.Redrive || job.TotalEstimate != 7 {
		t.Errorf("%+v", job)
	}
	for !job.State.Ended() {
		l.ask("GET", "/api/v1/jobs/"+job.ID, "", 200, &job)
	}
	if job.State != redrive.Done || job.Done != 7 {
		t.Errorf("%+v", job)
	}
	l.ask("POST", "/api/v1/jobs/"+job.ID+"/cancel", "", 409, nil)
	if s := l.q.Stats().Sinks["crm"]; s.Dead != 0 || s.Pending+s.Delayed != 9 {
		t.Errorf("%+v", s)
	}

	// Orphans are shown, and discarded slowly enough to be cancelled.
	l.q.Configure(map[string]queue.Limits{"audit": {}})
	var status admin.Status
	l.ask("GET", "/api/v1/status", "", 200, &status)
	if n := status.NotConfigured; len(n) != 1 || n[0].Name != "crm" || n[0].Pending+n[0].Delayed != 9 || n[0].OldestPendingSeconds <= 0 {
		t.Errorf("%+v", n)
	}
	l.ask("POST", "/api/v1/deadletters/discard", `{"orphans": true, "all": true, "per_second": 1}`, 202, &job)
	l.ask("POST", "/api/v1/jobs/"+job.ID+"/cancel", "", 200, &job)
	if job.State != redrive.Cancelled {
		t.Errorf("%+v", job)
	}
	var list admin.JobList
	if l.ask("GET", "/api/v1/jobs", "", 200, &list); len(list.Jobs) != 2 || list.Jobs[0].ID != job.ID {
		t.Errorf("%+v", list)
	}
}

func TestWrongRequestsOfLetters(t *testing.T) {
	l := serveLetters(t)
	id := l.die("crm", event.ReasonRejected, nil)
	l.die("gone", event.ReasonRejected, nil)
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/api/v1/deadletters?sinks=crm", "", 400, `no parameter \"sinks\"`},
		{"GET", "/api/v1/deadletters?sink=a&sink=b", "", 400, "given 2 times"},
		{"GET", "/api/v1/deadletters?reason=bored", "", 400, "no reason"},
		{"GET", "/api/v1/deadletters?since=now", "", 400, "is no moment"},
		{"GET", "/api/v1/deadletters?since=1h&until=2h", "", 400, "is not after since"},
		{"GET", "/api/v1/deadletters?limit=0", "", 400, "from 1 to 1000"},
		{"GET", "/api/v1/deadletters?limit=1001", "", 400, "from 1 to 1000"},
		{"GET", "/api/v1/deadletters?after=xyz", "", 400, "as its next"},
		{"GET", "/api/v1/deadletters/none", "", 404, "no such dead letter"},
		{"GET", "/api/v1/deadletters/" + id + "?body=half", "", 400, "it can be full"},
		{"GET", "/api/v1/jobs/none", "", 404, "no job"},
		{"POST", "/api/v1/jobs/none/cancel", "", 404, "no job"},
		{"POST", "/api/v1/deadletters/discard", "", 415, "Content-Type"},
		{"POST", "/api/v1/deadletters/discard", "{", 400, "not what is expected"},
		{"POST", "/api/v1/deadletters/discard", "{}", 400, "say which"},
		{"POST", "/api/v1/deadletters/discard", `{"filter": {"sink": "crm"}}`, 400, "say which"},
		{"POST", "/api/v1/deadletters/discard", `{"all": true, "fliter": {"sink": "crm"}}`, 400, "fliter"},
		{"POST", "/api/v1/deadletters/discard", `{"all": true, "filter": {"sinks": "crm"}}`, 400, "sinks"},
		{"POST", "/api/v1/deadletters/discard", `{"ids": ["x"], "all": true}`, 400, "leave out"},
		{"POST", "/api/v1/deadletters/discard", `{"ids": []}`, 400, "0 ids"},
		{"POST", "/api/v1/deadletters/discard", `{"ids": ["x"], "to": "audit"}`, 400, "goes to no sink"},
		{"POST", "/api/v1/deadletters/discard", `{"all": true} {"all": true}`, 400, "more than one"},
		{"POST", "/api/v1/deadletters/discard", `{"ids": ["` + strings.Repeat("x", 300<<10) + `"]}`, 413, "larger than"},
		{"POST", "/api/v1/deadletters/redrive", `{"all": true, "filter": {"sink": "gone"}}`, 409, "configure it again"},
		{"POST", "/api/v1/deadletters/redrive", `{"all": true, "filter": {"sink": "never"}}`, 409, "there is no sink"},
		{"POST", "/api/v1/deadletters/redrive", `{"all": true, "per_second": -1}`, 400, "per_second"},
		{"POST", "/api/v1/deadletters/redrive", `{"all": true, "orphans": true}`, 400, "another sink"},
	} {
		var said struct{ Error string }
		text := l.ask(c.method, c.path, c.body, c.code, &said)
		if said.Error == "" || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %.100s: %s", c.method, c.path, c.body, text)
		}
	}
	if s := l.q.Stats().Sinks["crm"]; s.Dead != 1 {
		t.Errorf("%+v", s)
	}
}

// A page of somebody else's can neither read nor change anything.
func TestLettersAreNotForForeignPages(t *testing.T) {
	l := serveLetters(t)
	id := l.die("crm", event.ReasonRejected, nil)
	for _, header := range []map[string]string{
		{"Host": "evil.example", "Content-Type": "application/json"},
		{"Origin": "https://evil.example", "Content-Type": "application/json"},
		{"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
		{"Content-Type": "text/plain"},
		{"Content-Type": "application/x-www-form-urlencoded"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, l.url+"/api/v1/deadletters/discard", strings.NewReader(`{"all": true}`))
		req.RequestURI = ""
		for k, v := range header {
			if k == "Host" {
				req.Host = v
			}
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 4 {
			t.Errorf("%v: %s", header, resp.Status)
		}
	}
	if code, body := do(t, "GET", l.url+"/api/v1/deadletters/"+id, map[string]string{"Host": "evil.example"}); code != 421 || strings.Contains(body, "the body") {
		t.Errorf("by another name: %d %s", code, body)
	}
	var list admin.JobList
	if l.ask("GET", "/api/v1/jobs", "", 200, &list); len(list.Jobs) != 0 {
		t.Errorf("%+v", list)
	}
}

// What the store cannot answer is no success, and says so.
func TestQueueIsGone(t *testing.T) {
	l := serveLetters(t)
	if err := l.q.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ask := range [][3]string{
		{"GET", "/api/v1/deadletters", ""},
		{"GET", "/api/v1/deadletters/summary", ""},
		{"GET", "/api/v1/deadletters/" + ulid.Make().String() + "_000000000000", ""},
		{"POST", "/api/v1/deadletters/discard", `{"all": true}`},
		{"POST", "/api/v1/deadletters/discard", `{"ids": ["x"]}`},
	} {
		var said struct{ Error string }
		if l.ask(ask[0], ask[1], ask[2], 503, &said); said.Error == "" {
			t.Errorf("%v: no error", ask)
		}
	}
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"90s":                       now.Add(-90 * time.Second),
		"2h":                        now.Add(-2 * time.Hour),
		"1h30m":                     now.Add(-90 * time.Minute),
		"7d":                        now.Add(-7 * 24 * time.Hour),
		"0s":                        now,
		"2026-05-01T08:00:00Z":      now.Add(-4 * time.Hour),
		"2026-05-01T08:00:00+02:00": now.Add(-6 * time.Hour),
	} {
		if got, err := admin.ParseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"-1h", "yesterday", "2026-05-01", "5", "d", "-7d", "1.5d", "99999d"} {
		if got, err := admin.ParseMoment(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}
