package queue_test

import (
	"testing"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/queue/queuetest"
	"go.uber.org/goleak"
)

func TestContract(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	open := func(o queue.Options) queuetest.Open {
		return func(t *testing.T, dir string, w queue.Watcher) queue.Queue {
			o := o // the tests run side by side
			o.Dir, o.Watcher = dir, w
			o.Sinks = map[string]queue.Limits{"a": {}, "b": {}}
			q, err := queue.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			return q
		}
	}
	t.Run("default", func(t *testing.T) { queuetest.Run(t, open(queue.Options{})) })
	// Nearly everything goes through the disk.
	t.Run("window of one", func(t *testing.T) { queuetest.Run(t, open(queue.Options{WindowEvents: 1})) })
}
