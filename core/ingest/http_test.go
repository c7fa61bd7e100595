package ingest

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/oklog/ulid/v2"
)

func TestHTTPAccepts(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		tests := []struct{ name, method, url, contentType, body string }{
			{"JSON", "POST", "/ci?b=2&a=1&a=3&%zz=4&token=t", "application/json", `{"a": 1}`},
			{"empty", "POST", "/ci", "", ""},
			{"put", "PUT", "/ci", "text/plain", "x"},
			{"bytes", "POST", "/ci", "application/octet-stream", "\x00\xff\r\n"},
			{"form", "POST", "/ci", "application/x-www-form-urlencoded", "a=1&b=2"},
			{"large", "POST", "/ci", "text/plain", strings.Repeat("x", 1<<20)},
			{"escaped path", "POST", "/%63i", "text/plain", "x"},
		}
		for _, sized := range []bool{true, false} {
			for _, tt := range tests {
				t.Run(tt.name+map[bool]string{true: "", false: " unsized"}[sized], func(t *testing.T) {
					rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
					req := httptest.NewRequest(tt.method, tt.url, strings.NewReader(tt.body))
					if !sized {
						body := iotest.OneByteReader(strings.NewReader(tt.body))
						if len(tt.body) > 64<<10 { // a million chunks take longer than the read timeout
							body = strings.NewReader(tt.body)
						}
						req = unsized(req, body)
					}
					if tt.contentType != "" {
						req.Header.Set("Content-Type", tt.contentType)
					}
					w := rig.do(req)
					var answer struct {
						ID ulid.ULID `json:"id"`
					}
					if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
						t.Fatalf("%v in %d %s", err, w.Code, w.Body)
					}
					ev := rig.kept.events[0]
					if w.Code != 202 || answer.ID != ev.ID || w.Header().Get("Content-Type") != "application/json" {
						t.Errorf("%d %s; event %s", w.Code, w.Body, ev.ID)
					}
					if string(ev.Body) != tt.body || ev.ContentType != tt.contentType || ev.Type != "ci" || ev.Subject != "" {
						t.Errorf("event %+v", ev)
					}
					if strings.Contains(tt.url, "?") && !equalPairs(ev.Query, event.Pairs{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}) {
						t.Errorf("query %v", ev.Query)
					}
					if cap(ev.Body) > len(ev.Body)+len(ev.Body)/4+64 {
						t.Errorf("a body of %d bytes holds %d", len(ev.Body), cap(ev.Body))
					}
					checkEvent(t, ev)
				})
			}
		}
	})
}

func equalPairs(a, b event.Pairs) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// failingReader gives some bytes and an error.
type failingReader struct {
	data string
	err  error
}

func (r *failingReader) Read(p []byte) (int, error) {
	n := copy(p, r.data)
	r.data = r.data[n:]
	if n == 0 {
		return 0, r.err
	}
	return n, nil
}

func TestBodyRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		small := httpSource()
		small.MaxBody = 10
		tests := []struct {
			name string
			req  *http.Request
			code int
		}{
			{"at the limit", post("/ci", "0123456789"), 202},
			{"at the limit, unsized", unsized(post("/ci", ""), strings.NewReader("0123456789")), 202},
			{"too large", post("/ci", "0123456789x"), 413},
			{"too large, unsized", unsized(post("/ci", ""), strings.NewReader("0123456789x")), 413},
			{"endless", unsized(post("/ci", ""), endless{}), 413},
			{"cut off", unsized(post("/ci", ""), &failingReader{"01", io.ErrUnexpectedEOF}), 400},
		}
		short := post("/ci", "")
		short.Body, short.ContentLength = io.NopCloser(strings.NewReader("123")), 5
		tests = append(tests, struct {
			name string
			req  *http.Request
			code int
		}{"shorter than promised", short, 400})
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				rig := newRig(t, on, testSettings(), oneRoute(), small)
				w := rig.do(tt.req)
				if w.Code != tt.code {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				if tt.code != 202 {
					var answer struct{ Error string }
					if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Error == "" || rig.kept.count() != 0 {
						t.Errorf("%s, %v, kept %d", w.Body, err, rig.kept.count())
					}
				}
			})
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestLargeBodyLengths walks over the sizes where the buffer grows.
func TestLargeBodyLengths(t *testing.T) {
	all := strings.Repeat("0123456789abcdef", 20<<10)
	for _, n := range []int{1, smallBody - 1, smallBody, smallBody + 1, bodyChunk - 1, bodyChunk, bodyChunk + 1, 2*bodyChunk + 1, 300 << 10} {
		for _, sized := range []bool{true, false} {
			req := post("/ci", all[:n])
			if !sized {
				req = unsized(req, strings.NewReader(all[:n]))
			}
			for _, limit := range []int64{int64(n), 1 << 20} {
				req.Body = io.NopCloser(strings.NewReader(all[:n]))
				body, refusal := readBody(callbackOf(req), limit)
				if refusal != nil || string(body) != all[:n] {
					t.Errorf("%d sized %v limit %d: %d bytes, %v", n, sized, limit, len(body), refusal)
				}
			}
		}
	}
}

