package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

const (
	// maxTime bounds one request where the caller's context does not.
	maxTime = 30 * time.Second
	// maxAnswer is how many bytes of an answer are read. chat.postMessage repeats
	// the whole message, so it is not small.
	maxAnswer = 4 << 20
	// maxHeader is how many bytes of headers an answer may have.
	maxHeader = 64 << 10
)

// slack is the sink.
type slack struct {
	cfg    Config
	url    string
	client *http.Client
	judge  func(answer, time.Time) verdict
	// hide removes what is secret from a text.
	hide *strings.Replacer

	responses, throttled *sink.Counter
}

var _ sink.Measured = (*slack)(nil)

// newTransport returns what connections to Slack are made with: TLS is
// verified, HTTP/2 is used where there is, proxies come from the environment.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = maxInFlight
	t.MaxResponseHeaderBytes = maxHeader
	return t
}

func newSlack(cfg Config, transport *http.Transport) *slack {
	s := &slack{
		cfg: cfg,
		client: &http.Client{
			Transport: transport,
			// A redirect would take the message, and maybe the secret, elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		responses: sink.NewCounter("responses_total", "Answers of Slack by the class of their status; none: there was no answer.", "class"),
		throttled: sink.NewCounter("throttled_total", "Answers by which Slack asked for less."),
	}
	for _, class := range classes() {
		s.responses.Add(0, class)
	}
	var secrets []string
	if hook := cfg.WebhookURL.Reveal(); hook != "" {
		s.url, s.judge = hook, judgeWebhook
		secrets = append(secrets, hook)
		if u, err := url.Parse(hook); err == nil {
			// What follows the host alone gives the webhook away, its end nearly so.
			secrets = append(secrets, u.RequestURI(), u.EscapedPath(), u.Path)
			if end := path.Base(u.Path); len(end) >= 8 {
				secrets = append(secrets, end)
			}
		}
	} else {
		api := cfg.APIURL
		if api == "" {
			api = defaultAPI
		}
		s.url, s.judge = strings.TrimSuffix(api, "/")+"/chat.postMessage", judgeAPI
		secrets = append(secrets, cfg.Token.Reveal())
	}
	pairs := make([]string, 0, 2*len(secrets))
	for _, secret := range secrets {
		if len(secret) > 1 { // not "/"
			pairs = append(pairs, secret, "(sensitive)")
		}
	}
	s.hide = strings.NewReplacer(pairs...)
	return s
}

// Deliver posts the message for ev.
func (s *slack) Deliver(ctx context.Context, ev sink.Event) error {
	body, err := s.cfg.render(ev)
	if err != nil {
		return sink.Permanent(err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxTime)
		defer cancel()
	}
	a, err := s.post(ctx, body)
	s.responses.Inc(statusClass(a.status))
	if err != nil {
		return err
	}
	v := s.judge(a, time.Now())
	if v.outcome == sink.OutcomeThrottled {
		s.throttled.Inc()
	}
	v.text = s.hide.Replace(v.text)
	return v.err()
}

// Metrics are the figures that the sink keeps.
func (s *slack) Metrics() []sink.Metric { return []sink.Metric{s.responses, s.throttled} }

// classes are the classes of statuses, for metrics; the last one is that of what
// was never answered.
func classes() []string { return []string{"1xx", "2xx", "3xx", "4xx", "5xx", "none"} }

// statusClass returns the class of a status; one that is none counts as no answer.
func statusClass(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return classes()[status/100-1]
}

// post sends body and returns the answer.
func (s *slack) post(ctx context.Context, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return answer{}, sink.Permanent(errors.New("the URL cannot be used"))
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "callbackd/"+version)
	if token := s.cfg.Token.Reveal(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return answer{}, s.failure("post the message", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil && res.StatusCode == http.StatusOK:
		return answer{}, s.failure("read Slack's answer", err)
	case len(text) > maxAnswer:
		return answer{}, fmt.Errorf("the answer (HTTP %d) is longer than %d bytes: it is not Slack's", res.StatusCode, maxAnswer)
	}
	// Of an answer other than 200 the status counts even when the rest is cut off.
	return answer{status: res.StatusCode, retryAfter: res.Header.Get("Retry-After"), body: text}, nil
}

// Close gives the connections back.
func (s *slack) Close(context.Context) error {
	s.client.CloseIdleConnections()
	return nil
}

// failure makes an error of a failed request that does not show the URL, which
// *url.Error would.
func (s *slack) failure(what string, err error) error {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	return &requestError{text: what + ": " + s.hide.Replace(err.Error()), err: err}
}

// requestError is err with a text of its own.
type requestError struct {
	text string
	err  error
}

func (e *requestError) Error() string { return e.text }

// Is lets callers recognise a context that ended, and nothing that would show
// more than the text does.
func (e *requestError) Is(target error) bool {
	return (target == context.Canceled || target == context.DeadlineExceeded) && errors.Is(e.err, target)
}
