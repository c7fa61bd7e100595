package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// posted is one callback, as its sender knows it.
type posted struct {
	Key    string `json:"key"`
	Tiny   bool   `json:"tiny,omitempty"`
	Faulty bool   `json:"faulty,omitempty"`
	Extra  bool   `json:"extra,omitempty"`
	Word   string `json:"word,omitempty"` // "poison" or "sleepy", for the faulty sink
	Once   string `json:"once,omitempty"`
	N      int    `json:"n"`
	Pad    string `json:"pad,omitempty"`

	sum uint64 // of its body
	// id is the event's, as it was answered; empty: it was not.
	id string
	// routing: whether the sink "extra" was there when it was accepted, where that
	// is known.
	routing routing
	// late: its connection lasted longer than the sender waited, so nobody knows
	// when it was accepted.
	late bool
}

type routing int

const (
	routingUnknown routing = iota
	withExtra
	withoutExtra
)

// generation is a configuration that is in force. It is compared by its address.
type generation struct{ variant }

// ledger is what the senders know: what they have sent, and what was answered.
type ledger struct {
	mu       sync.Mutex
	all      []*posted // by their number
	answered int
	wrong    []string // what must not have happened

	// unanswered are requests, repeated callbacks that neither of the first two
	// requests was answered for.
	unanswered, repeated atomic.Int64
}

// enter gives a callback its number.
func (l *ledger) enter(p *posted) (body []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.N = len(l.all)
	if p.Once != "" {
		p.Once = fmt.Sprint("once-", p.N)
	}
	if body, err = json.Marshal(p); err != nil {
		return nil, err
	}
	p.Pad, p.sum = "", sum(body)
	l.all = append(l.all, p)
	return body, nil
}

// answer notes that a callback was answered with success.
func (l *ledger) answer(p *posted, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch p.id {
	case "":
		p.id = id
		l.answered++
	case id:
	default:
		l.wrong = append(l.wrong, fmt.Sprintf("callback %d was answered with the ids %s and %s, although its key is the same", p.N, p.id, id))
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered
}

// find returns a callback by its number.
func (l *ledger) find(n int) *posted {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n < 0 || n >= len(l.all) {
		return nil
	}
	return l.all[n]
}

func (l *ledger) accuse(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

func sum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// crashSender posts callbacks of its own keys, those of a key one after another.
type crashSender struct {
	rig    *crashRig
	number int
	random *rand.Rand
	client *http.Client
}

// senderPatience is how long a sender waits for an answer.
const senderPatience = 30 * time.Second

func newCrashSender(r *crashRig, number int) *crashSender {
	return &crashSender{
		rig: r, number: number, random: rand.New(rand.NewPCG(r.seed, 1_000_000+uint64(number))),
		client: &http.Client{Transport: &http.Transport{}, Timeout: senderPatience},
	}
}

// run posts until stop is closed.
func (s *crashSender) run(stop <-chan struct{}) {
	defer s.client.CloseIdleConnections()
	for {
		pause := time.NewTimer(time.Duration(20+s.random.IntN(200)) * time.Millisecond)
		select {
		case <-stop:
			pause.Stop()
			return
		case <-pause.C:
		}
		s.post(s.next(), stop)
	}
}

// next is the next callback: what it is depends on the seed alone.
func (s *crashSender) next() *posted {
	p := &posted{Key: fmt.Sprintf("%d-%d", s.number, s.random.IntN(2))}
	kind, word, doubled := s.random.IntN(12), s.random.IntN(300), s.random.IntN(6) == 0
	p.Tiny, p.Faulty, p.Extra = kind < 3, kind%3 == 1, kind%2 == 0
	switch {
	case word < 2:
		p.Word, p.Faulty = "poison", true
	case word < 5:
		p.Word, p.Faulty = "sleepy", true
	}
	if p.Tiny {
		p.Pad = string(bytes.Repeat([]byte("."), 8<<10+s.random.IntN(24<<10)))
	}
	if doubled {
		p.Once = "its number"
	}
	return p
}

// post posts a callback. One that is told twice is told until it is answered, which
// makes one event all the same; any other one is not tried again, as nobody knows
// what became of it.
func (s *crashSender) post(p *posted, stop <-chan struct{}) {
	body, err := s.rig.ledger.enter(p)
	if err != nil {
		s.rig.ledger.accuse("%v", err)
		return
	}
	before := s.rig.generation.Load()
	if p.Once == "" {
		s.send(p, body)
	} else {
		s.sendTwice(p, body, stop)
	}
	if after := s.rig.generation.Load(); before != nil && before == after {
		p.routing = withoutExtra
		if after.extra {
			p.routing = withExtra
		}
	}
}

// sendTwice tells a callback twice, at the same time or one after the other, and
// then until it was answered.
func (s *crashSender) sendTwice(p *posted, body []byte, stop <-chan struct{}) {
	var first bool
	if s.random.IntN(2) == 0 {
		var other sync.WaitGroup
		other.Go(func() { first = s.send(p, body) })
		second := s.send(p, body)
		other.Wait()
		first = first || second
	} else {
		first = s.send(p, body)
		first = s.send(p, body) || first
	}
	if !first {
		s.rig.ledger.repeated.Add(1)
	}
	for answered := first; !answered; answered = s.send(p, body) {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// send sends one request. It tells whether the answer was success.
func (s *crashSender) send(p *posted, body []byte) bool {
	d := s.rig.daemon.Load()
	if d == nil {
		time.Sleep(10 * time.Millisecond) // there is none
		return false
	}
	id, err := s.request(d, body)
	if err != nil {
		s.rig.ledger.unanswered.Add(1)
		var slow net.Error
		if errors.As(err, &slow) && slow.Timeout() {
			s.rig.ledger.mu.Lock()
			p.late = true
			s.rig.ledger.mu.Unlock()
		}
		return false
	}
	s.rig.ledger.answer(p, id)
	return true
}

func (s *crashSender) request(d *daemon, body []byte) (id string, err error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, d.url+"/in", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		// The head of the answer is there, and says whether it is success.
		if resp.StatusCode == http.StatusAccepted {
			return "", fmt.Errorf("the id was cut off: %w", err)
		}
		return "", err
	}
	switch resp.StatusCode {
	case http.StatusAccepted:
	case http.StatusServiceUnavailable:
		return "", errors.New("refused")
	default:
		s.rig.ledger.accuse("a callback was answered with %s: %.200s", resp.Status, answer)
		return "", errors.New(resp.Status)
	}
	var event struct{ ID string }
	if err := json.Unmarshal(answer, &event); err != nil || event.ID == "" {
		s.rig.ledger.accuse("a callback was answered with 202 and %.200q (%v)", answer, err)
		return "", errors.New("no id")
	}
	return event.ID, nil
}
