package manual_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/plugins/schema"
)

// An example can be pasted: as it is, and with every comment taken away, it is
// formatted and conforms to the schema.
func TestExampleHolds(t *testing.T) {
	m := everything()
	for i := range m.Schema.Blocks {
		if b := &m.Schema.Blocks[i]; b.Name == "many" { // more than an example shows
			b.MinItems = 3
		}
	}
	m.Schema.Attributes = append(m.Schema.Attributes,
		schema.Attribute{Name: "sizes", Type: schema.Type{Kind: schema.KindMap, Element: &schema.Type{Kind: schema.KindSize}}, Required: true},
		schema.Attribute{Name: "secret-times", Type: schema.Type{Kind: schema.KindList, Element: &schema.Type{Kind: schema.KindDuration}}, Required: true, Sensitive: true},
		schema.Attribute{Name: "secret_any", Type: schema.Type{Kind: schema.KindAny}, Required: true, Sensitive: true},
		schema.Attribute{Name: "per_event_bool", Type: schema.Type{Kind: schema.KindBool}, Required: true, PerEvent: true},
		schema.Attribute{Name: "per_event_choice", Type: schema.Type{Kind: schema.KindString}, Required: true, PerEvent: true, OneOf: []string{"a\"${b}", "c"}},
		schema.Attribute{Name: "per_event_map", Type: schema.Type{Kind: schema.KindMap, Element: &schema.Type{Kind: schema.KindString}}, Required: true, PerEvent: true},
	)
	if err := schema.Check(m.Schema); err != nil {
		t.Fatal(err)
	}
	example := m.Example()
	for name, text := range map[string]string{"as it is": example, "with all settings": strings.ReplaceAll(strings.ReplaceAll(example, "# ", ""), "    #\n", "\n")} {
		if out, diags := config.Format("x.hcl", []byte(text)); name == "as it is" && (diags.HasErrors() || string(out) != text) {
			t.Errorf("%s: not formatted: %v\n%s", name, diags, out)
		}
		path := filepath.Join(t.TempDir(), "config.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := config.Load(path, config.Options{
			LookupEnv: func(string) (string, bool) { return "value", true }, PluginDir: "/nowhere", SkipFileChecks: true,
		})
		if diags.HasErrors() {
			t.Fatalf("%s: %v\n%s", name, diags, text)
		}
		if _, diags := cfg.DecodeSink(&cfg.Sinks[0], m.Schema); len(diags) > 0 {
			t.Errorf("%s: %v\n%s", name, diags, text)
		}
	}
}
