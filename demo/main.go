// Command demo shows callbackd at work, on loopback only: it starts two
// receivers (one answers as Slack's incoming webhooks do), runs the daemon on
// demo.hcl, sends every sample through `callbackd send`, prints what each sink
// received and which metrics moved, and ends everything it started.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Everything here is over after this long, whatever happens.
const patience = 2 * time.Minute

const signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // a published test secret

func main() {
	bin := flag.String("bin", "bin", "the folder with callbackd and its sinks")
	samples := flag.String("samples", "testdata/samples/tencent_im", "the folder with the callbacks to send")
	config := flag.String("config", "demo/demo.hcl", "the configuration to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	err := demo(ctx, *bin, *samples, *config)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, bin, samples, config string) (err error) {
	bodies, err := filepath.Glob(filepath.Join(samples, "*.json"))
	if err != nil {
		return err
	}
	if len(bodies) == 0 {
		return fmt.Errorf("there are no samples in %s", samples)
	}
	slack, err := listen(ctx, &receiver{answer: answerLikeSlack})
	if err != nil {
		return err
	}
	defer slack.close()
	relay, err := listen(ctx, &receiver{answer: verifySignature})
	if err != nil {
		return err
	}
	defer relay.close()

	dir, err := os.MkdirTemp("", "callbackd-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "demo.hcl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	env := append(os.Environ(),
		"DEMO_TOKEN=xxxxyyyy", "DEMO_SIGNING_SECRET="+signingSecret,
		"DEMO_SLACK_URL="+slack.url+"/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX", "DEMO_RELAY_URL="+relay.url+"/callbacks")

	d, err := start(ctx, filepath.Join(bin, "callbackd"), file, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	before, err := d.scrape(ctx)
	if err != nil {
		return err
	}
	heading("callbackd send")
	send := exec.CommandContext(ctx, filepath.Join(bin, "callbackd"), append([]string{"send", "--config", file, "--url", d.callbacks}, bodies...)...)
	send.Env, send.Stdout, send.Stderr = env, os.Stdout, os.Stderr
	if err := send.Run(); err != nil {
		return fmt.Errorf("callbackd send: %w", err)
	}
	after, err := d.delivered(ctx)
	if err != nil {
		return err
	}

	heading("sink \"audit\" (file) wrote")
	lines, err := os.ReadFile(filepath.Join(dir, "data", "audit.jsonl"))
	if err != nil {
		return err
	}
	fmt.Print(string(lines))
	heading("sink \"ops\" (slack) posted")
	fmt.Println(slack.text())
	heading("sink \"crm\" (webhook) relayed, each verified with the Standard Webhooks library")
	fmt.Println(relay.text())
	heading("metrics that moved")
	after.printMoved(before)

	if posted := slack.text(); !strings.Contains(posted, `&lt;!channel&gt;`) || strings.Contains(posted, `<!channel>`) {
		return errors.New("a group name that would alert the whole channel was not escaped")
	}
	groups := 0
	for _, b := range bodies {
		if strings.HasPrefix(filepath.Base(b), "group_") {
			groups++
		}
	}
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"lines in the audit file", bytes.Count(lines, []byte("\n")), len(bodies)},
		{"posts to Slack", slack.count(), groups},
		{"relayed callbacks", relay.count(), groups},
	} {
		if c.got < c.want {
			return fmt.Errorf("%d %s, expected %d", c.got, c.what, c.want)
		}
	}
	return nil
}

func heading(text string) { fmt.Printf("\n== %s\n", text) }

// receiver is an HTTP server that remembers what it was sent.
type receiver struct {
	// answer answers, and says what is to be remembered.
	answer func(w http.ResponseWriter, r *http.Request, body []byte) (seen string)

	url    string
	server *http.Server
	served chan struct{}

	mu   sync.Mutex
	seen []string
}

func listen(ctx context.Context, r *receiver) (*receiver, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.url, r.served = "http://"+ln.Addr().String(), make(chan struct{})
	r.server = &http.Server{Handler: r, ReadTimeout: 10 * time.Second}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(ln) // ends by close
	}()
	return r, nil
}

