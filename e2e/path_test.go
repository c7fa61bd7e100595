package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const tencentOK = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`

// The configuration that `make run` uses, and what the README says to try.
func TestQuickStart(t *testing.T) {
	config, err := os.ReadFile("../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	// The ports of a test machine may be taken.
	text := string(config)
	for _, block := range []string{"127.0.0.1:8080", "127.0.0.1:8081"} {
		if !strings.Contains(text, block) {
			t.Fatalf("config.hcl does not listen on %s any more", block)
		}
	}
	dir := t.TempDir()
	text = strings.NewReplacer("127.0.0.1:8080", "127.0.0.1:0", "127.0.0.1:8081", "127.0.0.1:0").Replace(text)
	d := start(t, dir, text)
	body, err := os.ReadFile("../testdata/samples/tencent_im/group_info_changed.json")
	if err != nil {
		t.Fatal(err)
	}
	const query = "&CallbackCommand=Group.CallbackAfterGroupInfoChanged&contenttype=json&ClientIP=203.0.113.7&OptPlatform=RESTAPI"
	if code, answer, err := d.post("/callbacks/chat?SdkAppid=1400000000"+query, "", body); err != nil || code != 200 || answer != tencentOK {
		t.Fatalf("answer: %d %s (%v)", code, answer, err)
	}
	eventually(t, "the event is a line in the audit file", func() bool { return len(d.lines("data/audit.jsonl")) == 1 })
	var line struct {
		SpecVersion, ID, Source, Type, Subject string
		Data                                   json.RawMessage
	}
	if err := json.Unmarshal([]byte(d.lines("data/audit.jsonl")[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line.SpecVersion != "1.0" || line.Source != "/chat" || line.Type != "Group.CallbackAfterGroupInfoChanged" || line.Subject != "@TGS#2J4SZEAEL" || string(line.Data) != strings.TrimSpace(string(body)) {
		t.Errorf("audit line: %+v", line)
	}

	if code, answer, err := d.post("/callbacks/chat?SdkAppid=1400000001"+query, "", body); err != nil || code != http.StatusForbidden || !strings.Contains(answer, `"FAIL"`) {
		t.Errorf("a wrong SdkAppid: %d %s (%v)", code, answer, err)
	}
	d.mustPost("/callbacks/chat?SdkAppid=1400000000"+query, string(body), 200)
	eventually(t, "the next event is there", func() bool { return len(d.lines("data/audit.jsonl")) == 2 })
	if got := d.metric(`callbackd_events_accepted_total{source="chat"}`); got != 2 {
		t.Errorf("%v events were accepted, want 2: the refused one must not be kept", got)
	}
	if got := d.metric(`callbackd_callbacks_total{code="403",source="chat"}`); got != 1 {
		t.Errorf("403 was counted %v times", got)
	}
}

// What goes in comes out: bytes that are no JSON and no UTF-8 too.
func TestRelayedBytesAreTheOnesThatCameIn(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	out := receive(t, "")
	d := start(t, t.TempDir(), fmt.Sprintf(`
