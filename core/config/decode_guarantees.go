package config

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/callbackd/callbackd/plugins/schema"
)

func retrySpec() *spec {
	return &spec{name: "retry", attributes: []string{"min_backoff", "max_backoff", "max_attempts", "max_age", "max_retry_after"}}
}

func breakerSpec() *spec {
	return &spec{
		name:       "breaker",
		attributes: []string{"enabled", "failure_ratio", "min_attempts", "window", "open_for", "max_open_for", "probes"},
	}
}

func deadLetterSpec() *spec {
	return &spec{name: "dead_letter", attributes: []string{"max_age", "max_bytes"}}
}

const (
	maxBackoff  = 24 * time.Hour
	maxRetryAge = 365 * 24 * time.Hour

	// The bounds of everything that is a part of the queue.
	minQueueBytes = 1 << 20
	maxQueueBytes = 1 << 50
)

// guarantees decodes what a sink's deliveries can rely on: when they are tried
// again, when the sink is spared, in which order they go, how many may wait, and
// what becomes of those that cannot be delivered.
func (s *section) guarantees(out *Sink) {
	out.Retry = s.retry()
	if r := s.block(rateSpec()); r != nil {
		out.RateLimit = r.rate()
	}
	out.Breaker = s.breaker()
	out.OrderBy = s.eventText("order_by")
	s.size("max_backlog", &out.MaxBacklog, minQueueBytes, maxQueueBytes)
	out.WhenFull = WhenFullDeadLetter
	s.oneOf("when_full", &out.WhenFull, WhenFullDeadLetter, WhenFullRefuse, WhenFullDropOldest)
	out.DeadLetter.MaxAge = 30 * 24 * time.Hour
	if l := s.block(deadLetterSpec()); l != nil {
		l.duration("max_age", &out.DeadLetter.MaxAge, time.Second, maxRetryAge)
		l.size("max_bytes", &out.DeadLetter.MaxBytes, minQueueBytes, maxQueueBytes)
	}
}

func (s *section) retry() Retry {
	r := Retry{MinBackoff: time.Second, MaxBackoff: 10 * time.Minute, MaxAge: 72 * time.Hour, MaxRetryAfter: time.Hour}
	b := s.block(retrySpec())
	if b == nil {
		return r
	}
	b.duration("min_backoff", &r.MinBackoff, 10*time.Millisecond, maxBackoff)
	b.duration("max_backoff", &r.MaxBackoff, 10*time.Millisecond, maxBackoff)
	b.integer("max_attempts", &r.MaxAttempts, 1, 1_000_000)
	b.duration("max_age", &r.MaxAge, time.Second, maxRetryAge)
	b.duration("max_retry_after", &r.MaxRetryAfter, time.Second, maxBackoff)
	b.ordered("min_backoff", r.MinBackoff, "max_backoff", r.MaxBackoff)
	return r
}

func (s *section) breaker() Breaker {
	out := Breaker{
		FailureRatio: 0.9, MinAttempts: 20, Window: 10 * time.Second,
		OpenFor: 5 * time.Second, MaxOpenFor: time.Minute, Probes: 3,
	}
	b := s.block(breakerSpec())
	if b == nil {
		return out
	}
	b.float("failure_ratio", &out.FailureRatio, 0.01, 1)
	b.integer("min_attempts", &out.MinAttempts, 1, 100_000)
	b.duration("window", &out.Window, time.Second, 10*time.Minute)
	b.duration("open_for", &out.OpenFor, 100*time.Millisecond, time.Hour)
	b.duration("max_open_for", &out.MaxOpenFor, 100*time.Millisecond, 24*time.Hour)
	b.ordered("open_for", out.OpenFor, "max_open_for", out.MaxOpenFor)
	b.integer("probes", &out.Probes, 1, 1000)
	enabled := true
	if b.boolean("enabled", &enabled); !enabled {
		out.FailureRatio = 0
	}
	return out
}

// shareQueue gives each sink its share of the queue where the configuration does
// not say how much that is: the backlogs get a part each, and all dead letters
// together one more, so that the defaults never exceed the whole.
func (d *decoder) shareQueue(cfg *Config) {
	sinks := int64(len(cfg.Sinks))
	whole := cfg.Queue.MaxBytes
	for i := range cfg.Sinks {
		s := &cfg.Sinks[i]
		backlog := s.block.Body.Attributes["max_backlog"]
		letters := attributeOf(s.block.Body, "dead_letter", "max_bytes")
		share := max(whole/(sinks+1), 1)
		if s.MaxBacklog == 0 {
			s.MaxBacklog = share
		}
		if s.DeadLetter.MaxBytes == 0 {
			s.DeadLetter.MaxBytes = max(share/sinks, 1)
		}
		switch {
		case s.MaxBacklog > whole:
			d.exceedsQueue("max_backlog", backlog, whole)
		case s.DeadLetter.MaxBytes > whole:
			d.exceedsQueue("max_bytes", letters, whole)
		case s.MaxBacklog+s.DeadLetter.MaxBytes > whole:
			attr := backlog
			if attr == nil {
				attr = letters
			}
			d.problems.warnAt(attr.Expr.Range(), fmt.Sprintf("Sink %q alone can fill the queue", s.Name), fmt.Sprintf(
				"Its max_backlog (%s) and the max_bytes of its dead letters (%s) are more than queue.max_bytes (%s). Once they are used up, callbacks for all sinks are refused.",
				shortSize(s.MaxBacklog), shortSize(s.DeadLetter.MaxBytes), shortSize(whole)))
		}
	}
}

func (d *decoder) exceedsQueue(name string, attr *hclsyntax.Attribute, whole int64) {
	d.problems.errorAt(attr.Expr.Range(), fmt.Sprintf("Wrong value of %q", name),
		fmt.Sprintf("It must not be above queue.max_bytes, which is %s.", schema.FormatSize(whole)))
}

// attributeOf returns an attribute of the first block of a type, nil where there
// is none.
func attributeOf(body *hclsyntax.Body, block, name string) *hclsyntax.Attribute {
	for _, b := range body.Blocks {
		if b.Type == block {
			return b.Body.Attributes[name]
		}
	}
	return nil
}

// shortSize writes a size that was computed, without what is below 1 MiB.
func shortSize(n int64) string {
	const mib = 1 << 20
	if n > mib {
		n -= n % mib
	}
	return schema.FormatSize(n)
}
