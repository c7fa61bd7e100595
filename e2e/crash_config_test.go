package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// variant is what differs from one good configuration of the crash suite to
// another: what reloads and restarts change.
type variant struct {
	// extra: the sink "extra" is there, and gets what is meant for it. Without it
	// what waits for it is held as orphans.
	extra bool
	// fault is what the sink "faulty" does wrong.
	fault crashFault
	// attempts is the max_attempts of the sink "ordered"; 0: no bound.
	attempts int
	// inFlight changes only the worker of the sink "ordered", header its process.
	inFlight, header int
	backoff          int // milliseconds
	// extraRate bounds the sink "extra", so that something waits for it when it
	// goes; 0: nothing does.
	extraRate int
}

// crashFault are settings of the fault sink; after says how many attempts it gets.
type crashFault struct {
	settings string
	// reasons are those of the dead letters that can come of it.
	reasons []string
}

// faultyAttempts is the max_attempts of the sink "faulty".
const faultyAttempts = 3

// wellFault is no fault.
var wellFault = crashFault{}

// crashFaults are what variants choose from. What is there more than once is more
// likely.
var crashFaults = []crashFault{
	wellFault,
	{`on_deliver = "exit"
    only       = "poison"`, []string{"crashed"}},
	{`on_deliver = "exit"
    only       = "poison"`, []string{"crashed"}},
	{`on_deliver = "panic"
    only       = "poison"`, []string{"crashed"}},
	{`on_deliver = "exit_after_first"
    only       = "poison"`, []string{"crashed", "exhausted"}},
	{`on_deliver = "hang"
    only       = "sleepy"`, []string{"exhausted"}},
	{`on_deliver = "error"
    only       = "sleepy"`, []string{"exhausted"}},
	{`outcome = "rejected"
    fail_attempts = 1`, []string{"rejected"}},
	{`outcome = "retry"
    fail_attempts = 2`, []string{"exhausted"}},
	{`outcome = "retry"
    fail_attempts = 100`, []string{"exhausted"}},
	{`outcome     = "throttled"
    retry_after   = "100ms"
    fail_attempts = 1`, nil},
	{`results = "missing"`, []string{"exhausted"}},
	{`results = "duplicate"`, nil},
	{`results = "unknown_id"`, nil},
	{`results = "reversed"`, nil},
	{`results = "unknown_outcome"`, []string{"exhausted"}},
}

// orderedAttempts are the possible max_attempts of the sink "ordered".
var orderedAttempts = []int{0, 4, 8}

// newVariant chooses one. It draws the same however things stand.
func newVariant(random *rand.Rand) variant {
	return variant{
		extra: random.IntN(3) > 0, fault: crashFaults[random.IntN(len(crashFaults))], attempts: orderedAttempts[random.IntN(len(orderedAttempts))],
		inFlight: 4 + random.IntN(60), header: random.IntN(4), backoff: 10 + random.IntN(50),
		extraRate: []int{0, 10, 30}[random.IntN(3)],
	}
}

// lastVariant lets everything succeed.
func lastVariant() variant { return variant{extra: true, inFlight: 64, backoff: 20} }

