package contract

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

func kind(k schema.Kind) schema.Type { return schema.Type{Kind: k} }

func of(k schema.Kind, element schema.Kind) schema.Type {
	e := kind(element)
	return schema.Type{Kind: k, Element: &e}
}

func declared() schema.Schema {
	return schema.Schema{
		Attributes: []schema.Attribute{
			{Name: "url", Type: kind(schema.KindString), Required: true, Sensitive: true},
			{Name: "mode", Type: kind(schema.KindString), OneOf: []string{"fast", "slow"}, Default: "fast"},
			{Name: "wait", Type: kind(schema.KindDuration)},
			{Name: "size", Type: kind(schema.KindSize)},
			{Name: "path", Type: kind(schema.KindPath)},
			{Name: "number", Type: kind(schema.KindNumber)},
			{Name: "on", Type: kind(schema.KindBool)},
			{Name: "list", Type: of(schema.KindList, schema.KindDuration)},
			{Name: "map", Type: of(schema.KindMap, schema.KindNumber)},
			{Name: "any", Type: kind(schema.KindAny)},
			{Name: "text", Type: kind(schema.KindString), PerEvent: true},
		},
		Blocks: []schema.Block{
			{Name: "tls", Schema: schema.Schema{Attributes: []schema.Attribute{{Name: "name", Type: kind(schema.KindString), Sensitive: true}}}},
			{Name: "route", Repeated: true, Schema: schema.Schema{Attributes: []schema.Attribute{{Name: "to", Type: kind(schema.KindString), PerEvent: true}}}},
		},
	}
}

func TestFromMap(t *testing.T) {
	got, err := FromMap(declared(), map[string]any{
		"url": "http://x", "wait": "1m", "size": "2KiB", "path": "/a/b", "number": uint8(7), "on": true,
		"list": []any{"1s", 2 * time.Second}, "map": map[string]float64{"a": 1.5}, "any": []any{1, "<"},
		"text":  PerEvent(func(ev *host.Event) any { return "of " + ev.Type }),
		"tls":   map[string]any{"name": "n"},
		"route": []map[string]any{{"to": "a"}, {"to": func(ev *host.Event) any { return ev.Subject }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := schema.Object{
		"url": "http://x", "mode": "fast", "wait": time.Minute, "size": int64(2048), "path": "/a/b", "number": int64(7), "on": true,
		"list": schema.List{time.Second, 2 * time.Second}, "map": schema.Object{"a": 1.5}, "any": schema.JSON(`[1,"<"]`),
		"text":  schema.PerEvent{Key: "text"},
		"tls":   schema.Object{"name": "n"},
		"route": schema.List{schema.Object{"to": "a"}, schema.Object{"to": schema.PerEvent{Key: "route.1.to"}}},
	}
	if !reflect.DeepEqual(got.Values, want) {
		t.Errorf("%#v\nwant %#v", got.Values, want)
	}
	values, err := got.PerEvent(&host.Event{Type: "t", Subject: "s"})
	if err != nil || values["text"] != "of t" || values["route.1.to"] != "s" {
		t.Errorf("%v, %v", values, err)
	}
}

func TestFromMapUnset(t *testing.T) {
	got, err := FromMap(declared(), map[string]any{"url": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Values) != len(declared().Attributes)+len(declared().Blocks) || got.Values["mode"] != "fast" || got.Values["wait"] != nil ||
		got.Values["tls"] != nil || !reflect.DeepEqual(got.Values["route"], schema.List{}) || got.PerEvent != nil {
		t.Errorf("%#v", got)
	}
}

func TestFromMapMistakes(t *testing.T) {
	for want, settings := range map[string]map[string]any{
		`setting "url": it is required`:                           {},
		`setting "nothing": the plugin's schema does not have it`: {"url": "x", "nothing": 1},
		`setting "wait": duration "soon"`:                         {"url": "x", "wait": "soon"},
		`setting "number": a number is expected, not a string`:    {"url": "x", "number": "7"},
		`setting "mode": "odd" is not one of`:                     {"url": "x", "mode": "odd"},
		`setting "tls": it is a block`:                            {"url": "x", "tls": "no"},
		`setting "url": it is not evaluated for each event`:       {"url": PerEvent(nil)},
		`setting "on": a chan int cannot be sent`:                 {"url": "x", "on": make(chan int)},
	} {
		if _, err := FromMap(declared(), settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestWrong(t *testing.T) {
	got, err := Wrong(declared(), map[string]any{"wait": "soon", "nothing": []int{1}, "mode": "odd"})
	if err != nil || got.Values["wait"] != "soon" || got.Values["mode"] != "odd" || got.Values["url"] != nil ||
		!reflect.DeepEqual(got.Values["nothing"], schema.List{int64(1)}) {
		t.Errorf("%#v, %v", got, err)
	}
}

func TestMasking(t *testing.T) {
	var m masking
	const secret = "https://user:pass-word-1@host/services/T0/B0"
	m.learn(declared(), schema.Object{"url": secret, "mode": "not secret at all", "tls": schema.Object{"name": `in"quotes`}, "route": schema.List{}})
	for text, want := range map[string]string{
		"to " + secret + " failed": "to (sensitive) failed",
		"path /services/T0/B0":     "path (sensitive)",
		"with pass-word-1":         "with (sensitive)",
		"b " + base64.StdEncoding.EncodeToString([]byte(secret)):         "b (sensitive)",
		`{"name":"in\"quotes"}`:                                          `{"name":"(sensitive)"}`,
		"https%3A%2F%2Fuser%3Apass-word-1%40host%2Fservices%2FT0%2FB0 .": "(sensitive) .",
		"not secret at all":                                              "not secret at all",
	} {
		if got := m.mask(text); got != want || (m.find(text) != "") != (text != want) {
			t.Errorf("mask(%q) = %q, want %q; found %q", text, got, want, m.find(text))
		}
	}
	m.add("short")
	if m.find("short") != "" {
		t.Error("a short secret would be found anywhere")
	}
}

func TestEventIDs(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_123)
	a, b := newULID(now), newULID(now)
	parsed, err := ulid.ParseStrict(a)
	if err != nil || !parsed.Timestamp().Equal(now) || a == b {
		t.Errorf("%s, %s: %v", a, b, err)
	}
}
