package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// reloadConfig is the configuration of TestReloads. What is not empty comes after it.
func reloadConfig(version int, port, more string) string {
	extra := ""
	if version%2 == 1 { // a sink that comes and goes
		extra = `
sink "file" "sometimes" {
  config { path = "sometimes.jsonl" }
}
pipeline "sometimes" {
  from = [source.in]
  to   = [sink.sometimes]
}
`
	}
	return fmt.Sprintf(`
listen { address = "127.0.0.1:%s" }
admin { address = "127.0.0.1:0" }
shutdown_grace = "5s"
plugin "file" {
  tls = false
  %s
}
source "http" "in" { path = "/in" }
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
sink "file" "tuned" { # only what the daemon does with it changes
  max_in_flight = %d
  config { path = "tuned.jsonl" }
}
sink "file" "moved" { # its process is another one each time
  config {
    path   = "moved-%d.jsonl"
    format = "body"
  }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.audit, sink.tuned]
}
pipeline "moved" {
  from  = [source.in]
  match = event.headers["x-probe"] == "yes"
  to    = [sink.moved]
  transform {
    body         = "version %d"
    content_type = "text/plain"
  }
}
%s%s`, port, endAtOnce(), 1+version%7, version%3, version, extra, more)
}

// broken are configurations that must not take effect: what is added, and what the
// answer says.
var broken = []struct {
	name, more string
	code       int
	says       string
}{
	{"syntax", `pipeline "x" {`, 422, "config.hcl:"},
	{"an unknown sink", `pipeline "x" {
  from = [source.in]
  to   = [sink.audti]
}`, 422, "audit"},
	{"a wrong setting", `sink "file" "x" {
  config { paht = "misspelt.jsonl" }
}`, 422, "paht"},
	{"a plugin that does not start", `plugin "fault" {
  tls = false
  env = { FAULTSINK_START = "exit:7" }
}
sink "fault" "x" {
}`, 500, `sink \"x\"`},
	{"a plugin that dies of its settings", `plugin "fault" { tls = false }
sink "fault" "x" {
  config { on_configure = "exit" }
}`, 500, `sink \"x\"`},
	{"a plugin that refuses its settings", `sink "webhook" "x" {
  config { url = "ftp://example.com/" }
}`, 422, "url"},
	{"a sink that cannot be opened", `sink "file" "x" {
  config { path = "audit.jsonl/x.jsonl" }
}`, 500, "x.jsonl"},
	{"what takes a restart", `log { level = "debug" }`, 422, "log"},
}

