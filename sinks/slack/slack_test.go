package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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

const (
	secretPath = "/services/T000/B000/veryverysecret"
	botToken   = "xoxb-1-veryverysecret"
)

// standIn answers like Slack. What it got is in requests.
type standIn struct {
	*httptest.Server
	answer   http.HandlerFunc
	requests chan request
	conns    atomic.Int32
}

type request struct {
	proto, method, path, auth, contentType string
	body                                   []byte
}

func newStandIn(t *testing.T, encrypted bool, answer http.HandlerFunc) *standIn {
	t.Helper()
	s := &standIn{answer: answer, requests: make(chan request, 100)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.requests <- request{r.Proto, r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), body}
		s.answer(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are to fail
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	if encrypted {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hook is a sink that posts to the stand-in's webhook, api one that uses its
// Web API.
func (s *standIn) hook(t *testing.T) *slack {
	t.Helper()
	return opened(t, Config{WebhookURL: sink.NewSecret(s.URL + secretPath), Text: sink.Fixed("hello")})
}

func (s *standIn) api(t *testing.T) *slack {
	t.Helper()
	return opened(t, Config{Token: sink.NewSecret(botToken), Channel: "C1", APIURL: s.URL + "/api/", Text: sink.Fixed("hello")})
}

func opened(t *testing.T, cfg Config) *slack {
	t.Helper()
	one, err := open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := one.(*slack)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// failed checks that err has the outcome and shows no secret, however it is
// printed.
func failed(t *testing.T, err error, want sink.Outcome, text string) {
	t.Helper()
	if outcome, _ := sink.OutcomeOf(err); outcome != want {
		t.Errorf("%s, want %s: %v", outcome, want, err)
	}
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want %q in it", err, text)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, form := range []string{"%v", "%+v", "%#v", "%q"} {
			if shown := fmt.Sprintf(form, e); strings.Contains(shown, "verysecret") || strings.Contains(shown, "/services/") {
				t.Errorf("%s shows the secret: %s", form, shown)
			}
		}
	}
}

func TestWebhook(t *testing.T) {
	in := newStandIn(t, false, says(200, "ok"))
	s := in.hook(t)
	if err := s.Deliver(t.Context(), sink.Event{}); err != nil {
		t.Fatal(err)
	}
	got := <-in.requests
	if got.method != "POST" || got.path != secretPath || got.auth != "" || got.contentType != "application/json; charset=utf-8" || !sameJSON(t, got.body, []byte(`{"text":"hello"}`)) {
		t.Errorf("the stand-in got %+v", got)
	}
	for status, body := range map[int]string{400: "invalid_payload", 403: "action_prohibited", 404: "no_service", 410: "channel_is_archived"} {
		in.answer = says(status, body)
		failed(t, s.Deliver(t.Context(), sink.Event{}), sink.OutcomeRejected, body)
	}
	in.answer = says(500, "rollup_error")
	failed(t, s.Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "rollup_error")
	in.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "17")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	err := s.Deliver(t.Context(), sink.Event{})
	failed(t, err, sink.OutcomeThrottled, "429")
	if _, after := sink.OutcomeOf(err); after != 17*time.Second {
		t.Errorf("after %s, want 17 s", after)
	}
	if n := in.conns.Load(); n != 1 {
		t.Errorf("%d connections for messages one after the other, want 1", n)
	}
}

func TestWebAPI(t *testing.T) {
	in := newStandIn(t, false, says(200, `{"ok":true,"ts":"1.2"}`))
	s := in.api(t)
	if err := s.Deliver(t.Context(), sink.Event{}); err != nil {
		t.Fatal(err)
	}
	got := <-in.requests
	if got.path != "/api/chat.postMessage" || got.auth != "Bearer "+botToken || !sameJSON(t, got.body, []byte(`{"channel":"C1","text":"hello"}`)) {
		t.Errorf("the stand-in got %+v", got)
	}
	in.answer = says(200, `{"ok":false,"error":"not_in_channel"}`)
	failed(t, s.Deliver(t.Context(), sink.Event{}), sink.OutcomeRejected, "not_in_channel")
	in.answer = says(200, `{"ok":false,"error":"internal_error"}`)
	failed(t, s.Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "internal_error")
}

func TestDefaultAPI(t *testing.T) {
	s := newSlack(Config{Token: sink.NewSecret(botToken), Channel: "C1"}, newTransport())
	if s.url != "https://slack.com/api/chat.postMessage" {
		t.Errorf("it posts to %s", s.url)
	}
}

// Whatever goes wrong on the way is tried again, and shows no secret.
func TestWhatGoesWrongOnTheWay(t *testing.T) {
	hang := make(chan struct{})
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		text   string
	}{
		{"the connection breaks", abort, "post the message"},
		{"the answer breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"ok":true`)
		}, "read Slack's answer"},
		{"an endless answer", func(w http.ResponseWriter, r *http.Request) {
			block := []byte(strings.Repeat("ok", 32<<10))
			for range 2 * maxAnswer / len(block) {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "longer than"},
		{"endless headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
		}, "post the message"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, secretPath+"/elsewhere", http.StatusTemporaryRedirect)
		}, "redirect"},
		{"an error page that repeats the URL", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, r.URL.Path+" "+r.Header.Get("Authorization"))
		}, "500"},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "deadline exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newStandIn(t, false, tt.answer)
			for _, s := range []*slack{in.hook(t), in.api(t)} {
				wait := 10 * time.Second
				if tt.name == "no answer" {
					wait = 50 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				failed(t, s.Deliver(ctx, sink.Event{}), sink.OutcomeRetry, tt.text)
				cancel()
			}
		})
	}
}

