package admin

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
)

// Limits of what is shown of dead letters.
const (
	defaultLetters = 100
	maxLetters     = 1000
	// maxScanned and scanTime bound what one page looks at.
	maxScanned = 20_000
	scanTime   = 5 * time.Second
	// summaryScanned bounds what is counted.
	summaryScanned = 100_000
	// shownBody is how much of a body is shown, unless all of it is asked for.
	shownBody = 64 << 10
)

// DeadLetterQueue is what is shown of.
type DeadLetterQueue interface {
	DeadLetters(ctx context.Context, filter queue.Filter, f func(queue.DeadLetter) bool) error
	DeadLetter(ctx context.Context, id string) (queue.DeadLetter, error)
	Stats() queue.Stats
}

// DeadLetters is where an operator looks at dead letters, and says what is to become
// of them.
type DeadLetters struct {
	Queue DeadLetterQueue
	Jobs  Jobs
	// Mask hides secrets in a text.
	Mask func(string) string
}

// DeadLetter is a dead letter as a list shows it. Fields are only ever added.
type DeadLetter struct {
	// ID is the delivery's.
	ID       string `json:"id"`
	EventID  string `json:"event_id"`
	Source   string `json:"source"`
	Type     string `json:"type"`
	Subject  string `json:"subject,omitempty"`
	Pipeline string `json:"pipeline"`
	Sink     string `json:"sink"`
	Reason   string `json:"reason"`
	// Error is the last one.
	Error    string `json:"error,omitempty"`
	Attempts int    `json:"attempts"`
	// Accepted is when the event was accepted, Died when its delivery became a dead
	// letter.
	Accepted time.Time `json:"accepted"`
	Died     time.Time `json:"died"`
	BodySize int       `json:"body_size"`
}

// DeadLetterPage is a part of the list, oldest first.
type DeadLetterPage struct {
	DeadLetters []DeadLetter `json:"dead_letters"`
	// Next is where the next page begins: the after of its request. Empty: this is
	// the last one. A page may be short, even empty, and not the last.
	Next string `json:"next,omitempty"`
	// Scanned is how many were looked at for this page.
	Scanned int `json:"scanned"`
}

