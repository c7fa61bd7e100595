package admin

import (
	"testing"

	"github.com/callbackd/callbackd/core/queue"
)

// A cursor is a place, whatever a client makes of it.
func FuzzCursor(f *testing.F) {
	f.Add(cursor(queue.DeadKey{Sink: "crm", Died: 1, Seq: 2, Index: 3}))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseCursor(text)
		if err != nil {
			return
		}
		again, err := parseCursor(cursor(k))
		if err != nil || again != k {
			t.Errorf("%q is %+v, then %+v, %v", text, k, again, err)
		}
	})
}
