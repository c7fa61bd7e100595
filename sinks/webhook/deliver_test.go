package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(b)
	return b
}

func TestBodyArrivesByteForByte(t *testing.T) { overEachTransport(t, testBodyArrivesByteForByte) }

func testBodyArrivesByteForByte(t *testing.T, openSink opener) {
	bodies := map[string][]byte{
		"JSON":            []byte("{ \"b\" : 1,\n \"b\":12345678901234567890 }"),
		"nil":             nil,
		"empty":           {},
		"one zero byte":   {0},
		"invalid UTF-8":   {'{', '"', 0xff, 0xc0, 0x80, '"', '}'},
		"line breaks":     []byte("\r\n\r\nPOST / HTTP/1.1\r\n\r\n"),
		"random":          randomBytes(5000),
		"1 MiB":           randomBytes(1 << 20),
		"larger than all": randomBytes(5 << 20),
	}
	for name, body := range bodies {
		for _, method := range []string{"POST", "PUT", "PATCH"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				r := newReceiver(t, nil)
				ev := sampleEvent()
				ev.Body = body
				if err := openSink(t, Config{URL: sink.NewSecret(r.URL + "/a%2Fb?x=1&x=2"), Method: method}).Deliver(t.Context(), ev); err != nil {
					t.Fatal(err)
				}
				got := r.only(t)
				if !bytes.Equal(got.body, body) {
					t.Errorf("got %d bytes that differ from the %d sent", len(got.body), len(body))
				}
				if got.Method != method || got.RequestURI != "/a%2Fb?x=1&x=2" {
					t.Errorf("got %s %s", got.Method, got.RequestURI)
				}
				if got.ContentLength != int64(len(body)) || len(got.TransferEncoding) > 0 {
					t.Errorf("Content-Length %d, Transfer-Encoding %v", got.ContentLength, got.TransferEncoding)
				}
			})
		}
	}
}

func TestContentTypeIsTheOneReceived(t *testing.T) {
	overEachTransport(t, testContentTypeIsTheOneReceived)
}

func testContentTypeIsTheOneReceived(t *testing.T, openSink opener) {
	for _, contentType := range []string{"", "application/json", "application/json; charset=GBK", "TEXT/plain;a=\"b c\"", "not a media type", "x/\xe9"} {
		for _, format := range []string{formatBody, formatBinary} {
			t.Run(fmt.Sprintf("%s/%q", format, contentType), func(t *testing.T) {
				r := newReceiver(t, nil)
				ev := sampleEvent()
				ev.ContentType = contentType
				if err := openSink(t, Config{URL: sink.NewSecret(r.URL), Format: format}).Deliver(t.Context(), ev); err != nil {
					t.Fatal(err)
				}
				got, present := r.only(t).Header["Content-Type"]
				if present != (contentType != "") || (present && got[0] != contentType) {
					t.Errorf("got %q", got)
				}
			})
		}
	}
	ev := sampleEvent()
	ev.ContentType = "a/b\r\nX-Evil: 1"
	r := newReceiver(t, nil)
	wantOutcome(t, openSink(t, Config{URL: sink.NewSecret(r.URL)}).Deliver(t.Context(), ev), sink.OutcomeRejected, 0)
	if r.count() != 0 {
		t.Error("the receiver got a request")
	}
}

// What the sink sends and nothing besides: no Accept-Encoding, no Go user agent.
func TestHeadersOfARequest(t *testing.T) { overEachTransport(t, testHeadersOfARequest) }

