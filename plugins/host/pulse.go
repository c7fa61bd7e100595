package host

import (
	"sync/atomic"
	"time"
)

// pulse tells a plugin that is busy from one that hangs. A plugin whose hands are
// full may be late with its answer to Check; one that also makes no progress
// with deliveries for longer than a delivery may take is not busy.
type pulse struct {
	calls atomic.Int64 // Deliver calls under way
	// quietSince is when the last progress was made or, if none was since, when
	// the first call began that waits for it. 0: nothing is waited for.
	quietSince atomic.Int64 // nanoseconds since 1970
	patience   atomic.Int64 // nanoseconds that a delivery may take
}

// begin notes a Deliver call.
func (p *pulse) begin(now time.Time, patience time.Duration) {
	p.patience.Store(int64(patience))
	p.calls.Add(1)
	p.quietSince.CompareAndSwap(0, now.UnixNano())
}

// beat notes progress.
func (p *pulse) beat(now time.Time) { p.quietSince.Store(now.UnixNano()) }

// end notes the end of a call. One that ended well leaves no doubt behind; one
// that timed out does.
func (p *pulse) end(well bool) {
	if p.calls.Add(-1) == 0 && well {
		p.quietSince.Store(0)
	}
}

// busy tells whether deliveries are under way and may well take this long.
func (p *pulse) busy(now time.Time) bool {
	since := p.quietSince.Load()
	return p.calls.Load() > 0 && since != 0 && now.UnixNano()-since < p.patience.Load()
}
