package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

// The values that a per-event setting may have are held also where they come of
// an event.
func TestPerEventOneOf(t *testing.T) {
	t.Parallel()
	declared := schema.Schema{Attributes: []schema.Attribute{
		{Name: "level", Type: schema.Type{Kind: schema.KindString}, PerEvent: true, OneOf: []string{"info", "error"}},
	}}
	cfg := load(t, map[string]string{"a.hcl": "sink \"x\" \"y\" {\n  config { level = event.type }\n}\n"}, nil)
	settings, diags := cfg.DecodeSink(&cfg.Sinks[0], declared)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	value := settings.PerEvent["level"]
	if got, err := value(event.NewView(&event.Event{Type: "error"})); got != "error" || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	got, err := value(event.NewView(&event.Event{Type: "s3cret"}))
	if err == nil || got != nil || err.Error() != `level is none of the values that it may have: "info" or "error"` {
		t.Errorf("got %v, %v", got, err)
	}
}

// Names that mean something elsewhere mean nothing here, and what a schema says
// cannot make a message long.
func TestOddSchemas(t *testing.T) {
	t.Parallel()
	text := schema.Type{Kind: schema.KindString}
	var declared schema.Schema
	var src strings.Builder
	for _, name := range []string{
		"count", "for_each", "dynamic", "content", "for", "in", "if", "else", "endif", "null", "true", "false", "config", "sink",
		"event", "env", "_", "__proto__", "a-b", "A", strings.Repeat("n", 63),
	} {
		declared.Attributes = append(declared.Attributes, schema.Attribute{Name: name, Type: text})
		declared.Blocks = append(declared.Blocks, schema.Block{Name: "x" + name[:min(len(name), 62)], Repeated: true, Schema: schema.Schema{
			Attributes: []schema.Attribute{{Name: name, Type: text}},
		}})
		src.WriteString("    " + name + " = \"v\"\n    x" + name[:min(len(name), 62)] + " {\n      " + name + " = \"w\"\n    }\n")
	}
	cfg := load(t, map[string]string{"a.hcl": "sink \"x\" \"y\" {\n  config {\n" + src.String() + "  }\n}\n"}, nil)
	settings, diags := cfg.DecodeSink(&cfg.Sinks[0], declared)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for _, a := range declared.Attributes {
		block := settings.Values["x"+a.Name[:min(len(a.Name), 62)]].(schema.List)[0].(schema.Object)
		if settings.Values[a.Name] != "v" || block[a.Name] != "w" {
			t.Errorf("%s: %v", a.Name, settings.Values[a.Name])
		}
	}

	many := make([]string, 0, 1000)
	for i := range 1000 {
		many = append(many, strings.Repeat("é", 200)+strings.Repeat("x", i%250)+string(rune('0'+i/250)))
	}
	cfg = load(t, map[string]string{"a.hcl": "sink \"x\" \"y\" {\n  config {\n    a = \"b\"\n  }\n}\n"}, nil)
	start := time.Now()
	settings, diags = cfg.DecodeSink(&cfg.Sinks[0], schema.Schema{Attributes: []schema.Attribute{
		{Name: "a", Type: text, OneOf: many, Doc: strings.Repeat("\x1b[31m doc \u202e", 1000)},
	}})
	if settings != nil || len(diags) != 1 || len(diags[0].Detail) > 4000 || !strings.Contains(diags[0].Detail, " or 988 more") {
		t.Errorf("%v", diags)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