func testHeadersOfARequest(t *testing.T, openSink opener) {
	tests := []struct {
		format string
		want   []string
	}{
		{formatBody, []string{"Content-Length", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp"}},
		{formatBinary, []string{"Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Subject", "Ce-Time", "Ce-Type", "Content-Length", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp"}},
		{formatStructured, []string{"Content-Length", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp"}},
	}
	for _, test := range tests {
		t.Run(test.format, func(t *testing.T) {
			r := newReceiver(t, nil)
			if err := openSink(t, Config{URL: sink.NewSecret(r.URL), Format: test.format}).Deliver(t.Context(), sampleEvent()); err != nil {
				t.Fatal(err)
			}
			var names []string
			for name := range r.only(t).Header {
				names = append(names, name)
			}
			slices.Sort(names)
			if !slices.Equal(names, test.want) {
				t.Errorf("got %q, want %q", names, test.want)
			}
			if agent := r.only(t).Header.Get("User-Agent"); agent != "callbackd/"+version {
				t.Errorf("User-Agent %q", agent)
			}
		})
	}
}

func TestCloudEventsBinary(t *testing.T) { overEachTransport(t, testCloudEventsBinary) }

func testCloudEventsBinary(t *testing.T, openSink opener) {
	r := newReceiver(t, nil)
	ev := sampleEvent()
	ev.Subject = "Euro € 😀\r\nX-Evil: 1"
	if err := openSink(t, Config{URL: sink.NewSecret(r.URL), Format: formatBinary}).Deliver(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	got := r.only(t)
	for name, want := range map[string]string{
		"ce-specversion": "1.0",
		"ce-id":          ev.ID,
		"ce-source":      "/chat",
		"ce-type":        ev.Type,
		"ce-subject":     "Euro%20%E2%82%AC%20%F0%9F%98%80%0D%0AX-Evil:%201",
		"ce-time":        "2026-08-01T12:30:15.25Z",
		"content-type":   "application/json",
	} {
		if values := got.Header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s: got %q, want %q", name, values, want)
		}
	}
	if !bytes.Equal(got.body, ev.Body) {
		t.Errorf("body %q", got.body)
	}

	ev.Subject = ""
	if err := openSink(t, Config{URL: sink.NewSecret(r.URL), Format: formatBinary}).Deliver(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	if values, ok := r.last().Header["Ce-Subject"]; ok {
		t.Errorf("an event without subject has ce-subject %q", values)
	}
}

func TestCloudEventsStructured(t *testing.T) { overEachTransport(t, testCloudEventsStructured) }

func testCloudEventsStructured(t *testing.T, openSink opener) {
	r := newReceiver(t, nil)
	ev := sampleEvent()
	if err := openSink(t, Config{URL: sink.NewSecret(r.URL), Format: formatStructured}).Deliver(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	got := r.only(t)
	if contentType := got.Header.Get("Content-Type"); contentType != "application/cloudevents+json" {
		t.Errorf("Content-Type %q", contentType)
	}
	if want := ev.AppendCloudEvent(nil); !bytes.Equal(got.body, want) {
		t.Errorf("body %q, want %q", got.body, want)
	}
	var decoded struct {
		SpecVersion, ID, Source, Type string
		Data                          json.RawMessage
	}
	if err := json.Unmarshal(got.body, &decoded); err != nil {
		t.Fatal(err)
	}
	if decoded.SpecVersion != "1.0" || decoded.ID != ev.ID || decoded.Source != "/chat" || decoded.Type != ev.Type || !bytes.Equal(decoded.Data, ev.Body) {
		t.Errorf("got %+v", decoded)
	}
}

func TestConfiguredHeaders(t *testing.T) { overEachTransport(t, testConfiguredHeaders) }

func testConfiguredHeaders(t *testing.T, openSink opener) {
	perEvent := sink.FromEvent(func(ev sink.Event) (map[string]string, bool) {
		if ev.ID == "" {
			return nil, false // as from the daemon: no event, no value
		}
		return map[string]string{"X-Type": ev.Type, "X-Empty": "", "authorization": "Bearer t"}, true
	})
	tests := []struct {
		name      string
		url       string // prefix of the address: user information
		headers   sink.PerEvent[map[string]string]
		transform map[string]string
		want      map[string]string // "-": is not there
	}{
		{
			name:    "fixed",
			headers: sink.Fixed(map[string]string{"x-a": "1", "X-B": "two words", "X-None": ""}),
			want:    map[string]string{"X-A": "1", "X-B": "two words", "X-None": "-"},
		},
		{
			name: "per event", headers: perEvent,
			want: map[string]string{"X-Type": sampleEvent().Type, "X-Empty": "-", "Authorization": "Bearer t"},
		},
		{
			name: "the sink's own win over the transform's", headers: sink.Fixed(map[string]string{"x-a": "sink"}),
			transform: map[string]string{"X-A": "transform", "X-B": "transform"},
			want:      map[string]string{"X-A": "sink", "X-B": "transform"},
		},
		{
			name: "an empty one removes the transform's", headers: sink.Fixed(map[string]string{"X-A": ""}),
			transform: map[string]string{"X-A": "transform"},
			want:      map[string]string{"X-A": "-"},
		},
		{
			name: "both win over what came with the event", headers: sink.Fixed(map[string]string{"user-agent": "ops/1"}),
			transform: map[string]string{"content-type": "text/csv"},
			want:      map[string]string{"User-Agent": "ops/1", "Content-Type": "text/csv"},
		},
		{
			name: "empty ones remove what the sink would send", headers: sink.Fixed(map[string]string{"User-Agent": "", "Content-Type": ""}),
			want: map[string]string{"User-Agent": "-", "Content-Type": "-"},
		},
		{
			name: "host", headers: sink.Fixed(map[string]string{"Host": "crm.example.com"}),
			want: map[string]string{"Host": "crm.example.com"},
		},
		{
			name: "basic authentication", url: "user:p%40ss@",
			want: map[string]string{"Authorization": "Basic dXNlcjpwQHNz"},
		},
		{
			name: "authorization wins over the URL's", url: "user:pass@", headers: sink.Fixed(map[string]string{"Authorization": "Bearer t"}),
			want: map[string]string{"Authorization": "Bearer t"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newReceiver(t, nil)
			ev := sampleEvent()
			ev.Headers = test.transform
			url := strings.Replace(r.URL, "http://", "http://"+test.url, 1)
			if err := openSink(t, Config{URL: sink.NewSecret(url), Headers: test.headers}).Deliver(t.Context(), ev); err != nil {
				t.Fatal(err)
			}
			got := r.only(t)
			got.Header.Set("Host", got.Host)
			for name, want := range test.want {
				values := got.Header[name]
				if want == "-" {
					if len(values) != 0 {
						t.Errorf("%s: got %q, want none", name, values)
					}
				} else if len(values) != 1 || values[0] != want {
					t.Errorf("%s: got %q, want %q", name, values, want)
				}
			}
		})
	}
}

// A header that an event makes impossible convicts that event, is named, and its
// value is not shown.
func TestHeadersThatCannotBeSent(t *testing.T) { overEachTransport(t, testHeadersThatCannotBeSent) }

func testHeadersThatCannotBeSent(t *testing.T, openSink opener) {
	tests := []struct {
		format, name, value string
		want                error
	}{
		{formatBody, "X-Name", "topsecret\r\nX-Evil: 1", errHeaderValue},
		{formatBody, "X-Name", "topsecret\x00", errHeaderValue},
		{formatBody, "X Name", "topsecret", errHeaderName},
		{formatBody, "", "topsecret", errHeaderName},
		{formatBody, "X-Ünicode", "topsecret", errHeaderName},
		{formatBody, "X-Name:", "topsecret", errHeaderName},
		{formatBody, "connection", "topsecret", errHeaderHop},
		{formatBody, "Content-Length", "topsecret", errHeaderHop},
		{formatBody, "transfer-encoding", "topsecret", errHeaderHop},
		{formatBody, "Proxy-Authorization", "topsecret", errHeaderHop},
		{formatBody, "Expect", "topsecret", errHeaderHop},
		{formatBody, "TE", "topsecret", errHeaderHop},
		{formatBody, "webhook-id", "topsecret", errHeaderReserved},
		{formatBody, "Webhook-Signature", "topsecret", errHeaderReserved},
		{formatBody, "WEBHOOK-TIMESTAMP", "topsecret", errHeaderReserved},
		{formatBody, "host", "topsecret/path", errHeaderHost},
		{formatBody, "host", "", errHeaderHost},
		{formatBinary, "ce-id", "topsecret", errHeaderReserved},
		{formatStructured, "Content-Type", "topsecret", errHeaderReserved},
	}
	for _, test := range tests {
		t.Run(test.format+"/"+test.name, func(t *testing.T) {
			r := newReceiver(t, nil)
			headers := map[string]string{test.name: test.value}
			check := func(err error) {
				t.Helper()
				wantOutcome(t, err, sink.OutcomeRejected, 0)
				if !errors.Is(err, test.want) || strings.Contains(err.Error(), "topsecret") {
					t.Errorf("got %v, want %v", err, test.want)
				}
			}
			perEvent := sink.FromEvent(func(ev sink.Event) (map[string]string, bool) { return headers, ev.ID != "" })
			check(openSink(t, Config{URL: sink.NewSecret(r.URL), Format: test.format, Headers: perEvent}).Deliver(t.Context(), sampleEvent()))

			ev := sampleEvent()
			ev.Headers = headers
			check(openSink(t, Config{URL: sink.NewSecret(r.URL), Format: test.format}).Deliver(t.Context(), ev))

			fixed := withDefaults(Config{URL: sink.NewSecret(r.URL), Format: test.format, Headers: sink.Fixed(headers)})
			if err := fixed.Validate(); err == nil || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("Validate: %v", err)
			}
			if r.count() != 0 {
				t.Error("the receiver got a request")
			}
		})
	}
	if _, err := (headerRules{formatBody}).compile(map[string]string{"X-A": "1", "x-a": "2"}); !errors.Is(err, errHeaderTwice) {
		t.Errorf("two spellings: %v", err)
	}
	// Extension attributes of CloudEvents are welcome, and so are those of another format.
	for format, name := range map[string]string{formatBinary: "ce-traceparent", formatBody: "ce-id"} {
		if _, err := (headerRules{format}).check(name, "x"); err != nil {
			t.Errorf("%s %s: %v", format, name, err)
		}
	}
}

func TestStatusOfRealAnswers(t *testing.T) { overEachTransport(t, testStatusOfRealAnswers) }

func testStatusOfRealAnswers(t *testing.T, openSink opener) {
	tests := []struct {
		status     int
		retryAfter string
		want       sink.Outcome
		wait       time.Duration
		text       string
	}{
		{200, "", sink.OutcomeDelivered, 0, ""},
		{204, "", sink.OutcomeDelivered, 0, ""},
		{301, "", sink.OutcomeRetry, 0, "301 Moved Permanently (redirects are not followed"},
		{302, "", sink.OutcomeRetry, 0, "302 Found"},
		{307, "", sink.OutcomeRetry, 0, "307 Temporary Redirect"},
		{308, "", sink.OutcomeRetry, 0, "308 Permanent Redirect"},
		{404, "", sink.OutcomeRejected, 0, "the receiver answered 404 Not Found"},
		{410, "", sink.OutcomeRejected, 0, "410 Gone"},
		{401, "", sink.OutcomeRetry, 0, "401 Unauthorized"},
		{429, "3", sink.OutcomeThrottled, 3 * time.Second, "429 Too Many Requests"},
		{500, "", sink.OutcomeRetry, 0, "500 Internal Server Error"},
		{503, "60", sink.OutcomeThrottled, time.Minute, "503 Service Unavailable"},
		{599, "", sink.OutcomeRetry, 0, "the receiver answered 599"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.status), func(t *testing.T) {
			elsewhere := newReceiver(t, nil)
			r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere.URL)
				if test.retryAfter != "" {
					w.Header().Set("Retry-After", test.retryAfter)
				}
				w.WriteHeader(test.status)
				if test.status != 204 && test.status != 304 {
					_, _ = io.WriteString(w, "topsecret details")
				}
			})
			err := openSink(t, Config{URL: sink.NewSecret(r.URL)}).Deliver(t.Context(), sampleEvent())
			wantOutcome(t, err, test.want, test.wait)
			if err != nil && (!strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "topsecret")) {
				t.Errorf("got %q, want %q", err, test.text)
			}
			if r.count() != 1 || elsewhere.count() != 0 {
				t.Errorf("the receiver got %d requests, the one it named %d", r.count(), elsewhere.count())
			}
		})
	}
}

// Answers with and without bodies, good and bad, leave their connection in use.
func TestConnectionsAreUsedAgain(t *testing.T) { overEachTransport(t, testConnectionsAreUsedAgain) }

func testConnectionsAreUsedAgain(t *testing.T, openSink opener) {
	answers := map[string]http.HandlerFunc{
		"no body":   nil,
		"some body": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), 3000)) },
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = io.WriteString(w, "part")
				w.(http.Flusher).Flush()
			}
		},
		"failure": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"throttled": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "no", http.StatusTooManyRequests)
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, answer)
			w := openSink(t, Config{URL: sink.NewSecret(r.URL)})
			for range 50 {
				_ = w.Deliver(t.Context(), sampleEvent())
			}
			// One, and a few more where the machine is so busy that draining took too long.
			if made := r.made.Load(); r.count() != 50 || made > 5 {
				t.Errorf("%d requests over %d connections, want 50 over 1", r.count(), made)
			}
		})
	}
}

