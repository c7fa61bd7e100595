package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept is an appender in memory.
type kept struct {
	mu     sync.Mutex
	events []*event.Event
	routes [][]event.Route
	ctxErr error
	err    error

	onces   map[string]ulid.ULID
	windows []time.Duration
	hook    func(context.Context)
}

func (k *kept) Append(ctx context.Context, ev *event.Event, routes []event.Route) error {
	if k.hook != nil {
		k.hook(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ctxErr = ctx.Err()
	if k.err != nil {
		return k.err
	}
	k.events = append(k.events, ev)
	k.routes = append(k.routes, routes)
	return nil
}

func (k *kept) AppendOnce(ctx context.Context, ev *event.Event, routes []event.Route, once event.Once) (ulid.ULID, error) {
	k.mu.Lock()
	first, again := k.onces[once.Key]
	k.mu.Unlock()
	if again {
		return first, nil
	}
	if err := k.Append(ctx, ev, routes); err != nil {
		return ulid.ULID{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.onces == nil {
		k.onces = make(map[string]ulid.ULID)
	}
	k.onces[once.Key] = ev.ID
	k.windows = append(k.windows, once.Window)
	return ev.ID, nil
}

func (k *kept) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.events)
}

// fixed routes every event the same way.
type fixed []event.Route

func (f fixed) Route(*event.View) []event.Route { return f }

func oneRoute() fixed { return fixed{{Pipeline: "p", Sink: "s"}} }

// rig is a server with all that is around it.
type rig struct {
	*Server
	kept *kept
	on   frontName
	ways *plain // of do; nil on net/http
	reg  *prometheus.Registry
	log  *syncBuffer
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func testSettings() ServerSettings {
	return ServerSettings{
		MaxConnections:    64,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      5 * time.Second,
		IdleTimeout:       5 * time.Second,
		MaxHeaderBytes:    64 << 10,
		Grace:             5 * time.Second,
	}
}

func newRig(t testing.TB, on frontName, settings ServerSettings, router Router, sources ...SourceSettings) *rig {
	t.Helper()
	r := &rig{on: on, kept: &kept{}, reg: prometheus.NewRegistry(), log: &syncBuffer{}}
	logger := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.Server, err = NewServer(settings, r.kept, NewMetrics(r.reg), logger); err != nil {
		t.Fatal(err)
	}
	var all []*Source
	for _, s := range sources {
		src, err := NewSource(s, logger)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, src)
	}
	if err := r.Use(all, router, []string{"p"}); err != nil {
		t.Fatal(err)
	}
	if on == onPlain {
		r.ways = r.newPlain()
		r.ways.room = make(chan struct{}, 1<<10) // serve is what waits for room
	}
	return r
}

// do serves a request and returns the answer.
func (r *rig) do(req *http.Request) *httptest.ResponseRecorder {
	if r.ways != nil {
		return r.doPlain(req)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func post(url, body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, url, strings.NewReader(body))
}

// unsized hides the length of a body, as a chunked request does.
func unsized(req *http.Request, body io.Reader) *http.Request {
	req.Body = io.NopCloser(body)
	req.ContentLength = -1
	return req
}

func tencentSource() SourceSettings {
	return SourceSettings{
		Type: "tencent_im", Name: "chat", Path: "/chat", MaxBody: 1 << 20,
		Tencent: &Tencent{SDKAppIDs: []uint64{1400000000, 1400000001}},
	}
}

func httpSource() SourceSettings {
	return SourceSettings{Type: "http", Name: "ci", Path: "/ci", MaxBody: 1 << 20}
}

// signed returns Sign and RequestTime as a query.
func signed(token string, at time.Time) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	sum := sha256.Sum256([]byte(token + seconds))
	return "&RequestTime=" + seconds + "&Sign=" + hex.EncodeToString(sum[:])
}

func testTime() time.Time { return time.Date(2025, 11, 18, 12, 0, 0, 0, time.UTC) }