func TestAnAnswerThatRepeatsTheSecret(t *testing.T) {
	repeat := func(secret string) http.HandlerFunc {
		return says(200, `{"ok":false,"error":"internal_error","response_metadata":{"messages":["`+secret+`"]}}`)
	}
	in := newStandIn(t, false, nil)
	in.answer = repeat(botToken)
	failed(t, in.api(t).Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "internal_error: (sensitive)")
	for _, secret := range []string{in.URL + secretPath, secretPath, "veryverysecret"} {
		in.answer = repeat(secret)
		failed(t, in.hook(t).Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "(sensitive)")
	}
	in.answer = says(404, "veryverysecret") // has the form of a word of Slack's
	failed(t, in.hook(t).Deliver(t.Context(), sink.Event{}), sink.OutcomeRejected, "(sensitive)")
}

func TestNobodyListens(t *testing.T) {
	in := newStandIn(t, false, says(200, "ok"))
	hook, api := in.hook(t), in.api(t)
	in.Close()
	failed(t, hook.Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "connection refused")
	failed(t, api.Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "connection refused")
}

func TestACancelledContextIsRecognised(t *testing.T) {
	in := newStandIn(t, false, says(200, "ok"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := in.hook(t).Deliver(ctx, sink.Event{})
	failed(t, err, sink.OutcomeRetry, "canceled")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v is not recognised", err)
	}
}

func TestTLS(t *testing.T) {
	in := newStandIn(t, true, says(200, "ok"))
	stranger := in.hook(t)
	failed(t, stranger.Deliver(t.Context(), sink.Event{}), sink.OutcomeRetry, "certificate")

	trusting := in.hook(t)
	pool := x509.NewCertPool()
	pool.AddCert(in.Certificate())
	transport := newTransport()
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	trusting.client.Transport = transport
	if err := trusting.Deliver(t.Context(), sink.Event{}); err != nil {
		t.Fatal(err)
	}
	if got := <-in.requests; got.proto != "HTTP/2.0" {
		t.Errorf("the protocol is %s, want HTTP/2.0", got.proto)
	}
}
