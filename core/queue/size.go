package queue

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Bounds of memTableSize.
const (
	minMemTableSize = 1 << 20
	maxMemTableSize = 32 << 20
	// reserveParts is how many times the reserve holds what one memtable may
	// write. Below the reserve nothing is accepted, but what was accepted last
	// is written to tables yet, what is settled goes on to be logged, and a
	// compaction needs room for its results before it frees what it read.
	reserveParts = 8
)

// memTableSize is how much is written to memory, and to a log of the same size,
// before it goes to a table. The larger, the more events are settled before
// anything of them goes to a table. But all that the store writes without being
// asked has to fit into the reserve: where a log does not find room, Pebble is
// lost. So a small disk with a small reserve has small logs.
func memTableSize(reserve int64) int64 {
	return min(max(reserve/reserveParts, minMemTableSize), maxMemTableSize)
}

// fitSizes sets those options that depend on the reserve.
func fitSizes(po *pebble.Options, reserve int64) {
	size := memTableSize(reserve)
	po.MemTableSize = uint64(size)
	po.LBaseMaxBytes = 2 * size
	po.TargetFileSizes[0] = size
	// A compaction out of level 0 takes what lies beside it along as long as all of it is
	// less than 25 tables of the next level. That is to be less than a memtable: events
	// would be rewritten with every compaction of counters.
	po.TargetFileSizes[1] = size / 32
	for level := 2; level < len(po.TargetFileSizes); level++ {
		po.TargetFileSizes[level] = size / 4 << (level - 1)
	}
}

// checkReserve refuses a reserve that is never met: nothing would ever be
// accepted.
func checkReserve(o Options) error {
	usage, err := o.fs.GetDiskUsage(o.Dir)
	if err != nil || usage.TotalBytes == 0 || usage.TotalBytes > uint64(o.ReserveBytes) {
		return nil //nolint:nilerr // where the size is unknown, the reserve is not kept; see room
	}
	return fmt.Errorf("queue %s: its disk has %d bytes in all, and queue.reserve_bytes wants %d of them free: nothing would ever be accepted; "+
		"put the queue on a larger disk, or set queue.reserve_bytes to a quarter of this one", o.Dir, usage.TotalBytes, o.ReserveBytes)
}