func TestHMAC(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		const (
			githubSecret = "It's a Secret to Everybody"
			githubBody   = "Hello, World!"
			githubSign   = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
		)
		sum := func(h func() hash.Hash, secret, body string) []byte {
			mac := hmac.New(h, []byte(secret))
			mac.Write([]byte(body))
			return mac.Sum(nil)
		}
		github := HMAC{Header: "x-hub-signature-256", Prefix: "sha256=", Secrets: []string{githubSecret}}
		rotated := github
		rotated.Secrets = []string{"new", githubSecret}
		plain := HMAC{Header: "X-Signature", Algorithm: "sha512", Encoding: "base64", Secrets: []string{"k"}}
		sha1hex := HMAC{Header: "X-Signature", Prefix: "v0=", Algorithm: "sha1", Encoding: "hex", Secrets: []string{"k"}}
		b64 := base64.StdEncoding.EncodeToString(sum(sha512.New, "k", "body"))
		tests := []struct {
			name     string
			settings HMAC
			header   []string
			body     string
			reason   string // empty: accepted
		}{
			{"GitHub's vector", github, []string{githubSign}, githubBody, ""},
			{"capitals", github, []string{"sha256=" + strings.ToUpper(githubSign[7:])}, githubBody, ""},
			{"second secret", rotated, []string{githubSign}, githubBody, ""},
			{"another body", github, []string{githubSign}, githubBody + "\n", "is wrong"},
			{"missing", github, nil, githubBody, "missing"},
			{"empty", github, []string{""}, githubBody, "begin with sha256="},
			{"twice", github, []string{githubSign, githubSign}, githubBody, "more than once"},
			{"no prefix", github, []string{githubSign[7:]}, githubBody, "begin with sha256="},
			{"prefix only", github, []string{"sha256="}, githubBody, "is wrong"},
			{"short", github, []string{githubSign[:69]}, githubBody, "is wrong"},
			{"odd", github, []string{githubSign[:70]}, githubBody, "is wrong"},
			{"long", github, []string{githubSign + strings.Repeat("00", 100)}, githubBody, "is wrong"},
			{"no hex", github, []string{"sha256=zz" + githubSign[9:]}, githubBody, "is wrong"},
			{"another secret", github, []string{"sha256=" + hex.EncodeToString(sum(sha256.New, "", githubBody))}, githubBody, "is wrong"},
			{"base64 sha512", plain, []string{b64}, "body", ""},
			{"base64 without padding", plain, []string{strings.TrimRight(b64, "=")}, "body", ""},
			{"hex where base64 is due", plain, []string{hex.EncodeToString(sum(sha512.New, "k", "body"))}, "body", "is wrong"},
			{"sha1 of an empty body", sha1hex, []string{"v0=" + hex.EncodeToString(sum(sha1.New, "k", ""))}, "", ""},
			{"sha256 where sha1 is due", sha1hex, []string{"v0=" + hex.EncodeToString(sum(sha256.New, "k", ""))}, "", "is wrong"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				settings := httpSource()
				settings.HMAC = &tt.settings
				rig := newRig(t, on, testSettings(), oneRoute(), settings)
				for range 2 { // the second time with a hash of the pool
					req := post("/ci", tt.body)
					for _, h := range tt.header {
						req.Header.Add(tt.settings.Header, h)
					}
					w := rig.do(req)
					if tt.reason == "" && w.Code != 202 || tt.reason != "" && (w.Code != 401 || !strings.Contains(w.Body.String(), tt.reason)) {
						t.Errorf("%d %s", w.Code, w.Body)
					}
				}
				for _, ev := range rig.kept.events {
					if _, ok := ev.Headers.Get(strings.ToLower(tt.settings.Header)); ok {
						t.Error("the event holds the signature")
					}
				}
				if strings.Contains(rig.log.String(), "757107ea") || strings.Contains(rig.log.String(), githubSecret) {
					t.Error("the log holds secrets")
				}
			})
		}
	})
}

