package e2e_test

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crashReceiver is the service behind a webhook sink: it accepts, fails, throttles,
// rejects, hangs and breaks connections, and remembers what it accepted, in which
// sequence.
type crashReceiver struct {
	seed   uint64
	ledger *ledger
	url    string
	whole  bool // it gets bodies as they were received
	fates  []fate
	// gentle: it accepts everything. down: it accepts nothing.
	gentle, down atomic.Bool

	mu       sync.Mutex
	attempts map[int]int
	accepted []int       // numbers of callbacks, as they came
	times    map[int]int // how often each was accepted
	ids      map[int]string
	rejected map[int]bool
}

// fate is what becomes of a request.
type fate struct {
	weight int
	// accept: it is accepted, whatever the answer is.
	accept bool
	// wait comes before the answer, code is it; 0: the connection is closed
	// without one.
	wait       time.Duration
	code       int
	retryAfter string
}

// orderedFates: about a fifth of the attempts does not succeed.
var orderedFates = []fate{
	{weight: 760, accept: true, code: http.StatusNoContent},
	{weight: 30, accept: true, wait: 50 * time.Millisecond, code: http.StatusOK},
	{weight: 100, code: http.StatusInternalServerError},
	{weight: 20, code: http.StatusServiceUnavailable},
	{weight: 3, code: http.StatusTooManyRequests, retryAfter: "1"},
	{weight: 2, code: http.StatusServiceUnavailable, retryAfter: "1"},
	{weight: 5, code: http.StatusNotFound},
	{weight: 30, accept: true}, // accepted, and nobody is told
	{weight: 30},
	{weight: 10, accept: true, wait: 1500 * time.Millisecond, code: http.StatusOK}, // likewise
	{weight: 5, wait: 1500 * time.Millisecond, code: http.StatusInternalServerError},
	{weight: 5, code: http.StatusFound},
}

// tinyFates: it works, or it is down.
var tinyFates = []fate{
	{weight: 97, accept: true, code: http.StatusOK},
	{weight: 3, code: http.StatusBadGateway},
}

func newCrashReceiver(t *testing.T, seed uint64, l *ledger, fates []fate, whole bool) *crashReceiver {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &crashReceiver{
		seed: seed, ledger: l, url: "http://" + ln.Addr().String(), whole: whole, fates: fates,
		attempts: map[int]int{}, times: map[int]int{}, ids: map[int]string{}, rejected: map[int]bool{},
	}
	server := &http.Server{Handler: r, ReadTimeout: patience}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return r
}

// fateOf depends on the seed, the callback and the attempt, and on nothing else.
func (r *crashReceiver) fateOf(n, attempt int) fate {
	total := 0
	for _, f := range r.fates {
		total += f.weight
	}
	drawn := rand.New(rand.NewPCG(r.seed, uint64(n)<<16|uint64(attempt))).IntN(total)
	for _, f := range r.fates {
		if drawn -= f.weight; drawn < 0 {
			return f
		}
	}
	panic("the weights do not add up")
}

func (r *crashReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // its sender is gone
	}
	n, ok := r.read(body)
	if !ok {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	f := r.take(n, req.Header.Get("Webhook-Id"))
	if f.wait > 0 {
		select {
		case <-time.After(f.wait):
		case <-req.Context().Done():
		}
	}
	if f.code == 0 {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	if f.code == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(f.code)
}

// read finds out which callback a body belongs to, and whether it is what was sent.
func (r *crashReceiver) read(body []byte) (n int, ok bool) {
	var x struct {
		N int
	}
	if err := json.Unmarshal(body, &x); err != nil {
		r.ledger.accuse("a receiver got a body that is none: %.100q", body)
		return 0, false
	}
	p := r.ledger.find(x.N)
	if p == nil || r.whole && p.sum != sum(body) {
		r.ledger.accuse("a receiver got what nobody sent: %.100q", body)
		return 0, false
	}
	return x.N, true
}

// take decides what becomes of a request, and notes it at once: what is accepted is
// accepted before anybody is told.
func (r *crashReceiver) take(n int, id string) fate {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.ids[n]; known != "" && known != id || id == "" {
		r.ledger.accuse("callback %d was delivered with the ids %q and %q", n, known, id)
	}
	r.ids[n] = id
	r.attempts[n]++
	f := r.fateOf(n, r.attempts[n])
	switch {
	case r.gentle.Load():
		f = fate{accept: true, code: http.StatusNoContent}
	case r.down.Load():
		f = fate{}
		if n%2 == 0 {
			f.code = http.StatusBadGateway
		}
	}
	if f.accept {
		r.accepted = append(r.accepted, n)
		r.times[n]++
	}
	if f.code == http.StatusNotFound {
		r.rejected[n] = true
	}
	return f
}
