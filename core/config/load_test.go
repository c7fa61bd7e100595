package config_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

// loadGood loads a golden configuration that has nothing wrong.
func loadGood(t *testing.T, name string, env map[string]string) *config.Config {
	t.Helper()
	archive, err := txtar.ParseFile("../../testdata/config/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range archive.Files {
		if f.Name != "want" && f.Name != "env" && !strings.Contains(f.Name, "/") {
			files[f.Name] = string(f.Data)
		}
	}
	return load(t, files, env)
}

func load(t *testing.T, files, env map[string]string) *config.Config {
	t.Helper()
	cfg, diags := config.Load(write(t, files), config.Options{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		PluginDir: "/plugins", SkipFileChecks: true,
	})
	if diags.HasErrors() {
		t.Fatalf("%v", diags)
	}
	return cfg
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()
	cfg := loadGood(t, "good_minimal", nil)
	if !filepath.IsAbs(cfg.Dir) || cfg.DataDir != filepath.Join(cfg.Dir, "data") || cfg.PluginDir != "/plugins" || cfg.ShutdownGrace != 30*time.Second {
		t.Errorf("defaults: %+v", cfg)
	}
	wantListen := config.Listen{
		Address: "127.0.0.1:8080", MaxConnections: 4096, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
	}
	if !reflect.DeepEqual(cfg.Listen, wantListen) {
		t.Errorf("listen: %+v", cfg.Listen)
	}
	if want := (config.Admin{Address: "127.0.0.1:8081"}); cfg.Admin != want {
		t.Errorf("admin: %+v", cfg.Admin)
	}
	if want := (config.Queue{Dir: filepath.Join(cfg.Dir, "data", "queue"), MaxBytes: 10 << 30, ReserveBytes: 256 << 20}); cfg.Queue != want {
		t.Errorf("queue: %+v", cfg.Queue)
	}
	if want := (config.Log{Level: "info", Format: "text"}); cfg.Log != want {
		t.Errorf("log: %+v", cfg.Log)
	}
	s := cfg.Sources[0]
	if s.MaxBody != 1<<20 || s.Tencent.Window != time.Minute || s.RateLimit != nil || s.EventType != nil || !slices.Equal(s.Tencent.SDKAppIDs, []uint64{1400000000}) {
		t.Errorf("source: %+v", s)
	}
	sink := cfg.Sinks[0]
	if sink.Timeout != 30*time.Second || sink.Retry != (config.Retry{MinBackoff: time.Second, MaxBackoff: 10 * time.Minute, MaxAge: 72 * time.Hour, MaxRetryAfter: time.Hour}) ||
		sink.Batch != (config.Batch{}) || !slices.Equal(sink.Plugin.Command, []string{"/plugins/callbackd-sink-file"}) {
		t.Errorf("sink: %+v", sink)
	}
	if p := cfg.Pipelines[0]; p.Name != "all" || p.Match != nil || p.Transform != nil || !slices.Equal(p.From, []string{"chat"}) || !slices.Equal(p.Sinks, []string{"audit"}) {
		t.Errorf("pipeline: %+v", p)
	}
}

