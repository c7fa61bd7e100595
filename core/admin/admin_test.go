package admin_test

import (
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server for the length of the test and returns its base URL.
func serve(t *testing.T, address string, notReady func() []string) string {
	t.Helper()
	return serveWith(t, address, "", notReady)
}

func serveWith(t *testing.T, address, webConfigFile string, notReady func() []string) string {
	t.Helper()
	return serveSettings(t, admin.Settings{
		Address: address, WebConfigFile: webConfigFile, NotReady: notReady, Status: func() admin.Status { return admin.Status{Version: "1.2.3"} }, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
}

func serveSettings(t *testing.T, settings admin.Settings) string {
	t.Helper()
	server, err := admin.New(settings)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + ln.Addr().String()
}

func do(t *testing.T, method, url string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHealthAndReadiness(t *testing.T) {
	var not []string
	url := serve(t, "127.0.0.1:0", func() []string { return not })
	for _, path := range []string{"/-/healthy", "/-/ready", "/metrics", "/"} {
		if code, body := do(t, "GET", url+path, nil); code != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, code, body)
		}
	}
	not = []string{`sink "ops" has not been configured yet: it exited`}
	if code, body := do(t, "GET", url+"/-/ready", nil); code != http.StatusServiceUnavailable || !strings.Contains(body, not[0]) {
		t.Errorf("GET /-/ready while not ready: %d %s", code, body)
	}
	if code, _ := do(t, "GET", url+"/-/healthy", nil); code != http.StatusOK {
		t.Error("not ready is not unhealthy")
	}
	if code, _ := do(t, "POST", url+"/metrics", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: %d", code)
	}
	if code, _ := do(t, "GET", url+"/nothing", nil); code != http.StatusNotFound {
		t.Errorf("GET /nothing: %d", code)
	}
}

func TestABrokenWebConfigIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(file, []byte("tls_server_config: { cert_file: nowhere.pem }"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := admin.New(admin.Settings{
		Address: "127.0.0.1:0", WebConfigFile: file, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("New: %v, want an error that names the file", err)
	}
}

// Basic auth of an exporter-toolkit file is asked for.
func TestBasicAuth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yml")
	// The password is "secret".
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("basic_auth_users: { ops: "+string(hash)+" }"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := serveWith(t, "127.0.0.1:0", file, func() []string { return nil })
	if code, _ := do(t, "GET", url+"/metrics", nil); code != http.StatusUnauthorized {
		t.Errorf("without a password: %d", code)
	}
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte("ops:secret"))
	if code, body := do(t, "GET", url+"/metrics", map[string]string{"Authorization": auth}); code != http.StatusOK {
		t.Errorf("with the password: %d %s", code, body)
	}
}

func TestForeignPagesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, address, method string
		header                map[string]string
		want                  int
	}{
		{"localhost", "127.0.0.1:1", "GET", map[string]string{"Host": "localhost:8081"}, 200},
		{"IPv6", "127.0.0.1:1", "GET", map[string]string{"Host": "[::1]:8081"}, 200},
		{"a name made to point here", "127.0.0.1:1", "GET", map[string]string{"Host": "evil.example"}, 421},
		{"the same on localhost", "localhost:1", "GET", map[string]string{"Host": "evil.example:8081"}, 421},
		{"a name of one's own", "0.0.0.0:8081", "GET", map[string]string{"Host": "hooks.example.com"}, 200},
		{"a form on somebody's page", "0.0.0.0:8081", "POST", map[string]string{"Host": "hooks.example.com", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := serve(t, c.address, func() []string { return nil })
			if code, body := do(t, c.method, url+"/-/healthy", c.header); code != c.want {
				t.Errorf("got %d %s, want %d", code, body, c.want)
			}
		})
	}
}

func pluginMetrics() []host.Metric {
	return []host.Metric{
		{Name: "written_bytes_total", Help: "Bytes written.", Kind: host.MetricCounter, Series: []host.MetricSeries{{Value: 41}}},
		{Name: "open", Help: "Open files.", Kind: host.MetricGauge, Labels: []string{"kind"}, Series: []host.MetricSeries{{LabelValues: []string{"a"}, Value: 1}}},
		{Name: "took_seconds", Help: "How long it took.", Kind: host.MetricHistogram, Series: []host.MetricSeries{{Count: 3, Sum: 1.5, Buckets: map[float64]uint64{0.1: 1}}}},
	}
}

func TestCollectors(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		admin.NewQueueCollector(func() queue.Stats {
			return queue.Stats{Bytes: 5, LimitBytes: 10, Sinks: map[string]queue.SinkStats{
				"audit": {
					Pending: 1, InFlight: 2, Delayed: 3, Dead: 4, OldestPending: time.Now().Add(-time.Minute),
					Bytes: 60, MaxBacklog: 64, BlockedKeys: 2, Behind: 38,
				},
				"idle": {},
			}}
		}),
		admin.NewSinkCollector(func() []admin.SinkStatus {
			return []admin.SinkStatus{
				{Name: "audit", Up: true, State: "ready", Pinned: true, Restarts: 2, Plugin: "File-sink", Metrics: pluginMetrics()},
				{Name: "idle", State: "backing_off"},
				// A program of another version: what does not agree is left out.
				{Name: "other", State: "ready", Plugin: "File-sink", Metrics: []host.Metric{
					{Name: "written_bytes_total", Help: "Other words.", Kind: host.MetricCounter, Series: []host.MetricSeries{{Value: 1}}},
					{Name: "open", Help: "Now a gauge with a label.", Kind: host.MetricGauge, Labels: []string{"x"}, Series: []host.MetricSeries{{LabelValues: []string{"1"}, Value: 1}}},
				}},
			}
		}),
	)
	want := `
# HELP callbackd_queue_deliveries Deliveries that are not settled, by state.
# TYPE callbackd_queue_deliveries gauge
callbackd_queue_deliveries{sink="audit",state="pending"} 1
callbackd_queue_deliveries{sink="audit",state="in_flight"} 2
callbackd_queue_deliveries{sink="audit",state="delayed"} 3
callbackd_queue_deliveries{sink="idle",state="pending"} 0
callbackd_queue_deliveries{sink="idle",state="in_flight"} 0
callbackd_queue_deliveries{sink="idle",state="delayed"} 0
# HELP callbackd_queue_backlog_bytes Bytes of the deliveries that are not settled, with their events.
# TYPE callbackd_queue_backlog_bytes gauge
callbackd_queue_backlog_bytes{sink="audit"} 60
callbackd_queue_backlog_bytes{sink="idle"} 0
# HELP callbackd_queue_backlog_limit_bytes Bytes that the deliveries that are not settled may take.
# TYPE callbackd_queue_backlog_limit_bytes gauge
callbackd_queue_backlog_limit_bytes{sink="audit"} 64
# HELP callbackd_queue_order_keys_blocked Order keys that are held up by a delivery that is tried again.
# TYPE callbackd_queue_order_keys_blocked gauge
callbackd_queue_order_keys_blocked{sink="audit"} 2
callbackd_queue_order_keys_blocked{sink="idle"} 0
# HELP callbackd_queue_order_waiting Deliveries that wait behind one of their order key that is tried again.
# TYPE callbackd_queue_order_waiting gauge
callbackd_queue_order_waiting{sink="audit"} 38
callbackd_queue_order_waiting{sink="idle"} 0
# HELP callbackd_sink_up Whether the sink's process runs and is configured.
# TYPE callbackd_sink_up gauge
callbackd_sink_up{sink="audit"} 1
callbackd_sink_up{sink="idle"} 0
callbackd_sink_up{sink="other"} 0
# HELP callbackd_sink_pinned Whether the running program was verified against its pin.
# TYPE callbackd_sink_pinned gauge
callbackd_sink_pinned{sink="audit"} 1
callbackd_sink_pinned{sink="idle"} 0
callbackd_sink_pinned{sink="other"} 0
# HELP callbackd_plugin_file_sink_written_bytes_total Bytes written.
# TYPE callbackd_plugin_file_sink_written_bytes_total counter
callbackd_plugin_file_sink_written_bytes_total{sink="audit"} 41
callbackd_plugin_file_sink_written_bytes_total{sink="other"} 1
# HELP callbackd_plugin_file_sink_open Open files.
# TYPE callbackd_plugin_file_sink_open gauge
callbackd_plugin_file_sink_open{kind="a",sink="audit"} 1
# HELP callbackd_plugin_file_sink_took_seconds How long it took.
# TYPE callbackd_plugin_file_sink_took_seconds histogram
callbackd_plugin_file_sink_took_seconds_bucket{sink="audit",le="0.1"} 1
callbackd_plugin_file_sink_took_seconds_bucket{sink="audit",le="+Inf"} 3
callbackd_plugin_file_sink_took_seconds_sum{sink="audit"} 1.5
callbackd_plugin_file_sink_took_seconds_count{sink="audit"} 3
# HELP callbackd_sink_restarts_total Restarts of the sink's process.
# TYPE callbackd_sink_restarts_total counter
callbackd_sink_restarts_total{sink="audit"} 2
callbackd_sink_restarts_total{sink="idle"} 0
callbackd_sink_restarts_total{sink="other"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "callbackd_queue_deliveries", "callbackd_queue_backlog_bytes", "callbackd_queue_backlog_limit_bytes",
		"callbackd_queue_order_keys_blocked", "callbackd_queue_order_waiting", "callbackd_sink_up", "callbackd_sink_pinned", "callbackd_sink_restarts_total",
		"callbackd_plugin_file_sink_written_bytes_total", "callbackd_plugin_file_sink_open", "callbackd_plugin_file_sink_took_seconds"); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "callbackd_sink_state" {
			on := 0.0
			for _, m := range f.GetMetric() {
				on += m.GetGauge().GetValue()
			}
			if len(f.GetMetric()) != 3*len(host.Phases()) || on != 3 {
				t.Errorf("states: %v", f)
			}
		}
		if f.GetName() == "callbackd_queue_oldest_pending_seconds" && (f.Metric[0].GetGauge().GetValue() < 60 || f.Metric[1].GetGauge().GetValue() != 0) {
			t.Errorf("oldest pending: %v", f)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}
