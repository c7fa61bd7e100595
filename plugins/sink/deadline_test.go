package sink

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestDeadlineContext holds the context of an event to context.WithDeadline, whether
// somebody has asked for Done or not.
func TestDeadlineContext(t *testing.T) {
	type key struct{}
	for _, asked := range []bool{false, true} {
		for _, c := range []struct {
			name string
			do   func(cancelParent func(), end func())
			want error
		}{
			{"nothing has happened", func(func(), func()) {}, nil},
			{"a moment before the deadline", func(func(), func()) { time.Sleep(time.Second - 1) }, nil},
			{"the deadline", func(func(), func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
			{"the parent ends", func(cancelParent, _ func()) { cancelParent() }, context.Canceled},
			{"the work ends", func(_, end func()) { end() }, context.Canceled},
			{"the work ends after the deadline", func(_, end func()) { time.Sleep(time.Second); end() }, nil}, // see below
		} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
					defer cancel()
					ctx := withDeadline(parent, time.Now().Add(time.Second))
					reference, cancelReference := context.WithDeadline(parent, time.Now().Add(time.Second))
					defer cancelReference()
					defer ctx.end()
					if asked {
						ctx.Done()
					}
					c.do(cancel, func() { ctx.end(); cancelReference() })
					synctest.Wait()
					want := reference.Err()
					if c.want != nil && !errors.Is(want, c.want) {
						t.Fatalf("the reference says %v, want %v", want, c.want)
					}
					if got := ctx.Err(); (got == nil) != (want == nil) {
						t.Fatalf("%v, want %v", got, want)
					}
					if c.want != nil && !errors.Is(ctx.Err(), c.want) {
						t.Fatalf("%v, want %v", ctx.Err(), c.want)
					}
					select {
					case <-ctx.Done():
						if want == nil {
							t.Fatal("it is done")
						}
					default:
						if want != nil {
							t.Fatal("it is not done")
						}
					}
					if got, _ := ctx.Deadline(); !got.Equal(must(reference.Deadline())) || ctx.Value(key{}) != "v" {
						t.Fatalf("deadline %v, value %v", got, ctx.Value(key{}))
					}
				})
			})
		}
	}
}

func must(t time.Time, _ bool) time.Time { return t }

// TestDeadlineContextWakes: who waits for Done is woken by the deadline, also through
// a context made of it.
func TestDeadlineContextWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx := withDeadline(parent, time.Now().Add(time.Hour)) // the parent's is earlier
		defer ctx.end()
		child, cancelChild := context.WithCancel(ctx)
		defer cancelChild()
		began := time.Now()
		<-child.Done()
		if took := time.Since(began); took != time.Minute || !errors.Is(child.Err(), context.DeadlineExceeded) {
			t.Fatalf("%v after %v", child.Err(), took)
		}
	})
}
