package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync/atomic"
	"time"
)

// diskEvery is how often the free space of the disk is asked for, at most.
const diskEvery = 250 * time.Millisecond

// headroomParts is how many times what is accepted before the disk is asked again
// has to fit into what was free above the reserve: it is written more than once.
const headroomParts = 8

// againParts: callbacks are accepted again when the reserve is free and one part in
// so many of it.
const againParts = 16

// roomLimits are the limits of the queue as a whole; see Options.
type roomLimits struct{ maxBytes, reserveBytes int64 }

// room decides what is refused because the queue or its disk is full. The
// committer alone uses it.
type room struct {
	options Options
	limits  *atomic.Pointer[roomLimits]
	health  *health
	reclaim *reclaimer
	refused *refusals

	diskAsked time.Time
	// headroom is how many bytes above the reserve were free then, accepted what
	// came since: large callbacks fill a disk in less than diskEvery.
	headroom, accepted int64
	diskUnknown        bool
	diskLow            bool
	fullLogged         time.Time
	sinkLogged         map[string]time.Time
}

// check tells whether a queue that holds so many bytes has room for more.
func (r *room) check(holds, more int64, now time.Time) error {
	limit := r.limits.Load().maxBytes
	if holds+more > limit {
		if now.Sub(r.fullLogged) >= time.Minute {
			r.fullLogged = now
			r.options.Logger.Error("queue is full, refusing callbacks", "dir", r.options.Dir, "limit_bytes", limit)
		}
		r.refused.note(refusedBy{cause: NoRoomQueue}, more, now)
		return fmt.Errorf("%w: it holds %d of %d bytes", ErrFull, holds, limit)
	}
	r.refused.accepted(refusedBy{cause: NoRoomQueue}, now)
	r.accepted += more
	if now.Sub(r.diskAsked) >= diskEvery || (!r.diskLow && !r.diskUnknown && r.accepted > r.headroom/headroomParts) {
		r.diskAsked, r.accepted = now, more
		r.askDisk()
		if r.diskLow {
			r.reclaim.start(now, r.hasRoom)
		}
		if err := r.health.error(); err != nil {
			return err
		}
	}
	if r.diskLow {
		r.refused.note(refusedBy{cause: NoRoomReserve}, more, now)
		return fmt.Errorf("%w: its disk has less than %d bytes left", ErrFull, r.limits.Load().reserveBytes)
	}
	r.refused.accepted(refusedBy{cause: NoRoomReserve}, now)
	return nil
}

// askDisk looks at the free space.
func (r *room) askDisk() {
	log := r.options.Logger.With("dir", r.options.Dir)
	usage, err := r.options.fs.GetDiskUsage(r.options.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		// The open files still take what is written and synced, but nobody will
		// ever find it again.
		r.health.fail(fmt.Errorf("the directory of the queue is gone: %w", err))
		return
	}
	if err != nil {
		if !r.diskUnknown {
			log.Warn("free disk space is unknown, the reserve is not kept", "error", err)
		}
		r.diskUnknown, r.diskLow = true, false
		return
	}
	r.diskUnknown = false
	r.headroom = int64(min(usage.AvailBytes, math.MaxInt64)) - r.limits.Load().reserveBytes
	low := r.headroom < 0 || (r.diskLow && !r.limits.Load().enough(usage.AvailBytes))
	if low == r.diskLow {
		return
	}
	r.diskLow = low
	if low {
		log.Error("disk is nearly full, refusing callbacks", "free_bytes", usage.AvailBytes, "reserve_bytes", r.limits.Load().reserveBytes)
	} else {
		log.Info("disk has room again", "free_bytes", usage.AvailBytes)
	}
}

// hasRoom is enough for now. Anybody may call it.
func (r *room) hasRoom() bool { return hasRoom(r.options, r.limits.Load()) }

func hasRoom(o Options, limits *roomLimits) bool {
	usage, err := o.fs.GetDiskUsage(o.Dir)
	return err != nil || limits.enough(usage.AvailBytes)
}

// enough tells whether so many free bytes end a shortage: some more than the
// reserve, or it would begin again at once.
func (l *roomLimits) enough(free uint64) bool {
	reserve := uint64(l.reserveBytes)
	return free >= reserve+reserve/againParts
}

// backlogFull tells people that the backlog of a sink is full, once a minute at
// most.
func (r *room) backlogFull(sink, whenFull string, limit int64, now time.Time) {
	if now.Sub(r.sinkLogged[sink]) < time.Minute {
		return
	}
	if r.sinkLogged == nil {
		r.sinkLogged = make(map[string]time.Time)
	}
	r.sinkLogged[sink] = now
	r.options.Logger.Error("the backlog of a sink is full", "sink", sink, "limit_bytes", limit, "when_full", whenFull)
}