// FullDeadLetter is a dead letter with its event.
type FullDeadLetter struct {
	DeadLetter
	// Time is the event's.
	Time        time.Time         `json:"time"`
	ContentType string            `json:"content_type,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Query       map[string]string `json:"query,omitempty"`
	// Body is the body where it is text, else BodyBase64 is.
	Body       string `json:"body,omitempty"`
	BodyBase64 string `json:"body_base64,omitempty"`
	// BodyCut: only the beginning of the body is shown.
	BodyCut bool `json:"body_cut,omitempty"`
	// BodyMasked: the body had a secret of the configuration in it.
	BodyMasked bool `json:"body_masked,omitempty"`
}

// DeadLetterSummary counts dead letters.
type DeadLetterSummary struct {
	// Kept is how many there are, Scanned how many were looked at. Complete: those
	// are all that may pass the filter. Else, the oldest were counted.
	Kept     int64             `json:"kept"`
	Scanned  int               `json:"scanned"`
	Complete bool              `json:"complete"`
	Counts   []DeadLetterCount `json:"counts"`
}

// DeadLetterCount is how many dead letters have a sink and a reason.
type DeadLetterCount struct {
	Sink   string    `json:"sink"`
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
	Latest time.Time `json:"latest"`
}

func (d *DeadLetters) routes(mux *http.ServeMux) {
	for pattern, answer := range map[string]func(*http.Request) (int, any, error){
		"GET /api/v1/deadletters":          d.list,
		"GET /api/v1/deadletters/summary":  d.summary,
		"GET /api/v1/deadletters/{id}":     d.show,
		"POST /api/v1/deadletters/redrive": d.redrive,
		"POST /api/v1/deadletters/discard": d.discard,
		"GET /api/v1/jobs":                 d.jobs,
		"GET /api/v1/jobs/{id}":            d.job,
		"POST /api/v1/jobs/{id}/cancel":    d.cancel,
	} {
		mux.HandleFunc(pattern, api(d.Mask, answer))
	}
}

// filterNames are the parameters of a filter.
func filterNames(more ...string) []string {
	return append([]string{"sink", "pipeline", "reason", "type", "since", "until"}, more...)
}

// filter is a filter as it comes in, in a query or a body.
type filter struct {
	Sink     string `json:"sink"`
	Pipeline string `json:"pipeline"`
	Reason   string `json:"reason"`
	Type     string `json:"type"`
	Since    string `json:"since"`
	Until    string `json:"until"`
}

func (f *filter) parse() (redrive.Filter, error) {
	out := redrive.Filter{Sink: f.Sink, Pipeline: f.Pipeline, Reason: event.Reason(f.Reason), Type: f.Type}
	now := time.Now()
	var err error
	if out.Since, err = ParseMoment(f.Since, now); err != nil {
		return out, badRequest("since: %s", err)
	}
	if out.Until, err = ParseMoment(f.Until, now); err != nil {
		return out, badRequest("until: %s", err)
	}
	return out, out.Check()
}

func queryFilter(r *http.Request) (redrive.Filter, error) {
	q := r.URL.Query()
	f := filter{q.Get("sink"), q.Get("pipeline"), q.Get("reason"), q.Get("type"), q.Get("since"), q.Get("until")}
	return f.parse()
}

// scan calls f with the dead letters that pass a filter, until it returns false or
// most were looked at. It tells how many were, and where to go on; zero: there are
// no more. What does not pass is looked at here, so that a filter that hardly
// anything passes costs no more than another.
func (d *DeadLetters) scan(ctx context.Context, by redrive.Filter, after queue.DeadKey, most int, f func(queue.DeadLetter) bool) (scanned int, next queue.DeadKey, err error) {
	began, last := time.Now(), after
	ctx, cancel := context.WithTimeout(ctx, 3*scanTime)
	defer cancel()
	of := queue.Filter{Sink: by.Sink, From: by.Since, Until: by.Until, After: after}
	err = d.Queue.DeadLetters(ctx, of, func(l queue.DeadLetter) bool {
		if scanned == most || scanned > 0 && time.Since(began) > scanTime {
			next = last
			return false
		}
		passes := (by.Pipeline == "" || by.Pipeline == l.Pipeline) && (by.Reason == "" || by.Reason == l.Reason) && (by.Type == "" || by.Type == l.Event.Type)
		if passes && !f(l) {
			next = last
			return false
		}
		scanned++
		last = l.Key
		return true
	})
	if errors.Is(err, context.DeadlineExceeded) && scanned > 0 {
		return scanned, last, nil
	}
	return scanned, next, err
}

// list answers GET /api/v1/deadletters.
func (d *DeadLetters) list(r *http.Request) (int, any, error) {
	if err := onlyParameters(r, filterNames("limit", "after")...); err != nil {
		return 0, nil, err
	}
	by, err := queryFilter(r)
	if err != nil {
		return 0, nil, err
	}
	limit, err := number(r, "limit", defaultLetters, maxLetters)
	if err != nil {
		return 0, nil, err
	}
	after, err := parseCursor(r.URL.Query().Get("after"))
	if err != nil {
		return 0, nil, err
	}
	page := DeadLetterPage{DeadLetters: []DeadLetter{}}
	var next queue.DeadKey
	page.Scanned, next, err = d.scan(r.Context(), by, after, maxScanned, func(l queue.DeadLetter) bool {
		if len(page.DeadLetters) == limit {
			return false
		}
		page.DeadLetters = append(page.DeadLetters, d.describe(&l))
		return true
	})
	page.Next = cursor(next)
	return http.StatusOK, page, err
}

func (d *DeadLetters) describe(l *queue.DeadLetter) DeadLetter {
	return DeadLetter{
		ID: l.ID, EventID: l.EventID.String(), Source: l.Event.Source, Type: d.Mask(l.Event.Type), Subject: d.Mask(l.Event.Subject),
		Pipeline: l.Pipeline, Sink: l.Sink, Reason: string(l.Reason), Error: d.Mask(l.Error), Attempts: l.Attempts,
		Accepted: l.Accepted, Died: l.Died, BodySize: len(l.Event.Body),
	}
}

// summary answers GET /api/v1/deadletters/summary.
func (d *DeadLetters) summary(r *http.Request) (int, any, error) {
	if err := onlyParameters(r, filterNames()...); err != nil {
		return 0, nil, err
	}
	by, err := queryFilter(r)
	if err != nil {
		return 0, nil, err
	}
	out := DeadLetterSummary{Counts: []DeadLetterCount{}}
	for _, s := range d.Queue.Stats().Sinks {
		out.Kept += s.Dead
	}
	type of struct{ sink, reason string }
	counts := make(map[of]*DeadLetterCount)
	var next queue.DeadKey
	out.Scanned, next, err = d.scan(r.Context(), by, queue.DeadKey{}, summaryScanned, func(l queue.DeadLetter) bool {
		c := counts[of{l.Sink, string(l.Reason)}]
		if c == nil {
			c = &DeadLetterCount{Sink: l.Sink, Reason: string(l.Reason), Oldest: l.Died}
			counts[of{l.Sink, string(l.Reason)}] = c
		}
		c.Count++
		c.Latest = l.Died
		return true
	})
	out.Complete = next == queue.DeadKey{}
	for _, c := range counts {
		out.Counts = append(out.Counts, *c)
	}
	slices.SortFunc(out.Counts, func(a, b DeadLetterCount) int {
		return cmp.Or(strings.Compare(a.Sink, b.Sink), strings.Compare(a.Reason, b.Reason))
	})
	return http.StatusOK, out, err
}

// show answers GET /api/v1/deadletters/{id}.
func (d *DeadLetters) show(r *http.Request) (int, any, error) {
	if err := onlyParameters(r, "body"); err != nil {
		return 0, nil, err
	}
	most := shownBody
	switch r.URL.Query().Get("body") {
	case "":
	case "full":
		most = -1
	default:
		return 0, nil, badRequest("body is %q: it can be full, or left out", r.URL.Query().Get("body"))
	}
	l, err := d.Queue.DeadLetter(r.Context(), r.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	out := FullDeadLetter{
		DeadLetter: d.describe(&l), Time: l.Event.Time, ContentType: d.Mask(l.Event.ContentType),
		Headers: d.pairs(l.Event.Headers), Query: d.pairs(l.Event.Query),
	}
	d.showBody(&out, l.Event.Body, most)
	return http.StatusOK, out, nil
}

// showBody shows a body, or so many bytes of it.
func (d *DeadLetters) showBody(out *FullDeadLetter, body []byte, most int) {
	// Before it is cut, which could leave a part of a secret.
	text := d.Mask(string(body))
	out.BodyMasked = text != string(body)
	isText := utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
	})
	if most >= 0 && len(text) > most {
		for isText && most > 0 && !utf8.RuneStart(text[most]) {
			most--
		}
		text, out.BodyCut = text[:most], true
	}
	if isText {
		out.Body = text
	} else {
		out.BodyBase64 = base64.StdEncoding.EncodeToString([]byte(text))
	}
}

func (d *DeadLetters) pairs(pairs event.Pairs) map[string]string {
	out := make(map[string]string, len(pairs))
	for _, p := range pairs {
		out[d.Mask(p.Name)] = strings.ToValidUTF8(d.Mask(p.Value), "\uFFFD")
	}
	return out
}

// cursorVersion begins what a cursor is made of.
const cursorVersion = 1

// cursor is a place in the list, for a client to give back as it is.
func cursor(k queue.DeadKey) string {
	if k == (queue.DeadKey{}) {
		return ""
	}
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(k.Died))
	b = binary.BigEndian.AppendUint64(b, k.Seq)
	b = binary.BigEndian.AppendUint32(b, k.Index)
	return base64.RawURLEncoding.EncodeToString(append(b, k.Sink...))
}

func parseCursor(text string) (queue.DeadKey, error) {
	if text == "" {
		return queue.DeadKey{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil && (len(b) < 21 || b[0] != cursorVersion) {
		err = errors.New("it is too short, or of another version")
	}
	if err != nil {
		return queue.DeadKey{}, badRequest("after is none that a page named as its next: %s", err)
	}
	return queue.DeadKey{
		Died: int64(binary.BigEndian.Uint64(b[1:])), Seq: binary.BigEndian.Uint64(b[9:]), Index: binary.BigEndian.Uint32(b[17:]), Sink: string(b[21:]),
	}, nil
}
