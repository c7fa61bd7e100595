package redact_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/callbackd/callbackd/core/redact"
)

func TestMask(t *testing.T) {
	t.Parallel()
	const secret = `p<&>"ä\/+ ~s3cret`
	jsonSecret, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	quoted := fmt.Sprintf("%q", secret)
	logged, err := json.Marshal(fmt.Sprintf("failed: %q", secret))
	if err != nil {
		t.Fatal(err)
	}
	r := redact.New([]string{secret, "tok", "", "first-line\nsecond-line"})
	for name, text := range map[string]string{
		"raw":             secret,
		"query":           url.QueryEscape(secret),
		"query, %20":      strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"),
		"path":            url.PathEscape(secret),
		"base64":          base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64 raw":      base64.RawStdEncoding.EncodeToString([]byte(secret)),
		"base64 url":      base64.URLEncoding.EncodeToString([]byte(secret)),
		"hex":             hex.EncodeToString([]byte(secret)),
		"HEX":             strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"json":            string(jsonSecret),
		"%q":              quoted,
		"%+q":             fmt.Sprintf("%+q", secret),
		"%q in json":      string(logged),
		"lines":           "first-line\nsecond-line",
		"one line":        "xx second-line",
		"twice, touching": secret + secret,
	} {
		got := r.Mask("before " + text + " after")
		if !strings.Contains(got, redact.Text) || strings.Contains(got, "s3cret") || strings.Contains(got, "-line") {
			t.Errorf("%s: Mask(%q) = %q", name, text, got)
		}
		if !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") {
			t.Errorf("%s: the rest of the text changed: %q", name, got)
		}
	}
	if got := r.Mask("my tok is on"); got != "my tok is on" {
		t.Errorf("a secret shorter than MinLen was masked: %q", got)
	}
}

// What Go's HTTP client says when it cannot reach a secret URL.
func TestMaskURL(t *testing.T) {
	t.Parallel()
	const hook = "https://user:pa55word@hooks.example.com/services/T000/B000/XXXXsecret?key=v3rysecret"
	r := redact.New([]string{hook})
	for _, text := range []string{
		(&url.Error{Op: "Post", URL: hook, Err: errors.New("refused")}).Error(),
		"POST /services/T000/B000/XXXXsecret?key=v3rysecret HTTP/1.1",
		"path=/services/T000/B000/XXXXsecret",
		"key=v3rysecret",
		"u=" + url.QueryEscape(hook),
		"password pa55word",
		"https://user:***@hooks.example.com/services/T000/B000/XXXXsecret",
	} {
		got := r.Mask(text)
		for _, secret := range []string{"XXXXsecret", "v3rysecret", "pa55word"} {
			if strings.Contains(got, secret) {
				t.Errorf("Mask(%q) = %q", text, got)
			}
		}
	}
	if got := r.Mask("host hooks.example.com"); got != "host hooks.example.com" {
		t.Errorf("the host is not secret: %q", got)
	}
}

// The path of a sensitive URL may be a word that is everywhere.
func TestMaskURLShortPath(t *testing.T) {
	t.Parallel()
	r := redact.New([]string{"https://crm.example.com/callbacks?v=2"})
	if got := r.Mask("POST /callbacks/chat?v=2"); got != "POST /callbacks/chat?v=2" {
		t.Errorf("Mask = %q", got)
	}
	if got := r.Mask(`Post "https://crm.example.com/callbacks?v=2": refused`); got != `Post "`+redact.Text+`": refused` {
		t.Errorf("Mask = %q", got)
	}
}

func TestMaskBasicAuth(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery"
	r := redact.New([]string{secret})
	for _, user := range []string{"", "a", "ab", "abc", "abcd"} {
		req, err := http.NewRequest(http.MethodGet, "http://localhost/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(user, secret)
		header := strings.TrimPrefix(req.Header.Get("Authorization"), "Basic ")
		got := r.Mask("Basic " + header)
		left := strings.ReplaceAll(strings.TrimPrefix(got, "Basic "), redact.Text, "")
		if room := base64.StdEncoding.EncodedLen(len(user)+1) + 4; len(left) > room {
			t.Errorf("user %q: %q of %q is left", user, left, header)
		}
	}
}

func TestMaskOverlapping(t *testing.T) {
	t.Parallel()
	r := redact.New([]string{"abcd", "cdefghijk"})
	if got, want := r.Mask("1 abcdefghijk 2"), "1 "+redact.Text+" 2"; got != want {
		t.Errorf("Mask = %q, want %q", got, want)
	}
}

func TestMaskNothing(t *testing.T) {
	t.Parallel()
	var none *redact.Redactor
	for name, r := range map[string]*redact.Redactor{
		"nil": none, "zero": {}, "no secrets": redact.New(nil), "short ones": redact.New([]string{"a", "12"}),
	} {
		if got := r.Mask("a 12 b"); got != "a 12 b" {
			t.Errorf("%s: Mask = %q", name, got)
		}
	}
}

func TestMaskConcurrently(t *testing.T) {
	t.Parallel()
	r := redact.New([]string{"hunter22"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got := r.Mask("x hunter22 y"); got != "x "+redact.Text+" y" {
					t.Errorf("Mask = %q", got)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzMask(f *testing.F) {
	f.Add("hunter22", "before ", " after")
	f.Add("https://x.example/services/a/b?c=d", "Post \"", "\": refused")
	f.Add("aaaa", "aaa", "aaa")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		r := redact.New([]string{secret})
		for _, form := range []string{secret, url.QueryEscape(secret), hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))} {
			got := r.Mask(before + form + after)
			if len(secret) < redact.MinLen || strings.Contains(redact.Text, secret) {
				continue
			}
			// What masking puts in may touch what is left, so look between.
			for part := range strings.SplitSeq(got, redact.Text) {
				if strings.Contains(part, secret) {
					t.Fatalf("Mask(%q) = %q still holds %q", before+form+after, got, secret)
				}
			}
		}
	})
}

func BenchmarkMask(b *testing.B) {
	secrets := make([]string, 50)
	for i := range secrets {
		secrets[i] = fmt.Sprintf("https://hooks.example.com/services/%032x", i*7919)
	}
	r := redact.New(secrets)
	line := strings.Repeat("a log line of a plugin without secrets ", 5)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		r.Mask(line)
	}
}
