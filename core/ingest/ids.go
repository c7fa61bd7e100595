package ingest

import (
	crand "crypto/rand"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// ids makes ULIDs. Those of one millisecond rise in the order they were made; all
// are unguessable: the generator is cryptographic and seeded by the system.
type ids struct {
	mu      sync.Mutex
	random  *rand.ChaCha8
	entropy *ulid.MonotonicEntropy
	bits    [10]byte // what entropy writes to; here, so that it costs no allocation
}

func newIDs() *ids {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails: the process ends where the system has no entropy
	random := rand.NewChaCha8(seed)
	return &ids{random: random, entropy: ulid.Monotonic(random, 0)}
}

// next returns an id for the time.
func (g *ids) next(t time.Time) ulid.ULID {
	g.mu.Lock()
	defer g.mu.Unlock()
	ms := ulid.Timestamp(t)
	if err := g.entropy.MonotonicRead(ms, g.bits[:]); err != nil {
		// The 80 random bits of this millisecond are used up. An id out of order is
		// as good: nobody takes ids for the order of commits.
		_, _ = g.random.Read(g.bits[:]) // never fails
	}
	var id ulid.ULID
	_ = id.SetTime(ms) // fails after the year 10889
	copy(id[6:], g.bits[:])
	return id
}