// What the configuration does not share out is shared out so that it fits into
// the queue as a whole.
func TestShares(t *testing.T) {
	t.Parallel()
	const head = `
source "tencent_im" "chat" {
  path        = "/callbacks/chat"
  sdk_app_ids = [1]
}
pipeline "p" {
  from = [source.chat]
  to   = [sink.a]
}
`
	type shares struct{ backlog, letters int64 }
	for _, c := range []struct {
		name, hcl string
		want      []shares
	}{
		{"one sink", `sink "x" "a" {}`, []shares{{5 << 30, 5 << 30}}},
		{
			"the queue comes last", `sink "x" "a" {}
sink "x" "b" {}
sink "x" "c" {}
queue { max_bytes = "12MiB" }`, []shares{{3 << 20, 1 << 20}, {3 << 20, 1 << 20}, {3 << 20, 1 << 20}},
		},
		{
			"what is configured stays", `queue { max_bytes = "12MiB" }
sink "x" "a" { max_backlog = "12MiB" }
sink "x" "b" {
  dead_letter { max_bytes = "2MiB" }
}`, []shares{{12 << 20, 2 << 20}, {4 << 20, 2 << 20}},
		},
		{"null is the default", `sink "x" "a" { max_backlog = null }`, []shares{{5 << 30, 5 << 30}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := load(t, map[string]string{"config.hcl": head + c.hcl + "\n"}, nil)
			var got []shares
			for _, s := range cfg.Sinks {
				got = append(got, shares{s.MaxBacklog, s.DeadLetter.MaxBytes})
				if s.WhenFull != config.WhenFullDeadLetter || s.DeadLetter.MaxAge != 30*24*time.Hour || s.RateLimit != nil || s.OrderBy != nil ||
					s.Breaker != (config.Breaker{FailureRatio: 0.9, MinAttempts: 20, Window: 10 * time.Second, OpenFor: 5 * time.Second, MaxOpenFor: time.Minute, Probes: 3}) {
					t.Errorf("sink: %+v", s)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestLoadEverything(t *testing.T) {
	t.Parallel()
	cfg := loadGood(t, "good_full", map[string]string{"TOKEN": "the-s3cret"})
	in := func(name string) string { return filepath.Join(cfg.Dir, name) }
	wantListen := config.Listen{
		Address: "[::1]:0", MaxConnections: 100, ReadHeaderTimeout: time.Second, ReadTimeout: 2 * time.Second,
		WriteTimeout: 3 * time.Second, IdleTimeout: 4 * time.Second, MaxHeaderBytes: 8 << 10,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")},
		TLS:            &config.TLS{CertFile: in("cert.pem"), KeyFile: in("key.pem"), ClientCAFile: in("cert.pem")},
	}
	if !reflect.DeepEqual(cfg.Listen, wantListen) {
		t.Errorf("listen: %+v", cfg.Listen)
	}
	if want := (config.Admin{Address: ":9090", WebConfigFile: in("web.yml")}); cfg.Admin != want {
		t.Errorf("admin: %+v", cfg.Admin)
	}
	if want := (config.Queue{Dir: in("q"), MaxBytes: 1 << 30, ReserveBytes: 10_000_000}); cfg.Queue != want {
		t.Errorf("queue: %+v", cfg.Queue)
	}
	if cfg.Log != (config.Log{Level: "debug", Format: "json"}) || cfg.DataDir != in("var") || cfg.ShutdownGrace != time.Minute {
		t.Errorf("top level: %+v", cfg)
	}

	chat := cfg.Sources[0]
	wantTencent := &config.Tencent{SDKAppIDs: []uint64{1400000000, 1<<64 - 1}, Tokens: []string{"the-s3cret", "old-s3cret"}, Window: 2 * time.Minute}
	if !reflect.DeepEqual(chat.Tencent, wantTencent) || chat.MaxBody != 32<<20 || *chat.RateLimit != (config.Rate{PerSecond: 10.5, Burst: 20}) ||
		!slices.Equal(chat.AllowFrom, []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}) || chat.HMAC != nil {
		t.Errorf("source chat: %+v %+v", chat, chat.Tencent)
	}
	ci := cfg.Sources[1]
	wantHMAC := &config.HMAC{Header: "X-Signature-256", Prefix: "sha256=", Algorithm: "sha512", Encoding: "base64", Secrets: []string{"hush-hush"}}
	if !reflect.DeepEqual(ci.HMAC, wantHMAC) || ci.Tencent != nil {
		t.Errorf("source ci: %+v", ci.HMAC)
	}
	view := event.NewView(&event.Event{
		Headers: event.Pairs{{Name: "x-event-type", Value: "push"}}, ContentType: "application/json",
		Body: []byte(`{"repository":{"name":"r"},"at":1700000000}`),
	})
	for name, got := range map[string]func(*event.View) (string, bool, error){"push": ci.EventType, "r": ci.Subject, "1700000000": ci.Time} {
		if text, ok, err := got(view); text != name || !ok || err != nil {
			t.Errorf("%s: %q %v %v", name, text, ok, err)
		}
	}

	own := cfg.Sinks[0]
	wantPlugin := config.Plugin{
		Command: []string{in("plugins/run"), "--fast"},
		SHA256:  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Env:     []string{"MODE=x", "TOKEN=the-s3cret"},
		NoTLS:   true, User: "nobody", Group: "100", NoNewPrivs: true, MaxMemory: 512 << 20, MaxOpenFiles: 1024,
	}
	if !reflect.DeepEqual(own.Plugin, wantPlugin) || own.Timeout != 5*time.Second || own.MaxInFlight != 3 ||
		own.Batch != (config.Batch{MaxEvents: 10, MaxBytes: 1 << 20, Linger: 20 * time.Millisecond}) ||
		own.Retry != (config.Retry{MinBackoff: 2 * time.Second, MaxBackoff: 2 * time.Minute, MaxAttempts: 5, MaxAge: 7 * 24 * time.Hour, MaxRetryAfter: 90 * time.Second}) ||
		*own.RateLimit != (config.Rate{PerSecond: 0.5, Burst: 1}) ||
		own.Breaker != (config.Breaker{FailureRatio: 0.25, MinAttempts: 7, Window: time.Minute, OpenFor: 2 * time.Second, MaxOpenFor: time.Hour, Probes: 9}) ||
		own.MaxBacklog != 100<<20 || own.WhenFull != config.WhenFullDropOldest || own.DeadLetter != (config.DeadLetter{MaxAge: 48 * time.Hour, MaxBytes: 5 << 20}) {
		t.Errorf("sink own: %+v", own)
	}
	if text, ok, err := own.OrderBy(event.NewView(&event.Event{Type: "x", Body: []byte(`{"n":5}`)})); text != "5" || !ok || err != nil {
		t.Errorf("order_by: %q %v %v", text, ok, err)
	}
	if off := cfg.Sinks[1].Breaker; off.FailureRatio != 0 {
		t.Errorf("a breaker that is turned off: %+v", off)
	}
	if d := ci.Dedupe; d == nil || d.Window != time.Hour || chat.Dedupe != nil {
		t.Errorf("dedupe: %+v", d)
	} else if text, ok, err := d.Key(view); text != "1700000000" || !ok || err != nil {
		t.Errorf("dedupe key: %q %v %v", text, ok, err)
	}

	p := cfg.Pipelines[0]
	if !slices.Equal(p.Guard.Types, []string{"x"}) {
		t.Errorf("the guard of the match is lost: %+v", p.Guard)
	}
	for body, want := range map[string]bool{`{"n":4}`: true, `{"n":3}`: false, `{}`: false, `not JSON`: false} {
		got, err := p.Match(event.NewView(&event.Event{Type: "x", ContentType: "application/json", Body: []byte(body)}))
		if got != want || err != nil {
			t.Errorf("match %s: %v %v", body, got, err)
		}
	}
	if text, ok, err := p.Transform.Headers["X-A"](event.NewView(&event.Event{Subject: "s"})); text != "s" || !ok || err != nil {
		t.Errorf("header: %q %v %v", text, ok, err)
	}
	if text, _, err := p.Transform.Body(event.NewView(&event.Event{})); text != `{"id":"00000000000000000000000000"}` || err != nil {
		t.Errorf("body: %q %v", text, err)
	}

	settings, diags := cfg.DecodeSink(&cfg.Sinks[1], testSchemas()["file"])
	want := schema.Object{
		"path": in("audit.jsonl"), "format": "event", "sync": "batch", "mode": "0640",
		"rotate": schema.Object{"max_size": int64(3 << 19), "max_age": 36 * time.Hour, "keep": int64(7), "compress": true},
	}
	if len(diags) > 0 || !reflect.DeepEqual(settings.Values, want) {
		t.Errorf("settings: %v %#v", diags, settings)
	}
	for _, secret := range []string{"the-s3cret", "old-s3cret", "hush-hush"} {
		if !slices.Contains(cfg.Secrets(), secret) {
			t.Errorf("Secrets lacks %q", secret)
		}
	}
}

func TestDecodeSink(t *testing.T) {
	t.Parallel()
	env := map[string]string{"SLACK_WEBHOOK_URL": "https://hooks.slack.com/s3cret", "CRM_SECRET": "s3cret"}
	cfg := loadGood(t, "good_sinks", env)
	ev := &event.Event{Type: "a<b>", ContentType: "application/json", Body: []byte(`{"GroupId":"g&1","Name":"<!channel>"}`)}

	slack, diags := cfg.DecodeSink(&cfg.Sinks[0], testSchemas()["slack"])
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	wantSlack := schema.Object{
		"webhook_url": env["SLACK_WEBHOOK_URL"], "token": nil, "channel": nil,
		"text": schema.PerEvent{Key: "text"}, "blocks": schema.PerEvent{Key: "blocks"},
	}
	if !reflect.DeepEqual(slack.Values, wantSlack) {
		t.Errorf("slack: %#v", slack.Values)
	}
	if got, err := slack.PerEvent["text"](event.NewView(ev)); got != "Group g&amp;1 is now called &lt;!channel&gt;" || err != nil {
		t.Errorf("text: %#v %v", got, err)
	}
	got, err := slack.PerEvent["blocks"](event.NewView(ev))
	blocks, _ := got.(schema.JSON)
	var parsed []map[string]string
	if err != nil || json.Unmarshal(blocks, &parsed) != nil || parsed[0]["type"] != "section" || parsed[0]["text"] != "a&lt;b&gt;" {
		t.Errorf("blocks: %s %v", blocks, err)
	}

	crm, diags := cfg.DecodeSink(&cfg.Sinks[1], testSchemas()["webhook"])
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	wantCRM := schema.Object{
		"url": "https://crm.example.com/callbacks", "headers": schema.PerEvent{Key: "headers"},
		"signing_secrets": schema.List{"s3cret", "whsec_hush-hush"}, "final_status": schema.List{int64(400), int64(404)},
		"allow_link_local": false, "tls": schema.Object{"ca_file": filepath.Join(cfg.Dir, "ca.pem")},
	}
	if !reflect.DeepEqual(crm.Values, wantCRM) {
		t.Errorf("webhook: %#v", crm.Values)
	}
	if got, err := crm.PerEvent["headers"](event.NewView(ev)); !reflect.DeepEqual(got, schema.Object{"X-Type": "a<b>", "X-Fixed": "1"}) || err != nil {
		t.Errorf("headers: %#v %v", got, err)
	}

	many, diags := cfg.DecodeSink(&cfg.Sinks[2], testSchemas()["routes"])
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	wantMany := schema.Object{"route": schema.List{
		schema.Object{"text": schema.PerEvent{Key: "route.0.text"}, "data": nil},
		schema.Object{"text": "fixed", "data": schema.JSON(`{"a":[1,2.5,null,true],"b":"x"}`)},
	}}
	if !reflect.DeepEqual(many.Values, wantMany) || len(many.PerEvent) != 1 {
		t.Errorf("routes: %#v", many.Values)
	}
	if !slices.Contains(cfg.Secrets(), "whsec_hush-hush") {
		t.Error("Secrets lacks a literal of a sensitive setting")
	}
}

// A value that was made out of a secret is one too: no function that encodes it
// makes it fit to be shown.
func TestSecretsMadeOfSecrets(t *testing.T) {
	t.Parallel()
	cfg := load(t, map[string]string{"a.hcl": `
sink "routes" "a" {
  config {
    route {
      text = "t"
      data = { auth = "Basic ${base64encode("user:${env("PASSWORD")}")}" }
    }
  }
}`}, map[string]string{"PASSWORD": "hunter22"})
	if _, diags := cfg.DecodeSink(&cfg.Sinks[0], testSchemas()["routes"]); len(diags) > 0 {
		t.Fatal(diags)
	}
	if !slices.Contains(cfg.Secrets(), "Basic dXNlcjpodW50ZXIyMg==") {
		t.Errorf("Secrets: %q", cfg.Secrets())
	}
}

// Whatever a plugin declares, it is refused or usable.
func TestDecodeSinkBadSchema(t *testing.T) {
	t.Parallel()
	text := schema.Type{Kind: schema.KindString}
	deep := text
	for range 50 {
		inner := deep
		deep = schema.Type{Kind: schema.KindList, Element: &inner}
	}
	nested := schema.Schema{}
	for range 50 {
		nested = schema.Schema{Blocks: []schema.Block{{Name: "a", Schema: nested}}}
	}
	attribute := func(a schema.Attribute) schema.Schema { return schema.Schema{Attributes: []schema.Attribute{a}} }
	many := schema.Schema{}
	for i := range 2000 {
		many.Attributes = append(many.Attributes, schema.Attribute{Name: "a" + strings.Repeat("b", i%50) + string(rune('a'+i%26)), Type: text})
	}
	for name, s := range map[string]schema.Schema{
		"no kind":            attribute(schema.Attribute{Name: "a"}),
		"list of nothing":    attribute(schema.Attribute{Name: "a", Type: schema.Type{Kind: schema.KindList}}),
		"text of elements":   attribute(schema.Attribute{Name: "a", Type: schema.Type{Kind: schema.KindString, Element: &text}}),
		"deep type":          attribute(schema.Attribute{Name: "a", Type: deep}),
		"deep blocks":        nested,
		"twice":              {Attributes: []schema.Attribute{{Name: "a", Type: text}}, Blocks: []schema.Block{{Name: "a"}}},
		"many":               many,
		"wrong default":      attribute(schema.Attribute{Name: "a", Type: text, Default: int64(1)}),
		"default not listed": attribute(schema.Attribute{Name: "a", Type: text, Default: "x", OneOf: []string{"y"}}),
		"one of numbers":     attribute(schema.Attribute{Name: "a", Type: schema.Type{Kind: schema.KindNumber}, OneOf: []string{"1"}}),
		"escape nothing":     attribute(schema.Attribute{Name: "a", Type: text, PerEvent: true, Escape: []schema.Replacement{{To: "x"}}}),
		"escape constant":    attribute(schema.Attribute{Name: "a", Type: text, Escape: []schema.Replacement{{From: "x"}}}),
		"required default":   attribute(schema.Attribute{Name: "a", Type: text, Required: true, Default: "x"}),
		"not UTF-8":          attribute(schema.Attribute{Name: "a", Type: text, Doc: "\xff"}),
		"negative":           {Blocks: []schema.Block{{Name: "a", MinItems: -1}}},
		"impossible":         {Blocks: []schema.Block{{Name: "a", Repeated: true, MinItems: 3, MaxItems: 2}}},
		"two of one":         {Blocks: []schema.Block{{Name: "a", MinItems: 2}}},
	} {
		cfg := load(t, map[string]string{"a.hcl": "sink \"x\" \"y\" {\n  config { a = 1 }\n}\n"}, nil)
		settings, diags := cfg.DecodeSink(&cfg.Sinks[0], s)
		if settings != nil || !diags.HasErrors() || !strings.Contains(diags[0].Summary, "declares settings that cannot be used") || diags[0].Start.Line != 1 {
			t.Errorf("%s: %v", name, diags)
		}
	}
}

func TestFileFunction(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{"a\n": "a", "a\r\n": "a", "a\n\n": "a\n", "a": "a", "": ""} {
		cfg := load(t, map[string]string{"token": content, "a.hcl": "sink \"file\" \"a\" {\n  config {\n    path = \"p\"\n    mode = file(\"token\")\n  }\n}\n"}, nil)
		settings, diags := cfg.DecodeSink(&cfg.Sinks[0], testSchemas()["file"])
		if diags.HasErrors() || settings.Values["mode"] != want {
			t.Errorf("%q: %v %v", content, settings, diags)
		}
	}
	for name, content := range map[string]string{"not UTF-8": "\xff\xfe", "not normal form C": "e\u0301", "too large": strings.Repeat("x", 2<<20)} {
		dir := write(t, map[string]string{"token": content, "a.hcl": "data_dir = file(\"token\")\n"})
		if _, diags := config.Load(dir, config.Options{}); !diags.HasErrors() || diags[0].Start != (config.Position{Line: 1, Column: 12}) {
			t.Errorf("%s: %v", name, diags)
		}
	}
}

func TestLoadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := filepath.Join(dir, "large.hcl")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#\n"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing.hcl"): "cannot be read: No such file or directory.",
		large:                             "The file cannot be read: It is larger than 1MiB.",
		"/dev/zero":                       "It is not a regular file.",
		t.TempDir():                       "The folder holds no configuration",
	} {
		cfg, diags := config.Load(path, config.Options{})
		if cfg != nil || !diags.HasErrors() || diags[0].File != path || !strings.Contains(diags[0].String(), want) {
			t.Errorf("%s: %v", path, diags)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"a.hcl": "data_dir = 5\n"})
	_, diags := config.Load(dir, config.Options{})
	var b bytes.Buffer
	if err := diags.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	want := `{
  "diagnostics": [
    {
      "severity": "error",
      "summary": "Wrong value of \"data_dir\"",
      "detail": "Text in quotes is required, but this is a number.",
      "file": "` + filepath.Join(dir, "a.hcl") + `",
      "start": {
        "line": 1,
        "column": 12
      },
      "end": {
        "line": 1,
        "column": 13
      },
      "source": "data_dir = 5"
    }
  ]
}
`
	if b.String() != want {
		t.Errorf("WriteJSON:\n%s", b.String())
	}
	b.Reset()
	if err := config.Diagnostics(nil).WriteJSON(&b); err != nil || b.String() != "{\n  \"diagnostics\": []\n}\n" {
		t.Errorf("WriteJSON of nothing: %q %v", b.String(), err)
	}
}

func TestWriteTextColor(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"a.hcl": "data_dir = 5\n"})
	_, diags := config.Load(dir, config.Options{})
	var plain, colored bytes.Buffer
	if diags.WriteText(&plain, false) != nil || diags.WriteText(&colored, true) != nil {
		t.Fatal("write")
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colored.String(), "\x1b[1;31merror:\x1b[0m") {
		t.Errorf("plain %q, colored %q", plain.String(), colored.String())
	}
	stripped := colored.String()
	for _, code := range []string{"\x1b[0m", "\x1b[1m", "\x1b[1;31m", "\x1b[1;34m"} {
		stripped = strings.ReplaceAll(stripped, code, "")
	}
	if stripped != plain.String() {
		t.Errorf("color changes the text: %q", stripped)
	}
}

// Decoding sinks at the same time, as the daemon does at its start.
func TestDecodeSinkConcurrently(t *testing.T) {
	t.Parallel()
	cfg := loadGood(t, "good_sinks", map[string]string{"SLACK_WEBHOOK_URL": "https://hooks.slack.com/s3cret", "CRM_SECRET": "s3cret"})
	done := make(chan config.Diagnostics)
	names := []string{"slack", "webhook", "routes"}
	for range 4 {
		for i, name := range names {
			go func() {
				_, diags := cfg.DecodeSink(&cfg.Sinks[i], testSchemas()[name])
				diags = append(diags, cfg.Locate(&cfg.Sinks[i], []schema.Diagnostic{{Warning: true, Summary: "w"}})...)
				_ = cfg.Secrets()
				done <- diags
			}()
		}
	}
	for range 4 * len(names) {
		if diags := <-done; diags.HasErrors() || len(diags) != 1 {
			t.Error(diags)
		}
	}
}

func TestErrorsOfDiagnostics(t *testing.T) {
	all := config.Diagnostics{
		{Severity: config.SeverityWarning, Summary: "a"},
		{Severity: config.SeverityError, Summary: "b"},
		{Severity: config.SeverityWarning, Summary: "c"},
	}
	before := slices.Clone(all)
	errs := all.Errors()
	if len(errs) != 1 || errs[0].Summary != "b" {
		t.Errorf("errors %v, want the one of b", errs)
	}
	if !slices.Equal(all, before) {
		t.Errorf("asking for the errors changed the diagnostics to %v", all)
	}
}
