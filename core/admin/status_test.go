package admin_test

import (
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/queue"
)

func TestRefusingOf(t *testing.T) {
	since := time.Now()
	last := since.Add(time.Second)
	for cause, reason := range map[queue.NoRoomCause]string{
		queue.NoRoomDisk:    "the disk of the queue is full",
		queue.NoRoomReserve: "the disk of the queue has less left than queue.reserve_bytes",
		queue.NoRoomQueue:   "the queue has reached queue.max_bytes",
		queue.NoRoomBacklog: `the backlog of sink "dl" is full`,
	} {
		n := queue.NoRoom{Cause: cause, Since: since, Last: last}
		if cause == queue.NoRoomBacklog {
			n.Sink = "dl"
		}
		got := admin.RefusingOf(queue.Stats{NoRoom: []queue.NoRoom{n}})
		if len(got) != 1 || got[0] != (admin.Refusing{Cause: string(cause), Sink: n.Sink, Reason: reason, Since: since, Last: last}) {
			t.Errorf("%s: %+v", cause, got)
		}
	}
	if got := admin.RefusingOf(queue.Stats{}); got != nil {
		t.Errorf("nothing is refused: %+v", got)
	}
}
