package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/schema"
)

// maxBlockItems bounds how many blocks a configuration may repeat.
const maxBlockItems = 1000

// kindName says what is required, in messages.
func kindName(t schema.Type) string {
	switch t.Kind {
	case schema.KindString:
		return "text in quotes"
	case schema.KindNumber:
		return "a number"
	case schema.KindBool:
		return "true or false"
	case schema.KindDuration:
		return `a duration such as "30s"`
	case schema.KindSize:
		return `a size such as "10MiB"`
	case schema.KindPath:
		return "a path in quotes"
	case schema.KindList:
		return "a list in square brackets"
	case schema.KindMap:
		return "an object in braces"
	}
	return "a value"
}

// attributeNames and blockNames list what a schema declares.
func attributeNames(s schema.Schema) []string {
	out := make([]string, 0, len(s.Attributes))
	for i := range s.Attributes {
		out = append(out, s.Attributes[i].Name)
	}
	return out
}

func blockNames(s schema.Schema) []string {
	out := make([]string, 0, len(s.Blocks))
	for i := range s.Blocks {
		out = append(out, s.Blocks[i].Name)
	}
	return out
}

// example shows how an attribute is written.
func example(a *schema.Attribute) string {
	if len(a.OneOf) > 0 {
		return fmt.Sprintf("%s = %q", a.Name, a.OneOf[0])
	}
	value := map[schema.Kind]string{
		schema.KindNumber: "0", schema.KindBool: "true", schema.KindDuration: `"30s"`, schema.KindSize: `"10MiB"`,
		schema.KindList: "[…]", schema.KindMap: "{…}",
	}[a.Type.Kind]
	if value == "" {
		value = `"…"`
	}
	return a.Name + " = " + value
}

// docSentence is a plugin's doc, in one line, as an addition to a message.
func docSentence(doc string) string {
	doc = oneLine(doc)
	const most = 200
	if utf8.RuneCountInString(doc) > most {
		doc = strings.TrimSpace(string([]rune(doc)[:most])) + "…"
	}
	return doc
}
