package main

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

func TestConfig(t *testing.T) {
	size := func(n sink.Size) *sink.Size { return &n }
	age := func(d time.Duration) *time.Duration { return &d }
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string // what the error has; none: all is well
	}{
		{"plain", Config{Path: "/d/f", Mode: "0640"}, nil},
		{"rotate by size", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{MaxSize: size(1 << 20)}}, nil},
		{"rotate by age", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{MaxAge: age(time.Hour), Keep: 7, Compress: true}}, nil},
		{"no path", Config{Mode: "0640"}, []string{"path: The path is empty"}},
		{"a folder", Config{Path: "/d/", Mode: "0640"}, []string{"path: The path names a folder"}},
		{"rotate by nothing", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{Keep: 3}}, []string{"rotate: Nothing says when"}},
		{"bytes for mebibytes", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{MaxSize: size(100)}}, []string{"rotate.max_size: The size 100 B is too small"}},
		{"no size", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{MaxSize: size(0)}}, []string{"rotate.max_size"}},
		{"no age", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{MaxAge: age(0)}}, []string{"rotate.max_age: The age 0s is too short"}},
		{"keep less than none", Config{Path: "/d/f", Mode: "0640", Rotate: &RotateConfig{MaxAge: age(time.Hour), Keep: -1}}, []string{"rotate.keep: -1 files"}},
		{"all at once", Config{Mode: "999", Rotate: &RotateConfig{}}, []string{"path:", "mode:", "rotate:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if len(tt.want) == 0 && err != nil {
				t.Error(err)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestParseMode(t *testing.T) {
	for text, want := range map[string]fs.FileMode{"0640": 0o640, "640": 0o640, "0600": 0o600, "0664": 0o664, "0644": 0o644} {
		if got, err := parseMode(text); err != nil || got != want {
			t.Errorf("%s: %#o, %v; want %#o", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "octal", "rw": "octal", "0o640": "octal", "-640": "octal", "0689": "octal", "99999999999": "octal",
		"01640": "more than", "04640": "more than", "0740": "execute", "0641": "execute", "0755": "execute",
		"0440": "owner", "0240": "owner", "0000": "owner", "0666": "everybody", "0642": "everybody",
	} {
		if _, err := parseMode(text); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "mode: ") {
			t.Errorf("%q: error %v, want one at mode with %q", text, err, want)
		}
	}
}

// The settings as they come from a configuration.
func TestSettings(t *testing.T) {
	cfg, err := sink.Decode[Config](map[string]any{"path": "/d/f"})
	if err != nil {
		t.Fatal(err)
	}
	set, err := cfg.settings()
	if err != nil || set.path != "/d/f" || set.format != formatEvent || !set.sync || set.mode != 0o640 || set.rotation != (rotation{}) {
		t.Errorf("the defaults are %+v, %v", set, err)
	}
	cfg, err = sink.Decode[Config](map[string]any{
		"path": "/d/f", "format": "body", "sync": "none", "mode": "0600",
		"rotate": map[string]any{"max_size": "1MiB", "max_age": "24h", "keep": 7, "compress": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := rotation{maxSize: 1 << 20, maxAge: 24 * time.Hour, keep: 7, compress: true}
	set, err = cfg.settings()
	if err != nil || set.format != formatBody || set.sync || set.mode != 0o600 || set.rotation != want {
		t.Errorf("the settings are %+v, %v", set, err)
	}
	for name, settings := range map[string]map[string]any{
		"path":            {},
		"format":          {"path": "/d/f", "format": "xml"},
		"mode":            {"path": "/d/f", "mode": "0777"},
		"rotate":          {"path": "/d/f", "rotate": map[string]any{}},
		"rotate.max_size": {"path": "/d/f", "rotate": map[string]any{"max_size": "1B"}},
	} {
		if _, err := sink.Decode[Config](settings); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: error %v, want one about %s", settings, err, name)
		}
	}
}

func TestEventFormat(t *testing.T) {
	path := t.TempDir() + "/f"
	cfg := bodyConfig(path)
	cfg.Format = formatEvent
	s := start(t, cfg)
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)
	evs := []sink.Event{
		{ID: "01A", Source: "ci", Type: "build", Time: at, ContentType: "application/json", Body: []byte("{\n  \"n\": 12345678901234567890\n}")},
		{ID: "01B", Source: "ci", Type: "build", Subject: "x", Time: at, Body: []byte("a\nb")},
	}
	if errs := s.DeliverBatch(t.Context(), evs); errs != nil {
		t.Fatal(errs)
	}
	got := read(t, path)
	want := `{"specversion":"1.0","id":"01A","source":"/ci","type":"build","time":"2026-03-04T05:06:07.089Z","datacontenttype":"application/json","data":{"n":12345678901234567890}}
{"specversion":"1.0","id":"01B","source":"/ci","type":"build","subject":"x","time":"2026-03-04T05:06:07.089Z","data_base64":"YQpi"}
`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if !strings.HasPrefix(got, eventHead) {
		t.Errorf("a line does not begin with %s, by which a torn line is told", eventHead)
	}
}
