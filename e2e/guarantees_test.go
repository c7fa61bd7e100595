package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestBreakerAndRateLimit: what a sink block says of attempts holds for the daemon as
// a whole. A sink that is down is left alone, and gets what waited when it works; one
// with a rate limit gets no more than that.
func TestBreakerAndRateLimit(t *testing.T) {
	t.Parallel()
	down := freePort(t)
	slow := receive(t, "")
	d := start(t, t.TempDir(), fmt.Sprintf(`
source "http" "in" { path = "/in" }
sink "webhook" "down" {
  config { url = "http://127.0.0.1:%s/" }
  retry {
    min_backoff = "50ms"
    max_backoff = "200ms"
  }
  breaker { open_for = "500ms" }
}
sink "webhook" "limited" {
  config { url = "%s/" }
  rate_limit {
    per_second = 20
    burst      = 5
  }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.down, sink.limited]
}
`, down, slow.url))
	const n = 60
	began := time.Now()
	for i := range n {
		d.mustPost("/in", fmt.Sprintf(`{"n":%d}`, i), http.StatusAccepted)
	}
	d.eventuallyMetric(`callbackd_breaker_open{sink="down"}`, 1)
	if code, text := d.get("/api/v1/status"); code != http.StatusOK || !strings.Contains(text, `"breaker": "open"`) && !strings.Contains(text, `"breaker": "half_open"`) {
		t.Errorf("the status does not tell of the breaker: %d %s", code, text)
	}
	eventually(t, "all came by the limited sink", func() bool { return len(slow.all()) == n })
	if took := time.Since(began); took < (n-5-1)*time.Second/20 {
		t.Errorf("%d deliveries took %v at 20 a second and a burst of 5", n, took)
	}
	// 20 attempts open the breaker, some more are in flight then; after that there
	// are 3 every half second.
	if got := d.metric(`callbackd_attempts_total{outcome="retry",sink="down"}`); got > 150 {
		t.Errorf("%v attempts at a sink that is down", got)
	}
	up := receive(t, "127.0.0.1:"+down)
	eventually(t, "all came when it was up", func() bool { return len(up.all()) >= n })
	d.eventuallyMetric(`callbackd_breaker_open{sink="down"}`, 0)
}