// config is the configuration; what is not empty comes after it.
func (v variant) config(ordered, tiny, more string) string {
	attempts, extra := "", `
pipeline "extra" { # what it routed goes nowhere now, but may be moved
  from  = [source.in]
  match = false
  to    = [sink.spare]
`
	if v.attempts > 0 {
		attempts = fmt.Sprintf("max_attempts = %d", v.attempts)
	}
	if v.extra {
		limit := ""
		if v.extraRate > 0 {
			limit = fmt.Sprintf("rate_limit { per_second = %d }", v.extraRate)
		}
		extra = `
sink "file" "extra" {
  config { path = "extra.jsonl" }
  dead_letter { max_bytes = "5GiB" }
  ` + limit + `
}
pipeline "extra" {
  from  = [source.in]
  match = event.data.extra == true
  to    = [sink.extra]
`
	}
	return fmt.Sprintf(`
listen { address = "127.0.0.1:0" }
admin { address = "127.0.0.1:0" }
shutdown_grace = "1s"
queue { max_bytes = "20GiB" }
plugin "file" { # to start sooner; the others are as they are
  tls = false
  %[11]s
}
plugin "webhook" {
  tls = false
  %[11]s
}
source "http" "in" {
  path = "/in"
  dedupe {
    key    = data.once
    window = "168h"
  }
}
sink "file" "all" {
  config { path = "all.jsonl" }
  dead_letter { max_bytes = "5GiB" }
}
sink "file" "spare" { # what is moved goes there
  config { path = "spare.jsonl" }
  dead_letter { max_bytes = "5GiB" }
}
sink "webhook" "ordered" {
  timeout       = "1s"
  max_in_flight = %[4]d
  order_by      = event.data.key
  retry {
    min_backoff     = "%[6]dms"
    max_backoff     = "300ms"
    max_retry_after = "1s"
    %[3]s
  }
  breaker {
    open_for     = "200ms"
    max_open_for = "1s"
  }
  dead_letter { max_bytes = "5GiB" }
  config {
    url     = "%[1]s/"
    headers = { X-Variant = "%[5]d" }
  }
}
sink "webhook" "tiny" {
  timeout     = "1s"
  max_backlog = "1MiB"
  when_full   = "dead_letter"
  retry {
    min_backoff = "20ms"
    max_backoff = "300ms"
  }
  breaker {
    open_for     = "200ms"
    max_open_for = "1s"
  }
  dead_letter { max_bytes = "5GiB" }
  config { url = "%[2]s/" }
}
sink "fault" "faulty" {
  timeout = "500ms"
  retry {
    min_backoff  = "20ms"
    max_backoff  = "300ms"
    max_attempts = %[9]d
  }
  breaker {
    open_for     = "200ms"
    max_open_for = "1s"
  }
  dead_letter { max_bytes = "5GiB" }
  config {
    record = "faulty.ids"
    %[7]s
  }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.all]
  transform {
    body         = jsonencode({ n = event.data.n, via = "all" })
    content_type = "application/json"
  }
}
pipeline "ordered" {
  from = [source.in]
  to   = [sink.ordered]
}
pipeline "tiny" {
  from  = [source.in]
  match = event.data.tiny == true
  to    = [sink.tiny]
  transform {
    body         = jsonencode({ n = event.data.n, via = "tiny" })
    content_type = "application/json"
  }
}
pipeline "faulty" {
  from  = [source.in]
  match = event.data.faulty == true
  to    = [sink.faulty]
}
%[8]s
  transform {
    body         = jsonencode({ n = event.data.n, via = "extra" })
    content_type = "application/json"
  }
}
%[10]s
`, ordered, tiny, attempts, v.inFlight, v.header, v.backoff, v.fault.settings, strings.TrimSpace(extra), faultyAttempts, more, endAtOnce())
}

// crashBroken are configurations that must change nothing: what is added to a good
// one, or changed in it, and how the reload is answered.
var crashBroken = []struct {
	name, more string
	change     func(*variant)
	code       int
}{
	{name: "syntax", more: `pipeline "x" {`, code: 422},
	{name: "an unknown sink", more: "pipeline \"x\" {\n  from = [source.in]\n  to   = [sink.al]\n}", code: 422},
	{name: "a plugin that refuses its settings", more: "sink \"webhook\" \"x\" {\n  config { url = \"ftp://example.com/\" }\n}", code: 422},
	{name: "what takes a restart", more: `log { level = "debug" }`, code: 422},
	{name: "a sink that cannot be opened", more: "sink \"file\" \"x\" {\n  config { path = \"all.jsonl/x.jsonl\" }\n}", code: 500},
	{
		// The process of a sink that works has to end for it, and to come back.
		name: "a changed sink that does not come up", code: 500,
		change: func(v *variant) { v.fault.settings = `on_configure = "exit"` },
	},
}
