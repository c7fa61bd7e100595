package queue

import (
	"container/heap"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

// delivery is one that is in memory: in a sink's window, or handed out. It is
// guarded by the mutex of its sink, except that its event and what follows from
// it are set by the taker that loads it, before anybody else sees them.
type delivery struct {
	pos      position // its key: at is when it is due, 0 for one never tried
	since    time.Time
	attempts int
	// suspicion is kept with a delivery to be tried again only, so one that was
	// never tried has none.
	suspicion Suspicion
	recLen    int // length of its record
	eventLen  int // length of the event's record
	// order is the delivery's order key, 0: none. blocked is what was known, when
	// it came to the window, of others with the key; see chain.
	order   uint64
	blocked bool

	event    *event.Event // nil: not read yet
	pipeline string
	routes   int // how many deliveries the event had

	state  state
	token  uint64
	expiry time.Time

	// Places in the heaps: one for the state, one among what is handed out.
	waitIndex, takenIndex int
}

type state uint8

const (
	waiting  state = iota // in a window
	behind                // in the window of those never tried, but not its key's turn
	eligible              // it is its key's turn
	loading               // taken, its event is being read
	leased                // handed out
	returned              // its lease ran out, or it was given back untried; a suspect waits again
	settling              // its settlement is being committed
)

type deliveryKey struct {
	seq   uint64
	index uint32
}

func (d *delivery) key() deliveryKey { return deliveryKey{d.pos.seq, d.pos.index} }
func (d *delivery) isFresh() bool    { return d.pos.at == 0 }

// deliveryHeap is an indexed heap, for container/heap.
type deliveryHeap struct {
	items []*delivery
	less  func(a, b *delivery) bool
	index func(*delivery) *int
}

func (h *deliveryHeap) Len() int           { return len(h.items) }
func (h *deliveryHeap) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }

func (h *deliveryHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.index(h.items[i]), *h.index(h.items[j]) = i, j
}

func (h *deliveryHeap) Push(x any) {
	d := x.(*delivery)
	*h.index(d) = len(h.items)
	h.items = append(h.items, d)
}

func (h *deliveryHeap) Pop() any {
	last := len(h.items) - 1
	d := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	*h.index(d) = -1
	return d
}

func (h *deliveryHeap) push(d *delivery)   { heap.Push(h, d) }
func (h *deliveryHeap) pop() *delivery     { return heap.Pop(h).(*delivery) }
func (h *deliveryHeap) remove(d *delivery) { heap.Remove(h, *h.index(d)) }
func (h *deliveryHeap) fix(d *delivery)    { heap.Fix(h, *h.index(d)) }

// first returns nil where the heap is empty.
func (h *deliveryHeap) first() *delivery {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0]
}

func waitIndex(d *delivery) *int  { return &d.waitIndex }
func takenIndex(d *delivery) *int { return &d.takenIndex }

func byPosition(a, b *delivery) bool { return a.pos.less(b.pos) }
func byExpiry(a, b *delivery) bool   { return a.expiry.Before(b.expiry) }

// byAcceptance is the order of the commits of their events.
func byAcceptance(a, b *delivery) bool {
	if a.pos.seq != b.pos.seq {
		return a.pos.seq < b.pos.seq
	}
	return a.pos.index < b.pos.index
}
