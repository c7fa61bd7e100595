package core

import (
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

func TestLastError(t *testing.T) {
	now := time.Now()
	crashed := now.Add(-20 * time.Second)
	after, before := crashed.Add(time.Second), crashed.Add(-time.Second)
	of := func(up bool, since time.Time) host.State {
		return host.State{Up: up, Since: since, LastError: "exited with status 3", LastErrorAt: crashed}
	}
	for _, tt := range []struct {
		name      string
		state     host.State
		problem   *problem
		delivered time.Time
		want      string
		at        time.Time
	}{
		{name: "none", state: host.State{Up: true, Since: before}},
		{name: "down", state: of(false, crashed.Add(-time.Hour)), want: "exited with status 3", at: crashed},
		{name: "just ready again", state: of(true, after), delivered: before, want: "exited with status 3", at: crashed},
		{name: "ready again, and delivered something", state: of(true, after), delivered: after},
		{name: "ready for a while", state: of(true, now.Add(-toldFor))},
		{name: "not configured", state: of(true, now.Add(-toldFor)), problem: &problem{"wrong token", after}, want: "wrong token", at: after},
	} {
		if text, at := lastError(tt.state, tt.problem, tt.delivered, now); text != tt.want || !at.Equal(tt.at) {
			t.Errorf("%s: %q at %s, want %q at %s", tt.name, text, at, tt.want, tt.at)
		}
	}
}

func TestNextTry(t *testing.T) {
	now := time.Now()
	soon, later := now.Add(time.Second), now.Add(time.Minute)
	for _, tt := range []struct {
		name  string
		doing deliver.Status
		kept  queue.SinkStats
		want  time.Time
	}{
		{name: "nothing waits"},
		{name: "all is to be tried again later", kept: queue.SinkStats{Delayed: 2, NextDue: soon}, want: soon},
		{name: "something is due", kept: queue.SinkStats{Delayed: 2, Pending: 1}},
		{name: "what is due waits behind the other", kept: queue.SinkStats{Delayed: 1, Pending: 2, NextDue: soon}, want: soon},
		{name: "something is being tried", kept: queue.SinkStats{Delayed: 2, InFlight: 1, NextDue: soon}},
		{name: "breaker", doing: deliver.Status{Breaker: deliver.BreakerOpen, OpenUntil: later, PausedUntil: soon}, kept: queue.SinkStats{NextDue: soon}, want: later},
		{name: "pause", doing: deliver.Status{PausedUntil: later}, kept: queue.SinkStats{Pending: 1, NextDue: soon}, want: later},
	} {
		var s admin.SinkStatus
		tellWork(&s, tt.doing, strings.ToUpper)
		tellKept(&s, tt.kept, now)
		if !s.NextTry.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, s.NextTry, tt.want)
		}
	}
}

func TestStatusOfASink(t *testing.T) {
	now := time.Now()
	doing := deliver.Status{
		RateLimit: &deliver.Rate{PerSecond: 10}, RateLimited: true,
		Failure: &deliver.Failure{Error: "secret", At: now, Since: now.Add(-time.Minute)},
	}
	var s admin.SinkStatus
	tellWork(&s, doing, func(text string) string { return strings.ReplaceAll(text, "secret", "***") })
	if f := s.LastFailure; f == nil || f.Error != "***" || !f.At.Equal(now) || !f.FailingSince.Equal(now.Add(-time.Minute)) {
		t.Errorf("%+v", f)
	}
	idle := s
	tellKept(&idle, queue.SinkStats{}, now)
	if idle.RateLimited || idle.RateLimit != 10 || idle.WhenFull != "" {
		t.Errorf("nothing waits for the rate: %+v", idle)
	}
	kept := queue.SinkStats{
		Pending: 1, Bytes: 60, MaxBacklog: 64, WhenFull: queue.RefuseNew, BlockedKeys: 2, Behind: 38,
		OldestPending: now.Add(-time.Minute),
	}
	tellKept(&s, kept, now)
	if !s.RateLimited || s.BacklogBytes != 60 || s.MaxBacklogBytes != 64 || s.WhenFull != "refuse" || s.BlockedOrderKeys != 2 || s.BehindBlocked != 38 || s.OldestPendingSeconds != 60 {
		t.Errorf("%+v", s)
	}
}