func (r *receiver) close() {
	_ = r.server.Close()
	<-r.served
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil {
		return
	}
	seen := r.answer(w, req, body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, seen)
}

func (r *receiver) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.seen, "\n")
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// answerLikeSlack answers as an incoming webhook of Slack's does: "ok", or 400
// and a word in plain text.
func answerLikeSlack(w http.ResponseWriter, _ *http.Request, body []byte) string {
	var message struct {
		Text   string            `json:"text"`
		Blocks []json.RawMessage `json:"blocks"`
	}
	word, code := "ok", http.StatusOK
	switch err := json.Unmarshal(body, &message); {
	case err != nil:
		word, code = "invalid_payload", http.StatusBadRequest
	case message.Text == "" && len(message.Blocks) == 0:
		word, code = "no_text", http.StatusBadRequest
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, word)
	return message.Text + "  <- " + word
}

func verifySignature(w http.ResponseWriter, r *http.Request, body []byte) string {
	hook, err := standardwebhooks.NewWebhook(signingSecret)
	if err == nil {
		err = hook.Verify(body, r.Header)
	}
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return "not verified: " + err.Error()
	}
	return strings.TrimSpace(string(body)) + "  <- webhook-id " + r.Header.Get("webhook-id") + ", signature verified"
}

// daemon is a running callbackd.
type daemon struct {
	cmd                *exec.Cmd
	callbacks, metrics string
	drained            chan struct{}
}

var addresses = regexp.MustCompile(`(callbacks|metrics)\s+(http://[^/\s]+)(\S*)`)

// start runs the daemon and waits until it is ready.
func start(ctx context.Context, program, config string, env []string) (*daemon, error) {
	d := &daemon{cmd: exec.CommandContext(ctx, program, "run", "--config", config), drained: make(chan struct{})}
	d.cmd.Env, d.cmd.Stderr = env, os.Stderr
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 30 * time.Second
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon (make build builds it): %w", err)
	}
	heading("callbackd run")
	ready := make(chan struct{})
	go func() {
		defer close(d.drained)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Println(lines.Text())
			m := addresses.FindStringSubmatch(lines.Text())
			switch {
			case m == nil:
			case m[1] == "callbacks":
				d.callbacks = m[2]
			default:
				d.metrics = m[2] + m[3]
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
		return d, nil
	case <-d.drained:
		return nil, fmt.Errorf("the daemon did not start: %w", cmp.Or(d.cmd.Wait(), io.ErrUnexpectedEOF))
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), d.stop())
	}
}

func (d *daemon) stop() error {
	heading("SIGTERM")
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.drained
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the daemon ended badly: %w", err)
	}
	fmt.Println("callbackd ended with exit code 0")
	return nil
}

// figures are the samples of a scrape, by series.
type figures map[string]float64

func (d *daemon) scrape(ctx context.Context) (figures, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.metrics, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out := figures{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, ok := cutLast(lines.Text())
		if x, err := strconv.ParseFloat(value, 64); ok && err == nil && strings.HasPrefix(series, "callbackd_") {
			out[series] = x
		}
	}
	return out, lines.Err()
}

func cutLast(line string) (before, after string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

// delivered waits until nothing is pending any more.
func (d *daemon) delivered(ctx context.Context) (figures, error) {
	for {
		f, err := d.scrape(ctx)
		if err != nil {
			return nil, err
		}
		left := 0.0
		for series, x := range f {
			if strings.HasPrefix(series, "callbackd_queue_deliveries{") {
				left += x
			}
		}
		if left == 0 {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%v deliveries are still pending: %w", left, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (f figures) printMoved(before figures) {
	var names []string
	for series, x := range f {
		if x != before[series] && !strings.Contains(series, "_bucket{") && !strings.Contains(series, "_sum") {
			names = append(names, series)
		}
	}
	slices.Sort(names)
	for _, series := range names {
		fmt.Printf("%s %v\n", series, f[series])
	}
}