// TestReloads reloads again and again under load, half of the times something that
// is wrong. CALLBACKD_RELOADS says how often.
func TestReloads(t *testing.T) {
	times := 20
	if n, err := strconv.Atoi(os.Getenv("CALLBACKD_RELOADS")); err == nil {
		times = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("CALLBACKD_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("CALLBACKD_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	port := freePort(t)
	d := start(t, dir, reloadConfig(0, port, ""))
	file := filepath.Join(dir, "config.hcl")

	var accepted sync.Map
	var sent, refused atomic.Int64
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				code, answer, err := d.post("/in", "application/json", fmt.Appendf(nil, `{"n":%d}`, sent.Add(1)))
				var id struct{ ID string }
				if err != nil || code != http.StatusAccepted || json.Unmarshal([]byte(answer), &id) != nil {
					refused.Add(1)
					t.Errorf("a callback was answered %d %s (%v)", code, answer, err)
					return
				}
				accepted.Store(id.ID, true)
			}
		})
	}

	version, good := 0, 0
	var goroutines float64
	for i := range times {
		if random.IntN(2) == 0 {
			b := broken[random.IntN(len(broken))]
			write(t, file, reloadConfig(version+1, port, b.more))
			code, answer := d.reload()
			if code != b.code || !strings.Contains(answer, b.says) {
				t.Fatalf("reload %d, %s: %d %s, want %d and %q\n%s", i, b.name, code, answer, b.code, b.says, d.logEnd())
			}
			if got := d.metric("callbackd_config_last_reload_successful"); got != 0 {
				t.Fatalf("reload %d, %s: it counts as %v", i, b.name, got)
			}
		} else {
			version++
			good++
			write(t, file, reloadConfig(version, port, ""))
			if code, answer := d.reload(); code != http.StatusOK {
				t.Fatalf("reload %d: %d %s\n%s", i, code, answer, d.logEnd())
			}
			if got := d.metric("callbackd_config_last_reload_successful"); got != 1 {
				t.Fatalf("reload %d: it counts as %v", i, got)
			}
		}
		d.probe(version)
		if i == 10 {
			goroutines = d.metric("go_goroutines")
		}
	}
	close(stop)
	senders.Wait()

	want := 0
	accepted.Range(func(any, any) bool { want++; return true })
	for _, name := range []string{"audit.jsonl", "tuned.jsonl"} {
		missing := want
		eventually(t, fmt.Sprintf("%d accepted callbacks in %s", want, name), func() bool {
			missing = want
			seen := map[string]bool{}
			for _, line := range d.lines(name) {
				var ev struct{ ID string }
				if json.Unmarshal([]byte(line), &ev) == nil && !seen[ev.ID] {
					if _, ok := accepted.Load(ev.ID); ok {
						missing--
					}
					seen[ev.ID] = true
				}
			}
			return missing == 0
		})
	}
	// One process for each sink, and nothing besides.
	sinks := 3 + version%2
	eventually(t, fmt.Sprintf("%d plugins are left", sinks), func() bool { return len(d.pluginPIDs("callbackd-sink-")) == sinks })
	eventually(t, "no goroutine is left over", func() bool { return goroutines == 0 || d.metric("go_goroutines") <= goroutines+40 })
	t.Logf("%d reloads, %d of them good; %d callbacks accepted, %d refused; goroutines %v, then %v",
		times, good, want, refused.Load(), goroutines, d.metric("go_goroutines"))

	// SIGHUP does the same.
	version++
	write(t, file, reloadConfig(version, port, ""))
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.eventuallyProbe(version)

	// Nobody gets an answer to a signal: the log says what is wrong.
	write(t, file, reloadConfig(version, port, strings.ReplaceAll(broken[1].more, "audti", "nobodys")))
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	mistake := regexp.MustCompile(`problems=1 first="\S*config\.hcl:\d+:\d+: Unknown sink \\"nobodys`)
	eventually(t, "the log names the mistake", func() bool { return mistake.MatchString(d.log()) })
	d.probe(version)
}