// The pool must hold as many connections as there are deliveries in flight.
func TestConnectionsAreUsedAgainByManyDeliveries(t *testing.T) {
	overEachTransport(t, testConnectionsAreUsedAgainByManyDeliveries)
}

func testConnectionsAreUsedAgainByManyDeliveries(t *testing.T, openSink opener) {
	const rounds = 20
	arrived := make(chan struct{}, maxInFlight)
	release := make(chan struct{})
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.WriteHeader(http.StatusNoContent)
	})
	w := openSink(t, Config{URL: sink.NewSecret(r.URL)})
	for range rounds {
		var group sync.WaitGroup
		for range maxInFlight {
			group.Go(func() {
				if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
					t.Error(err)
				}
			})
		}
		for range maxInFlight { // all are in flight at the same time
			<-arrived
		}
		for range maxInFlight {
			release <- struct{}{}
		}
		group.Wait()
	}
	// A connection goes back into the pool a moment after its answer was read,
	// so now and then one more is made.
	if made := r.made.Load(); made > 2*maxInFlight {
		t.Errorf("%d requests took %d connections, want about %d", rounds*maxInFlight, made, maxInFlight)
	}
}

// A receiver closes idle connections when it likes, also while the next request
// is on its way. That must cost no attempt.
func TestDeadKeptAliveConnection(t *testing.T) { overEachTransport(t, testDeadKeptAliveConnection) }

