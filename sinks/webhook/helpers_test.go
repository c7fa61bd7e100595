package main

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/callbackd/callbackd/plugins/sink"
	"github.com/callbackd/callbackd/plugins/sinktest"
)

func TestMain(m *testing.M) {
	sinktest.Plugin(main)
	goleak.VerifyTestMain(m)
}

// The test vector of Standard Webhooks.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTimestamp = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func sampleEvent() sink.Event {
	return sink.Event{
		DeliveryID:  "01K9Z3V7Q4S0N8W2XJ5T6RBYCD_0123456789ab",
		ID:          "01K9Z3V7Q4S0N8W2XJ5T6RBYCD",
		Source:      "chat",
		Type:        "Group.CallbackAfterGroupInfoChanged",
		Subject:     "@TGS#2J4SZEAEL",
		Time:        time.Date(2026, 8, 1, 12, 30, 15, 250e6, time.UTC),
		Accepted:    time.Date(2026, 8, 1, 12, 30, 16, 0, time.UTC),
		ContentType: "application/json",
		Body:        []byte(`{"GroupId":"@TGS#2J4SZEAEL"}`),
		Pipeline:    "group-profile",
		Attempt:     1,
	}
}

// writePEM writes DER blocks of one type into a file and returns its path.
func writePEM(tb testing.TB, kind string, blocks ...[]byte) string {
	tb.Helper()
	var content []byte
	for _, der := range blocks {
		content = append(content, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	name := filepath.Join(tb.TempDir(), "file.pem")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}

// withDefaults fills in what the schema's defaults would.
func withDefaults(c Config) Config {
	if c.Method == "" {
		c.Method = "POST"
	}
	if c.Format == "" {
		c.Format = formatBody
	}
	if c.FinalStatus == nil {
		c.FinalStatus = []int{400, 404, 405, 410, 413, 414, 415, 422, 501}
	}
	return c
}

func openWebhook(tb testing.TB, c Config) *webhook { return openOver(tb, c, newTransport) }

func openOver[T transport](tb testing.TB, c Config, connect func(route, func() time.Time) (T, error)) *webhook {
	tb.Helper()
	w, err := newWebhook(withDefaults(c), time.Now, connect)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = w.Close(context.Background()) })
	return w
}

// opener opens a sink that the test closes at its end.
type opener func(testing.TB, Config) *webhook

// transports are the one that a URL gets by itself, and net/http for all.
func transports() map[string]opener {
	return map[string]opener{
		"chosen":  openWebhook,
		"nethttp": func(tb testing.TB, c Config) *webhook { return openOver(tb, c, newNetHTTP) },
	}
}

// overEachTransport runs a test with all transports: what is promised does not
// depend on which one there is.
func overEachTransport(t *testing.T, test func(*testing.T, opener)) {
	for name, open := range transports() {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func deadline(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func wantOutcome(t *testing.T, err error, outcome sink.Outcome, after time.Duration) {
	t.Helper()
	gotOutcome, gotAfter := sink.OutcomeOf(err)
	if gotOutcome != outcome || gotAfter != after {
		t.Errorf("got %s after %v (%v), want %s after %v", gotOutcome, gotAfter, err, outcome, after)
	}
}

// receiver is an HTTP server that keeps the requests it got.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []received
	dead atomic.Int64 // connections closed
	made atomic.Int64 // connections accepted
}

type received struct {
	*http.Request
	body []byte
}

// newReceiver starts one that answers with the handler, or 204 when it is nil.
func newReceiver(tb testing.TB, answer http.HandlerFunc) *receiver {
	r := unstartedReceiver(tb, answer)
	r.Start()
	return r
}

func unstartedReceiver(tb testing.TB, answer http.HandlerFunc) *receiver {
	tb.Helper()
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the sender went away
		}
		r.mu.Lock()
		r.got = append(r.got, received{req, body})
		r.mu.Unlock()
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, req)
	}))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			r.made.Add(1)
		case http.StateClosed:
			r.dead.Add(1)
		}
	}
	tb.Cleanup(r.Close)
	return r
}

// only returns the one request there was.
func (r *receiver) only(t *testing.T) received {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got) != 1 {
		t.Fatalf("the receiver got %d requests, want 1", len(r.got))
	}
	return r.got[0]
}

// last is the request that came last.
func (r *receiver) last() received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[len(r.got)-1]
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// rawReceiver accepts connections and lets serve have each.
func rawReceiver(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			group.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return listener.Addr().String()
}
