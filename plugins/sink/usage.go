package sink

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// usage tells a person who started the plugin by hand what it is and how it is
// used.
func usage(info Info, settings schema.Schema) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s: a sink plugin of callbackd\n", info.Name, cmp.Or(info.Version, "(no version)"))
	if info.Doc != "" {
		fmt.Fprintf(&text, "\n%s\n", info.Doc)
	}
	fmt.Fprintf(&text, "\nIt is not started by hand. Put it into callbackd's plugin_dir as\ncallbackd-sink-%s and name it in the configuration:\n\n", info.Name)
	fmt.Fprintf(&text, "  sink %q \"NAME\" {\n    config {\n      ...\n    }\n  }\n", info.Name)
	if len(settings.Attributes)+len(settings.Blocks) == 0 {
		text.WriteString("\nIt has no settings.\n")
		return text.String()
	}
	text.WriteString("\nSettings:\n\n")
	var rows strings.Builder
	addSettings(&rows, settings, "  ")
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = table.Write([]byte(rows.String())) // a Builder takes everything
	_ = table.Flush()
	return text.String()
}

func addSettings(rows *strings.Builder, settings schema.Schema, indent string) {
	for _, attr := range settings.Attributes {
		fmt.Fprintf(rows, "%s%s\t%s\t%s\n", indent, attr.Name, typeText(attr), attr.Doc)
	}
	for _, block := range settings.Blocks {
		kind := "block"
		switch {
		case block.Repeated:
			kind = "any number of blocks"
		case block.MinItems > 0:
			kind = "block, required"
		}
		fmt.Fprintf(rows, "%s%s { }\t%s\t%s\n", indent, block.Name, kind, block.Doc)
		addSettings(rows, block.Schema, indent+"  ")
	}
}

func typeText(attr schema.Attribute) string {
	words := []string{strings.TrimPrefix(kindText(attr.Type), "a ")}
	if attr.PerEvent {
		words = append(words, "evaluated per event")
	}
	if len(attr.OneOf) > 0 {
		words = append(words, "one of "+strings.Join(attr.OneOf, " "))
	}
	switch {
	case attr.Required:
		words = append(words, "required")
	case attr.Default != nil && !attr.Sensitive:
		words = append(words, "default "+valueText(attr.Default))
	}
	return strings.Join(words, ", ")
}

func kindText(typ schema.Type) string {
	text := schema.KindName(typ.Kind)
	if typ.Element != nil {
		text += " of " + strings.TrimPrefix(kindText(*typ.Element), "a ")
	}
	return text
}

// valueText writes a default the way it is written in a configuration.
func valueText(v schema.Value) string {
	switch v := v.(type) {
	case time.Duration:
		return fmt.Sprintf("%q", v)
	case schema.JSON:
		return string(v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