source "http" "ci" {
  path = "/ci"
  verify "hmac" {
    header  = "X-Signature-256"
    prefix  = "sha256="
    secrets = ["s3cret-of-ci"]
  }
}
sink "webhook" "crm" {
  config {
    url             = "%s/in"
    signing_secrets = [env("SIGNING")]
  }
}
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
pipeline "all" {
  from = [source.ci]
  to   = [sink.crm, sink.audit]
}`, out.url), "SIGNING="+secret)

	samples := map[string][]byte{
		"json":      []byte("{\n  \"n\": 9007199254740993, \"a\": 1e400,\n \"a\": 2}"),
		"text":      []byte("plain text, \u0000 and \r\n line breaks"),
		"not UTF-8": {0xff, 0xfe, 0x00, 0x80, '\n', 0xc3},
		"empty":     {},
		"large":     bytes.Repeat([]byte{0, 1, 2, 0xff}, 200_000),
	}
	for name, body := range samples {
		// By `callbackd send`, so that signing and verifying are both real.
		file := filepath.Join(d.dir, strings.ReplaceAll(name, " ", "_")+".body")
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(programs, "callbackd"), "send", "--config", filepath.Join(d.dir, "config.hcl"), "--url", d.url,
			"--header", "Content-Type: application/x-"+strings.ReplaceAll(name, " ", "-"), file)
		cmd.Env = append(os.Environ(), "SIGNING="+secret)
		if text, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(text), "202 Accepted") {
			t.Fatalf("send %s: %v\n%s", name, err, text)
		}
	}
	d.mustPost("/ci", "not signed", http.StatusUnauthorized)
	eventually(t, "all were relayed", func() bool { return len(out.all()) >= len(samples) })
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range samples {
		contentType := "application/x-" + strings.ReplaceAll(name, " ", "-")
		i := slices.IndexFunc(out.all(), func(r received) bool { return r.header.Get("Content-Type") == contentType })
		if i < 0 {
			t.Errorf("%s was not relayed with its content type", name)
			continue
		}
		r := out.all()[i]
		if !bytes.Equal(r.body, body) {
			t.Errorf("%s was changed on its way: %d bytes became %d", name, len(body), len(r.body))
		}
		if err := hook.Verify(r.body, r.header); err != nil {
			t.Errorf("%s: the reference library does not verify the signature: %v", name, err)
		}
	}
	// The file sink has the same, as one line each.
	eventually(t, "all are in the file", func() bool { return len(d.lines("audit.jsonl")) == len(samples) })
	found := 0
	for _, line := range d.lines("audit.jsonl") {
		var ce struct {
			Data       json.RawMessage `json:"data"`
			DataBase64 *string         `json:"data_base64"`
		}
		if err := json.Unmarshal([]byte(line), &ce); err != nil {
			t.Fatalf("line %.100s: %v", line, err)
		}
		if bytes.Equal(ce.Data, []byte(`{"n":9007199254740993,"a":1e400,"a":2}`)) {
			found++
		}
		if ce.DataBase64 != nil {
			if b, err := base64.StdEncoding.DecodeString(*ce.DataBase64); err != nil || bytes.Equal(b, samples["not UTF-8"]) {
				found++
			}
		}
	}
	if found != 2 {
		t.Errorf("the JSON and the binary body are not both in the file as they came")
	}
}

// The three states of a delivery move the right counters, and Prometheus' own
// tool finds nothing to say about the scrape.
func TestMetrics(t *testing.T) {
	out := receive(t, "")
	out.answers(http.StatusServiceUnavailable)
	d := start(t, t.TempDir(), fmt.Sprintf(`
