package ingest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/callbackd/callbackd/core/event"
)

func TestSecretName(t *testing.T) {
	for _, name := range []string{
		"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "Api_Key", "apikey", "X-Auth-Token",
		"X-Auth", "X-Gitlab-Token", "X-Telegram-Bot-Api-Secret-Token", "X-Amz-Security-Token", "X-Csrf-Token",
		"X-Hub-Signature", "X-Hub-Signature-256", "Stripe-Signature", "Webhook-Signature", "X-Sign", "Sign", "sign", "SIGN", "sig",
		"token", "access_token", "accessToken", "id_token", "client_secret", "password", "passwd", "pwd", "PHPSESSID-session", "jwt",
		"X-Goog-Iap-Jwt-Assertion", "Cf-Access-Jwt-Assertion", "Ocp-Apim-Subscription-Key", "X-Functions-Key", "key", "X-Key",
		"X-Webhook-Secret", "X-Shared-Key", "requestSign", "X-Session-Id", "Authentication", "X-Ca-Signature",
	} {
		if !secretName(name) {
			t.Errorf("%s is kept", name)
		}
	}
	for _, name := range []string{
		"User-Agent", "Accept", "X-Github-Event", "X-Github-Delivery", "Idempotency-Key", "X-Idempotency-Key", "X-Request-Id", "Host",
		"Webhook-Id", "Webhook-Timestamp", "X-Event-Type", "SdkAppid", "CallbackCommand", "contenttype", "ClientIP", "OptPlatform",
		"RequestTime", "RequestId", "X-Forwarded-For", "Traceparent", "design", "X-Assigned-To", "author", "Ce-Id", "",
	} {
		if secretName(name) {
			t.Errorf("%s is left out", name)
		}
	}
}

func TestHeaders(t *testing.T) {
	n := headerNames("X-Check")
	r := &http.Request{URL: &url.URL{}, Host: "callbacks.example.com", Header: http.Header{
		"Content-Type":      {"application/json"},
		"Content-Length":    {"5"},
		"Connection":        {"keep-alive"},
		"Transfer-Encoding": {"chunked"},
		"Expect":            {"100-continue"},
		"Authorization":     {"Bearer x"},
		"Cookie":            {"a=b"},
		"X-Check":           {"00"},
		"X-Github-Event":    {"push", "second"},
		"User-Agent":        {"curl"},
		"X-Latin":           {"caf\xe9"},
		"X-Empty":           {""},
	}}
	want := event.Pairs{
		{Name: "host", Value: "callbacks.example.com"},
		{Name: "user-agent", Value: "curl"},
		{Name: "x-empty", Value: ""},
		{Name: "x-github-event", Value: "push"},
		{Name: "x-latin", Value: "caf\uFFFD"},
	}
	for range 2 { // the second time from memory
		if got := n.headers(callbackOf(r)); !equalPairs(got, want) {
			t.Errorf("got %q", got)
		}
	}
}

func TestPairsAreBounded(t *testing.T) {
	n := headerNames("")
	r := &http.Request{URL: &url.URL{}, Header: http.Header{}}
	for i := range 1000 {
		r.Header["X-"+strconv.Itoa(10000+i)] = []string{"v"}
	}
	if got := n.headers(callbackOf(r)); len(got) != maxPairs || got[0].Name != "x-10000" || got[maxPairs-1].Name != "x-10127" {
		t.Errorf("%d pairs", len(got))
	}
	r.Header = http.Header{"A": {strings.Repeat("x", maxPairsBytes)}, "B": {"small"}, "C": {strings.Repeat("y", maxPairsBytes-6)}, "D": {"z"}}
	if got := n.headers(callbackOf(r)); len(got) != 2 || got[0].Name != "b" || got[1].Name != "d" {
		t.Errorf("%d pairs", len(got))
	}
	if known := *n.known.Load(); len(known) > maxKnownNames {
		t.Errorf("%d names are remembered", len(known))
	}
}

func TestNamesConcurrently(t *testing.T) {
	n := queryNames()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				name := "k" + strconv.Itoa((i+g)%280)
				if r := n.rule(name); !r.keep || r.name != name {
					t.Errorf("%q: %+v", name, r)
				}
				if r := n.rule("token"); r.keep {
					t.Error("token is kept")
				}
			}
		})
	}
	wg.Wait()
}

func TestIDs(t *testing.T) {
	g := newIDs()
	start := testTime()
	var mu sync.Mutex
	seen := make(map[string]bool)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			previous := ""
			for range 2000 {
				id := g.next(start).String()
				if id <= previous {
					t.Errorf("%s after %s", id, previous)
				}
				previous = id
				mu.Lock()
				if seen[id] {
					t.Errorf("%s twice", id)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if a, b := newIDs().next(start), newIDs().next(start); a == b {
		t.Error("two generators made the same id")
	}
}
