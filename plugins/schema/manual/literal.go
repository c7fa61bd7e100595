package manual

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// literal writes a value of a type as it is written in a configuration.
func literal(v schema.Value, t schema.Type) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case int64:
		if t.Kind == schema.KindSize {
			return quote(schema.FormatSize(v))
		}
		return strconv.FormatInt(v, 10)
	case time.Duration:
		return quote(schema.FormatDuration(v))
	case schema.List:
		parts := make([]string, 0, len(v))
		for _, x := range v {
			parts = append(parts, literal(x, *t.Element))
		}
		return list(parts)
	case schema.Object:
		parts := make([]string, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, quote(key)+" = "+literal(v[key], *t.Element))
		}
		return object(parts)
	case schema.JSON:
		decoder := json.NewDecoder(bytes.NewReader(v))
		decoder.UseNumber()
		var x any
		if decoder.Decode(&x) != nil {
			return "null"
		}
		return jsonLiteral(x)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	return "null"
}

func jsonLiteral(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case []any:
		parts := make([]string, 0, len(v))
		for _, x := range v {
			parts = append(parts, jsonLiteral(x))
		}
		return list(parts)
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, quote(key)+" = "+jsonLiteral(v[key]))
		}
		return object(parts)
	case nil:
		return "null"
	}
	return fmt.Sprint(v) // a number or a bool
}

func list(parts []string) string { return "[" + strings.Join(parts, ", ") + "]" }

func object(parts []string) string {
	if len(parts) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// quote writes text so that HCL reads exactly that: without templates, and with
// what is not seen as escapes.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case (r == '$' || r == '%') && strings.HasPrefix(text[i+1:], "{"):
			b.WriteRune(r)
			b.WriteRune(r)
		case r > 0xffff && steers(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		case steers(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