source "http" "in" { path = "/in" }
sink "webhook" "relay" {
  config { url = %q }
  retry {
    min_backoff = "50ms"
    max_backoff = "100ms"
  }
}
pipeline "all" {
  from  = [source.in]
  match = event.data.skip == null
  to    = [sink.relay]
}`, out.url))
	const relay = `sink="relay"`
	// Everything is there before the first callback.
	for _, series := range []string{
		`callbackd_attempts_total{outcome="delivered",` + relay + `}`, `callbackd_attempts_total{outcome="rejected",` + relay + `}`,
		`callbackd_attempts_total{outcome="retry",` + relay + `}`, `callbackd_attempts_total{outcome="throttled",` + relay + `}`,
		`callbackd_deliveries_total{result="delivered",` + relay + `}`, `callbackd_deliveries_total{result="dead",` + relay + `}`, `callbackd_deliveries_total{result="dropped",` + relay + `}`,
		`callbackd_dead_letters_total{reason="rejected",` + relay + `}`, `callbackd_dead_letters_kept{` + relay + `}`,
		`callbackd_queue_deliveries{` + relay + `,state="pending"}`, `callbackd_queue_oldest_pending_seconds{` + relay + `}`,
		`callbackd_sink_restarts_total{` + relay + `}`, `callbackd_events_accepted_total{source="in"}`, `callbackd_events_unrouted_total{source="in"}`,
		`callbackd_callbacks_total{code="202",source="in"}`, `callbackd_pipeline_matches_total{pipeline="all"}`,
	} {
		if got := d.metric(series); got != 0 {
			t.Errorf("%s = %v before the first callback, want 0", series, got)
		}
	}

	d.mustPost("/in", `{"n":1}`, http.StatusAccepted)
	eventually(t, "it is retried", func() bool { return d.metric(`callbackd_attempts_total{outcome="retry",`+relay+`}`) >= 2 })
	if got := d.metric(`callbackd_deliveries_total{result="delivered",` + relay + `}`); got != 0 {
		t.Errorf("delivered %v while the receiver was down", got)
	}
	out.answers(http.StatusOK)
	d.eventuallyMetric(`callbackd_deliveries_total{result="delivered",`+relay+`}`, 1)
	d.eventuallyMetric(`callbackd_attempts_total{outcome="delivered",`+relay+`}`, 1)

	out.answers(http.StatusGone)
	d.mustPost("/in", `{"n":2}`, http.StatusAccepted)
	d.eventuallyMetric(`callbackd_deliveries_total{result="dead",`+relay+`}`, 1)
	d.eventuallyMetric(`callbackd_dead_letters_total{reason="rejected",`+relay+`}`, 1)
	d.eventuallyMetric(`callbackd_dead_letters_kept{`+relay+`}`, 1)
	d.eventuallyMetric(`callbackd_queue_deliveries{`+relay+`,state="pending"}`, 0)

	d.mustPost("/in", `{"skip":true}`, http.StatusAccepted)
	d.eventuallyMetric(`callbackd_events_unrouted_total{source="in"}`, 1)
	d.eventuallyMetric(`callbackd_events_accepted_total{source="in"}`, 3)
	d.eventuallyMetric(`callbackd_pipeline_matches_total{pipeline="all"}`, 2)
	d.eventuallyMetric(`callbackd_sink_up{`+relay+`}`, 1)
	if code, _, err := d.post("/nowhere", "", nil); err != nil || code != http.StatusNotFound {
		t.Errorf("POST /nowhere: %d (%v)", code, err)
	}
	d.eventuallyMetric(`callbackd_callbacks_total{code="404",source="unknown"}`, 1)
	if got := d.metric(`callbackd_queue_bytes`); got <= 0 {
		t.Errorf("the dead letter is kept, but callbackd_queue_bytes = %v", got)
	}

	// What the plugin counts itself is shown with the daemon's, a few seconds later.
	d.eventuallyMetric(`callbackd_plugin_webhook_responses_total{class="2xx",`+relay+`}`, 1)
	if got := d.metric(`callbackd_plugin_webhook_responses_total{class="5xx",` + relay + `}`); got < 2 {
		t.Errorf("%v answers of the class 5xx, want 2 at least", got)
	}
	promtool := os.Getenv("CALLBACKD_PROMTOOL")
	if promtool == "" {
		t.Skip("promtool is not there: make check installs it and sets CALLBACKD_PROMTOOL")
	}
	_, scrape := d.get("/metrics")
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(scrape)
	if text, err := cmd.CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, text)
	}
}

// A stop finishes what is in flight, and exits with 0.
func TestStopFinishesWhatIsInFlight(t *testing.T) {
	d := start(t, t.TempDir(), `
source "http" "in" { path = "/in" }
sink "fault" "slow" {
  config {
    latency  = "1s"
    record   = "delivered"
  }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.slow]
}`)
	for range 3 {
		d.mustPost("/in", "x", http.StatusAccepted)
	}
	eventually(t, "they are in flight", func() bool {
		return d.metric(`callbackd_queue_deliveries{sink="slow",state="in_flight"}`) == 3
	})
	began := time.Now()
	d.stop()
	// The last line says that the sink was closed in good order.
	if lines := d.lines("delivered"); len(lines) != 4 || lines[3] != "closed" {
		t.Errorf("of 3 deliveries the stop, which took %v, finished %q", time.Since(began), lines)
	}
	if pids := d.pluginPIDs("callbackd-sink-"); len(pids) > 0 {
		t.Errorf("plugins are left over: %v", pids)
	}
}