// TestSignatureHeaderOfAnyName: the verified header is left out, however harmless
// its name.
func TestSignatureHeaderOfAnyName(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := httpSource()
		settings.HMAC = &HMAC{Header: "X-Check", Secrets: []string{"k"}}
		rig := newRig(t, on, testSettings(), oneRoute(), settings)
		mac := hmac.New(sha256.New, []byte("k"))
		req := post("/ci", "")
		req.Header.Set("X-Check", hex.EncodeToString(mac.Sum(nil)))
		req.Header.Set("X-Other", "1")
		if w := rig.do(req); w.Code != 202 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if h := rig.kept.events[0].Headers; !equalPairs(h, event.Pairs{{Name: "host", Value: "example.com"}, {Name: "x-other", Value: "1"}}) {
			t.Errorf("headers %v", h)
		}
	})
}

func TestNewSourceErrors(t *testing.T) {
	change := func(base SourceSettings, f func(*SourceSettings)) SourceSettings { f(&base); return base }
	tests := []struct {
		settings SourceSettings
		want     string
	}{
		{change(httpSource(), func(s *SourceSettings) { s.Name = "" }), "no name"},
		{change(httpSource(), func(s *SourceSettings) { s.Name = "unknown" }), "choose another"},
		{change(httpSource(), func(s *SourceSettings) { s.Path = "ci" }), "slash"},
		{change(httpSource(), func(s *SourceSettings) { s.MaxBody = 0 }), "max_body"},
		{change(httpSource(), func(s *SourceSettings) { s.MaxBody = 32<<20 + 1 }), "max_body"},
		{change(httpSource(), func(s *SourceSettings) { s.Type = "https" }), `no type "https"`},
		{change(httpSource(), func(s *SourceSettings) { s.RateLimit = &Rate{PerSecond: 0, Burst: 1} }), "rate_limit"},
		{change(httpSource(), func(s *SourceSettings) { s.RateLimit = &Rate{PerSecond: math.NaN(), Burst: 1} }), "rate_limit"},
		{change(httpSource(), func(s *SourceSettings) { s.RateLimit = &Rate{PerSecond: 1, Burst: 0} }), "rate_limit"},
		{change(httpSource(), func(s *SourceSettings) { s.HMAC = &HMAC{Header: "X", Secrets: []string{""}} }), "secrets is empty"},
		{change(httpSource(), func(s *SourceSettings) { s.HMAC = &HMAC{Header: "X"} }), "no secret"},
		{change(httpSource(), func(s *SourceSettings) { s.HMAC = &HMAC{Header: "X Y", Secrets: []string{"k"}} }), "name of a header"},
		{change(httpSource(), func(s *SourceSettings) { s.HMAC = &HMAC{Header: "X", Algorithm: "md5", Secrets: []string{"k"}} }), `algorithm "md5"`},
		{change(httpSource(), func(s *SourceSettings) { s.HMAC = &HMAC{Header: "X", Encoding: "b64", Secrets: []string{"k"}} }), `encoding "b64"`},
		{change(tencentSource(), func(s *SourceSettings) { s.Tencent = nil }), "sdk_app_ids"},
		{change(tencentSource(), func(s *SourceSettings) { s.Tencent = &Tencent{} }), "sdk_app_ids"},
		{change(tencentSource(), func(s *SourceSettings) { s.Tencent.Tokens = []string{"a", ""} }), "tokens is empty"},
		{change(tencentSource(), func(s *SourceSettings) { s.Tencent.Tokens = []string{"a"}; s.Tencent.Window = -1 }), "window"},
	}
	for _, tt := range tests {
		if _, err := NewSource(tt.settings, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %q", err, tt.want)
		}
	}
}

