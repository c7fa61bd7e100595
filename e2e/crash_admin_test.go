package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// crashStatus is what the crash suite reads of GET /api/v1/status.
type crashStatus struct {
	Queue struct{ Bytes int64 }
	Sinks []struct {
		Name string
		PID  int
		held
	}
	NotConfigured []struct {
		Name string
		held
	} `json:"not_configured"`
}

// held is what the queue has for a sink.
type held struct {
	Pending     int64
	InFlight    int64 `json:"in_flight"`
	Delayed     int64
	DeadLetters int64 `json:"dead_letters"`
}

func (h held) open() int64 { return h.Pending + h.InFlight + h.Delayed }

// letter is a dead letter, as it is listed.
type letter struct {
	ID       string
	EventID  string `json:"event_id"`
	Pipeline string
	Sink     string
	Reason   string
	Attempts int
}

// crashJob is a job, as it is listed.
type crashJob struct {
	ID        string
	State     string
	WaitsFor  string `json:"waits_for"`
	LastError string `json:"last_error"`
}

func (j crashJob) ended() bool {
	return j.State == "done" || j.State == "cancelled" || j.State == "failed"
}

var adminClient = &http.Client{Timeout: patience}

// api asks the admin address; an error says that there was no answer, which is
// nothing special while daemons are killed.
func (d *daemon) api(method, path string, body, into any) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, d.admin+path, content)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := adminClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode/100 != 2 {
		d.t.Logf("%s %s: %s: %.500s", method, path, resp.Status, answer)
	}
	if resp.StatusCode/100 == 2 && into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			return resp.StatusCode, fmt.Errorf("%s %s: %w in %.200q", method, path, err, answer)
		}
	}
	return resp.StatusCode, nil
}

// mustAPI is api for a daemon that nobody kills meanwhile.
func (d *daemon) mustAPI(method, path string, body, into any) {
	d.t.Helper()
	code, err := d.api(method, path, body, into)
	if err != nil || code/100 != 2 {
		d.t.Fatalf("%s %s: %d (%v)\n%s", method, path, code, err, d.logEnd())
	}
}

// letters lists dead letters of a sink, or of all; most bounds how many.
func (d *daemon) letters(sink string, most int) (all []letter, err error) {
	after := ""
	for len(all) < most {
		var page struct {
			DeadLetters []letter `json:"dead_letters"`
			Next        string
		}
		query := url.Values{"limit": {fmt.Sprint(min(most-len(all), 1000))}}
		if sink != "" {
			query.Set("sink", sink)
		}
		if after != "" {
			query.Set("after", after)
		}
		code, err := d.api(http.MethodGet, "/api/v1/deadletters?"+query.Encode(), nil, &page)
		if err != nil {
			return nil, err
		}
		if code != http.StatusOK {
			return nil, fmt.Errorf("the list of dead letters is answered with %d", code)
		}
		all = append(all, page.DeadLetters...)
		if after = page.Next; after == "" {
			break
		}
	}
	return all, nil
}
