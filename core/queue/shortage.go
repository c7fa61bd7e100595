package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// roomEvery is how often a write that found no room on the disk is tried
	// again.
	roomEvery = 100 * time.Millisecond
	// shortFor is how long the disk counts as full after a write of a table has
	// found no room: Pebble tries that again by itself.
	shortFor = time.Second
)

// shortage tells whether writes find no room on the disk at present: others have
// used up the reserve. It is no failure. What is being written waits, nothing is
// accepted, and all goes on when there is room.
type shortage struct {
	log *slog.Logger

	// began has a channel that is closed while it lasts: every append looks at it.
	began atomic.Pointer[chan struct{}]

	mu     sync.Mutex
	count  int         // of what makes it last
	since  time.Time   // when it began
	table  *time.Timer // the end of one that a table has met; nil: none has
	logged time.Time
}

func newShortage(log *slog.Logger) *shortage {
	s := &shortage{log: log}
	s.renew()
	return s
}

func (s *shortage) renew() {
	began := make(chan struct{})
	s.began.Store(&began)
}

// error is an ErrFull while the shortage lasts.
func (s *shortage) error() error {
	select {
	case <-s.begin():
		return errNoSpace
	default:
		return nil
	}
}

var errNoSpace = fmt.Errorf("%w: its disk is full", ErrFull)

// lasting is since when it lasts; zero: it does not.
func (s *shortage) lasting() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == 0 {
		return time.Time{}
	}
	return s.since
}

// begin is closed when a shortage begins, or lasts.
func (s *shortage) begin() <-chan struct{} { return *s.began.Load() }

// enter and leave are called by a write that waits for room.
func (s *shortage) enter(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more(what)
}

func (s *shortage) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.less()
}

// met notes that a write of a table found no room.
func (s *shortage) met(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table != nil {
		s.table.Reset(shortFor)
		return
	}
	s.more(what)
	s.table = time.AfterFunc(shortFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.table = nil
		s.less()
	})
}

// more and less need mu.
func (s *shortage) more(what string) {
	s.count++
	if s.count > 1 {
		return
	}
	close(*s.began.Load())
	now := time.Now()
	s.since = now
	if now.Sub(s.logged) >= time.Minute {
		s.logged = now
		s.log.Error("the disk is full: writes wait for room, callbacks are refused", "file", what)
	}
}

func (s *shortage) less() {
	if s.count--; s.count == 0 {
		s.renew()
	}
}

// isNoRoom tells whether a write may succeed when others free space.
func isNoRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
