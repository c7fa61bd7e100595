package contract

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The marks by which the Receiver knows an event that it has to refuse or to keep
// waiting, wherever in a request they stand.
const (
	markFailing = "callbackd-test-failing"
	markSlow    = "callbackd-test-slow"
)

// maxReceived bounds the body of a request to the Receiver: the largest event,
// encoded.
const maxReceived = 128 << 20

// Receiver is an HTTP server on this machine that stands in for what a sink
// delivers to. It answers each request with 200 and the text "ok", but refuses
// with 500 what the contract means to fail, and answers late what it means to be
// slow. For that an event's type, subject or body has to be in the request.
type Receiver struct {
	server *http.Server
	base   string
	ended  chan struct{}

	mu      sync.Mutex
	mode    mode
	free    chan struct{} // closed when what is held may go on
	seen    int           // requests
	refused int           // of them, with 500
	held    int           // of them, made to wait
	arrived chan struct{} // closed and replaced with each request
}

// mode is how a Receiver answers.
type mode int

const (
	byMark  mode = iota // as the marks say
	failAll             // refuses everything
	holdAll             // keeps everything waiting
	passAll             // takes everything
	dropAll             // ends the connection without an answer
)

// NewReceiver starts a Receiver. It has to be closed.
func NewReceiver() (*Receiver, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the receiver: %w", err)
	}
	r := &Receiver{
		// The path is long and random: it stands for the secret that such a path often is.
		base:  fmt.Sprintf("http://%s/%s", listener.Addr(), rand.Text()),
		ended: make(chan struct{}), free: make(chan struct{}), arrived: make(chan struct{}),
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		defer close(r.ended)
		_ = r.server.Serve(listener) // ends with Close
	}()
	return r, nil
}

// URL is where it takes requests, with any path below it. The path is not to be
// guessed.
func (r *Receiver) URL() string { return r.base }

// Close ends it and everything that waits for it.
func (r *Receiver) Close() error {
	r.set(byMark)
	err := r.server.Close()
	<-r.ended
	return err
}

// set changes how it answers, and lets go what is held.
func (r *Receiver) set(m mode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.free)
	r.mode, r.free = m, make(chan struct{})
}

// counts are how many requests there were so far.
type counts struct{ seen, refused, held int }

func (r *Receiver) counts() counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return counts{r.seen, r.refused, r.held}
}

// await waits until enough, of the counts since then, or gives up after d.
func (r *Receiver) await(ctx context.Context, d time.Duration, enough func(counts) bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		r.mu.Lock()
		now, arrived := counts{r.seen, r.refused, r.held}, r.arrived
		r.mu.Unlock()
		if enough(now) {
			return true
		}
		select {
		case <-arrived:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if secret := strings.TrimPrefix(r.base, "http://"+req.Host); !strings.HasPrefix(req.URL.Path, secret) {
		http.Error(w, "this is not for here", http.StatusNotFound)
		return
	}
	text, err := requestText(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	refuse, hold, free := r.judge(text)
	if r.drops() {
		panic(http.ErrAbortHandler)
	}
	if hold {
		select {
		case <-free:
		case <-req.Context().Done():
			return
		}
	}
	if refuse {
		http.Error(w, "refused, as the contract's check wants it", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, "ok")
}

// judge counts a request and tells what to do with it.
func (r *Receiver) judge(text []byte) (refuse, hold bool, free <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	refuse = r.mode == failAll || r.mode == byMark && bytes.Contains(text, []byte(markFailing))
	hold = r.mode == holdAll || r.mode == byMark && bytes.Contains(text, []byte(markSlow))
	r.seen++
	if refuse {
		r.refused++
	}
	if hold {
		r.held++
	}
	close(r.arrived)
	r.arrived = make(chan struct{})
	return refuse, hold, r.free
}

func (r *Receiver) drops() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mode == dropAll
}

// requestText is all of a request in which a mark may stand.
func requestText(req *http.Request) ([]byte, error) {
	var text bytes.Buffer
	decoded, err := url.PathUnescape(req.RequestURI)
	if err != nil {
		decoded = req.RequestURI
	}
	text.WriteString(decoded)
	for name, values := range req.Header {
		text.WriteString("\n" + name + ": " + strings.Join(values, ", "))
	}
	text.WriteByte('\n')
	n, err := io.Copy(&text, io.LimitReader(req.Body, maxReceived+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the request: %w", err)
	case n > maxReceived:
		return nil, errors.New("the request is too large")
	}
	return text.Bytes(), nil
}
