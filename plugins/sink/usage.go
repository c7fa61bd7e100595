package sink

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/schema/manual"
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
	for line := range strings.Lines(manual.Manual{Name: info.Name, Schema: settings}.Example()) {
		if line != "\n" {
			text.WriteString("  ")
		}
		text.WriteString(line)
	}
	text.WriteByte('\n')
	text.WriteString(manual.SettingsText(settings))
	return text.String()
}