func testDeadKeptAliveConnection(t *testing.T, openSink opener) {
	var served, broken atomic.Int64
	address := rawReceiver(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for first := true; ; first = false {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if !first {
				broken.Add(1)
				return // without an answer
			}
			served.Add(1)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	w := openSink(t, Config{URL: sink.NewSecret("http://" + address)})
	for range 10 {
		if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
			t.Fatal(err)
		}
	}
	if served.Load() != 10 || broken.Load() == 0 {
		t.Errorf("%d requests answered, %d connections died under a request", served.Load(), broken.Load())
	}
}

func TestCheckSendsNothing(t *testing.T) { overEachTransport(t, testCheckSendsNothing) }

func testCheckSendsNothing(t *testing.T, openSink opener) {
	r := newReceiver(t, nil)
	if err := openSink(t, Config{URL: sink.NewSecret(r.URL)}).Check(t.Context()); err != nil {
		t.Error(err)
	}
	if r.made.Load() != 0 {
		t.Error("the receiver was connected to")
	}
}

func TestClosingSinkGivesUp(t *testing.T) { overEachTransport(t, testClosingSinkGivesUp) }

func testClosingSinkGivesUp(t *testing.T, openSink opener) {
	started := make(chan struct{})
	r := newReceiver(t, func(_ http.ResponseWriter, req *http.Request) {
		close(started)
		<-req.Context().Done()
	})
	w := openSink(t, Config{URL: sink.NewSecret(r.URL)})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	err := w.Deliver(ctx, sampleEvent())
	wantOutcome(t, err, sink.OutcomeRetry, 0)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