func TestExpressions(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		constant := func(text string) pipeline.Text {
			return func(*event.View) (string, bool, error) { return text, true, nil }
		}
		null := func(*event.View) (string, bool, error) { return "x", false, nil }
		fails := func(*event.View) (string, bool, error) { return "x", true, errors.New("hush") }
		header := func(name string) pipeline.Text {
			return func(v *event.View) (string, bool, error) {
				if v.Event.Type != "" || v.Event.Subject != "" || !v.Event.Time.IsZero() {
					return "", false, errors.New("the event is not fresh")
				}
				text, ok := v.Event.Headers.Get(name)
				return text, ok, nil
			}
		}
		now := time.Now().UTC().Truncate(time.Millisecond)
		tests := []struct {
			name               string
			typ, subject, time pipeline.Text
			wantType, wantSubj string
			wantTime           time.Time // zero: the arrival
			warned             bool
		}{
			{"none", nil, nil, nil, "ci", "", time.Time{}, false},
			{"null", null, null, null, "ci", "", time.Time{}, false},
			{"of a header", header("x-event-type"), header("x-subject"), header("x-time"), "push", "main", now, false},
			{"failing", fails, fails, fails, "ci", "", time.Time{}, true},
			{"empty", constant(""), constant(""), constant(""), "ci", "", time.Time{}, false},
			{"long", constant(strings.Repeat("x", 256)), constant(strings.Repeat("x", 1025)), constant("x"), "ci", "", time.Time{}, false},
			{"not UTF-8", constant("\xff"), constant("\xff"), nil, "\uFFFD", "\uFFFD", time.Time{}, false},
			{"milliseconds", nil, nil, constant(strconv.FormatInt(now.UnixMilli(), 10)), "ci", "", now, false},
			{"seconds", nil, nil, constant(strconv.FormatInt(now.Unix(), 10)), "ci", "", now.Truncate(time.Second), false},
			{"fraction", nil, nil, constant(strconv.FormatInt(now.Unix(), 10) + ".5"), "ci", "", now.Truncate(time.Second).Add(500 * time.Millisecond), false},
			{"offset", nil, nil, constant("2024-02-29T12:00:00.1239+08:00"), "ci", "", time.Date(2024, 2, 29, 4, 0, 0, 123e6, time.UTC), false},
			{"future", nil, nil, constant("2924-02-29T12:00:00Z"), "ci", "", time.Time{}, false},
			{"not a number", nil, nil, constant("NaN"), "ci", "", time.Time{}, false},
			{"infinite", nil, nil, constant("1e300"), "ci", "", time.Time{}, false},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				settings := httpSource()
				settings.EventType, settings.Subject, settings.Time = tt.typ, tt.subject, tt.time
				rig := newRig(t, on, testSettings(), oneRoute(), settings)
				for range 3 {
					req := post("/ci", "{}")
					req.Header.Set("X-Event-Type", "push")
					req.Header.Set("X-Subject", "main")
					req.Header.Set("X-Time", now.Format(time.RFC3339Nano))
					if w := rig.do(req); w.Code != 202 {
						t.Fatalf("%d %s", w.Code, w.Body)
					}
				}
				ev := rig.kept.events[2]
				if want := tt.wantTime; want.IsZero() {
					if !ev.Time.Equal(ev.Accepted.Truncate(time.Millisecond)) {
						t.Errorf("time %v", ev.Time)
					}
				} else if !ev.Time.Equal(want) {
					t.Errorf("time %v, want %v", ev.Time, want)
				}
				if ev.Type != tt.wantType || ev.Subject != tt.wantSubj {
					t.Errorf("type %q, subject %q", ev.Type, ev.Subject)
				}
				if got := strings.Count(rig.log.String(), "level=WARN"); strings.Contains(rig.log.String(), "hush") || got != map[bool]int{true: 1, false: 0}[tt.warned] {
					t.Errorf("%d warnings:\n%s", got, rig.log)
				}
			})
		}
	})
}

func TestAllowFrom(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := httpSource()
		settings.AllowFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::/32")}
		for remote, code := range map[string]int{
			"192.0.2.1:1":            202,
			"192.0.2.16:1":           403,
			"[::ffff:192.0.2.1]:1":   202,
			"[2001:db8::1%eth0]:443": 202,
			"[2001:db9::1]:443":      403,
			"@":                      403,
			"":                       403,
		} {
			rig := newRig(t, on, testSettings(), oneRoute(), settings)
			req := post("/ci", "x")
			req.RemoteAddr = remote
			if w := rig.do(req); w.Code != code {
				t.Errorf("%q: %d %s", remote, w.Code, w.Body)
			}
		}
	})
}

// TestRateLimit: the limit counts verified callbacks only, and says when to come
// back.
func TestRateLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		synctest.Test(t, func(t *testing.T) {
			settings := httpSource()
			settings.RateLimit = &Rate{PerSecond: 0.5, Burst: 2}
			settings.HMAC = &HMAC{Header: "X-Signature", Secrets: []string{"k"}}
			rig := newRig(t, on, testSettings(), oneRoute(), settings)
			mac := hmac.New(sha256.New, []byte("k"))
			send := func(sign string) *httptest.ResponseRecorder {
				req := post("/ci", "")
				req.Header.Set("X-Signature", sign)
				return rig.do(req)
			}
			good := hex.EncodeToString(mac.Sum(nil))
			for range 10 {
				if w := send("00"); w.Code != 401 {
					t.Fatalf("%d", w.Code)
				}
			}
			for i, want := range []int{202, 202, 429, 429} {
				w := send(good)
				if w.Code != want || want == 429 && w.Header().Get("Retry-After") != "2" {
					t.Errorf("%d: %d, Retry-After %q", i, w.Code, w.Header().Get("Retry-After"))
				}
			}
			time.Sleep(2 * time.Second)
			if w := send(good); w.Code != 202 {
				t.Errorf("later: %d", w.Code)
			}
		})
	})
}
