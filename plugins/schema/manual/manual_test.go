package manual_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/schema/manual"
)

var update = flag.Bool("update", false, "write what is made now into testdata")

// everything has each kind of setting.
func everything() manual.Manual {
	text, number := schema.Type{Kind: schema.KindString}, schema.Type{Kind: schema.KindNumber}
	texts := schema.Type{Kind: schema.KindList, Element: &text}
	return manual.Manual{
		Name: "every-thing", Version: "1.2.3", Doc: "does it all",
		Limits: manual.Limits{MaxInFlight: 8, MaxBatchEvents: 4, MaxCalls: 1, Linger: 90 * time.Second},
		Schema: schema.Schema{
			Attributes: []schema.Attribute{
				{Name: "url", Type: text, Required: true, Doc: "where to send: \"https://…\" or base_url"},
				{Name: "token", Type: text, Required: true, Sensitive: true},
				{Name: "text", Type: text, Required: true, PerEvent: true, Escape: []schema.Replacement{{From: "&", To: "&amp;"}, {From: "|", To: ""}}, Doc: "the `message` <b> a|b"},
				{Name: "level", Type: text, OneOf: []string{"info", "error"}, Default: "info", Doc: "info: quiet"},
				{Name: "mode", Type: text, OneOf: []string{"fast", "slow"}, Doc: "\"fast\": at once. \"slow\": later"},
				{Name: "ratio", Type: number, Default: 1.5},
				{Name: "count", Type: number, Default: int64(-3)},
				{Name: "fast", Type: schema.Type{Kind: schema.KindBool}, Default: false},
				{Name: "wait", Type: schema.Type{Kind: schema.KindDuration}, Default: 90 * time.Minute},
				{Name: "room", Type: schema.Type{Kind: schema.KindSize}, Default: int64(10 << 20)},
				{Name: "file", Type: schema.Type{Kind: schema.KindPath}},
				{Name: "names", Type: texts, Default: schema.List{"a", "${b}", "\"c\\\n\u202e%{d}"}},
				{Name: "table", Type: schema.Type{Kind: schema.KindMap, Element: &texts}, Default: schema.Object{"k 1": schema.List{"v"}, "a": schema.List{}}},
				{Name: "more", Type: schema.Type{Kind: schema.KindAny}, Default: schema.JSON(`{"a":[1e3,null,true],"b":"${x}"}`)},
				{Name: "password", Type: text, Sensitive: true, Default: "never-shown"},
			},
			Blocks: []schema.Block{
				{Name: "must", MinItems: 1, Doc: "it must be there", Schema: schema.Schema{Attributes: []schema.Attribute{{Name: "a", Type: text, Required: true}}}},
				{Name: "may", Schema: schema.Schema{
					Attributes: []schema.Attribute{{Name: "a", Type: text, Required: true}, {Name: "bc", Type: number}},
					Blocks:     []schema.Block{{Name: "inner", Repeated: true, MaxItems: 2}},
				}},
				{Name: "route", Repeated: true, MinItems: 2, MaxItems: 8, Schema: schema.Schema{Attributes: []schema.Attribute{{Name: "to", Type: text, Required: true}}}},
				{Name: "many", Repeated: true, MinItems: 7, Schema: schema.Schema{Attributes: []schema.Attribute{{Name: "to", Type: text}}}},
			},
		},
	}
}

func TestGolden(t *testing.T) {
	m := everything()
	if err := schema.Check(m.Schema); err != nil {
		t.Fatal(err)
	}
	document, err := json.MarshalIndent(m.Document(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"everything.txt": m.Text(), "everything.md": m.Markdown(), "everything.json": string(document) + "\n",
		"nothing.txt": manual.Manual{Name: "nothing"}.Text(), "nothing.md": manual.Manual{Name: "nothing"}.Markdown(),
	} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is\n%s", name, got)
		}
		if strings.Contains(got, "never-shown") {
			t.Errorf("%s shows the default of a sensitive setting", name)
		}
	}
}

// However much a schema declares, an example stays readable.
func TestExampleIsBounded(t *testing.T) {
	inner := schema.Schema{Attributes: []schema.Attribute{{Name: "a", Type: schema.Type{Kind: schema.KindString}, Required: true}}}
	for range schema.MaxDepth {
		inner = schema.Schema{Blocks: []schema.Block{{Name: "b", Repeated: true, MinItems: schema.MaxMinItems, Schema: inner}}}
	}
	wide := schema.Schema{}
	for i := range schema.MaxSettings {
		wide.Attributes = append(wide.Attributes, schema.Attribute{Name: "a" + strings.Repeat("x", i%60) + string(rune('a'+i/60)), Type: schema.Type{Kind: schema.KindString}, Required: i%2 == 0})
	}
	for name, s := range map[string]schema.Schema{"deep": inner, "wide": wide} {
		if err := schema.Check(s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text := manual.Manual{Name: "x", Schema: s}.Example()
		if n := strings.Count(text, "\n"); n > 300 || strings.Count(text, "{") != strings.Count(text, "}") || !strings.Contains(text, "# …") {
			t.Errorf("%s: %d lines\n%s", name, n, text)
		}
	}
}