// TestReloadTellsWhatItLeavesBehind: whoever takes away a sink that has deliveries
// hears of them at once.
func TestReloadTellsWhatItLeavesBehind(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	without := fmt.Sprintf(`
listen { address = "127.0.0.1:%s" }
admin { address = "127.0.0.1:0" }
source "http" "in" { path = "/in" }
`, port)
	d := start(t, dir, without+fmt.Sprintf(`
sink "webhook" "away" {
  config { url = "http://%s/" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.away]
}
`, freeAddress(t)))
	for range 3 {
		d.mustPost("/in", "{}", http.StatusAccepted)
	}
	write(t, filepath.Join(dir, "config.hcl"), without)
	code, text := d.reload()
	var answer struct {
		Removed  []string
		Warnings []struct{ Summary, Detail string }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != http.StatusOK || !slices.Equal(answer.Removed, []string{"away"}) {
		t.Fatalf("%d %s (%v)", code, text, err)
	}
	const want = `sink "away" is gone, 3 deliveries wait for it`
	if !slices.ContainsFunc(answer.Warnings, func(w struct{ Summary, Detail string }) bool {
		return w.Summary == want && strings.Contains(w.Detail, "deadletter redrive --orphans --sink away")
	}) {
		t.Errorf("the answer does not warn: %s", text)
	}
	eventually(t, "the log warns", func() bool { return strings.Contains(d.log(), strings.ReplaceAll(want, `"`, `\"`)) })
}

// TestReloadDeletesNoDeadLetters: one more sink makes the shares of the others smaller.
// What that would delete keeps the reload from taking effect.
func TestReloadDeletesNoDeadLetters(t *testing.T) {
	out := receive(t, "")
	out.answers(http.StatusBadRequest)
	dir, port := t.TempDir(), freePort(t)
	config := func(more string) string {
		return fmt.Sprintf(`
listen { address = "127.0.0.1:%s" }
admin { address = "127.0.0.1:0" }
queue { max_bytes = "12MiB" }
source "http" "in" { path = "/in" }
plugin "webhook" {
  tls = false
  %s
}
sink "webhook" "crm" {
  config { url = "%s/" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.crm]
}
%s`, port, endAtOnce(), out.url, more)
	}
	const (
		letters = 40 // of 64 KiB: less than the 6 MiB of one sink, more than the 2 MiB of each of two
		another = `sink "webhook" "another" {
  config { url = "http://127.0.0.1:1/" }
}`
	)
	d := start(t, dir, config(""))
	post := func() { d.mustPost("/in", `{"filler":"`+strings.Repeat("x", 64<<10)+`"}`, http.StatusAccepted) }
	for range letters {
		post()
	}
	d.eventuallyMetric(`callbackd_dead_letters_kept{sink="crm"}`, letters)
	write(t, filepath.Join(dir, "config.hcl"), config(another))
	code, answer := d.reload()
	if code != http.StatusUnprocessableEntity || !strings.Contains(answer, "would be deleted for good") {
		t.Errorf("%d %s", code, answer)
	}
	d.eventuallyMetric(`callbackd_config_last_reload_successful`, 0)
	post() // what is beyond a limit goes with the next one
	d.eventuallyMetric(`callbackd_dead_letters_kept{sink="crm"}`, letters+1)
	d.eventuallyMetric(`callbackd_dead_letters_discarded_total{cause="size",sink="crm"}`, 0)

	write(t, filepath.Join(dir, "config.hcl"), strings.Replace(config(another), "config { url", "dead_letter { max_bytes = \"6MiB\" }\n  config { url", 1))
	if code, answer = d.reload(); code != http.StatusOK {
		t.Errorf("%d %s", code, answer)
	}
	post()
	d.eventuallyMetric(`callbackd_dead_letters_kept{sink="crm"}`, letters+2)
}

// reload asks for a reload.
func (d *daemon) reload() (int, string) {
	resp, err := http.Post(d.admin+"/-/reload", "", nil)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// probe sends a callback, and checks which version of the configuration it meets.
func (d *daemon) probe(version int) {
	d.t.Helper()
	name := fmt.Sprintf("moved-%d.jsonl", version%3)
	before := len(d.lines(name))
	d.sendProbe()
	want := fmt.Sprintf("version %d", version)
	eventually(d.t, "a callback is delivered", func() bool { return len(d.lines(name)) > before })
	if lines := d.lines(name); lines[len(lines)-1] != want {
		d.t.Fatalf("%s has %q at its end, want %q", name, lines[len(lines)-1], want)
	}
}

func (d *daemon) eventuallyProbe(version int) {
	d.t.Helper()
	name, want := fmt.Sprintf("moved-%d.jsonl", version%3), fmt.Sprintf("version %d", version)
	eventually(d.t, want, func() bool {
		d.sendProbe()
		lines := d.lines(name)
		return len(lines) > 0 && lines[len(lines)-1] == want
	})
}

func (d *daemon) sendProbe() {
	d.t.Helper()
	req, err := http.NewRequest(http.MethodPost, d.url+"/in", strings.NewReader("{}"))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("X-Probe", "yes")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		d.t.Fatalf("a callback was answered %s", resp.Status)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// freePort returns a port that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err := errors.Join(err, ln.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}
