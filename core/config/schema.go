package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/schema"
)

// The bounds of a schema. A plugin is another program: what it declares is
// checked before anything relies on it.
const (
	maxSchemaDepth = 8
	maxSchemaNames = 1000
	maxSchemaText  = 64 << 10
	maxEscapes     = 256
	// maxBlockItems bounds how many blocks a configuration may repeat.
	maxBlockItems = 1000
)

// schemaCheck walks a schema and keeps count.
type schemaCheck struct{ names, text int }

// checkSchema tells why a schema cannot be used, or nil.
func checkSchema(s schema.Schema) error {
	c := &schemaCheck{}
	return c.body(s, "", 0)
}

func (c *schemaCheck) body(s schema.Schema, at string, depth int) error {
	if depth > maxSchemaDepth {
		return fmt.Errorf("%sblocks nest more than %d deep", at, maxSchemaDepth)
	}
	seen := map[string]bool{}
	for i := range s.Attributes {
		a := &s.Attributes[i]
		if err := c.name(a.Name, at, seen); err != nil {
			return err
		}
		if err := c.attribute(a); err != nil {
			return fmt.Errorf("attribute %q: %w", at+a.Name, err)
		}
	}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		if err := c.name(b.Name, at, seen); err != nil {
			return err
		}
		if err := c.count(b.Doc); err != nil {
			return err
		}
		switch {
		case b.MinItems < 0 || b.MaxItems < 0:
			return fmt.Errorf("block %q: the number of blocks is negative", at+b.Name)
		case b.MaxItems > 0 && b.MinItems > b.MaxItems:
			return fmt.Errorf("block %q: more blocks are required than allowed", at+b.Name)
		case b.MinItems > maxBlockItems:
			return fmt.Errorf("block %q: more than %d blocks are required", at+b.Name, maxBlockItems)
		case !b.Repeated && b.MinItems > 1:
			return fmt.Errorf("block %q: several are required, but it is not repeated", at+b.Name)
		}
		if err := c.body(b.Schema, at+b.Name+".", depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *schemaCheck) name(name, at string, seen map[string]bool) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q is no name of a setting", at+name)
	}
	if seen[name] {
		return fmt.Errorf("%q is declared twice", at+name)
	}
	seen[name] = true
	if c.names++; c.names > maxSchemaNames {
		return fmt.Errorf("it declares more than %d settings", maxSchemaNames)
	}
	return nil
}

func (c *schemaCheck) count(texts ...string) error {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return errors.New("it holds text that is not UTF-8")
		}
		if c.text += len(text); c.text > 16*maxSchemaText {
			return errors.New("it holds too much text")
		}
	}
	return nil
}

func (c *schemaCheck) attribute(a *schema.Attribute) error {
	if err := checkType(a.Type, 0); err != nil {
		return err
	}
	if err := c.count(append([]string{a.Doc}, a.OneOf...)...); err != nil {
		return err
	}
	if len(a.OneOf) > 0 && a.Type.Kind != schema.KindString {
		return errors.New("one_of is for strings")
	}
	if len(a.Escape) > 0 && !a.PerEvent {
		return errors.New("escape is for attributes that are evaluated per event")
	}
	if len(a.Escape) > maxEscapes {
		return fmt.Errorf("it has more than %d escapes", maxEscapes)
	}
	for _, r := range a.Escape {
		if r.From == "" {
			return errors.New("an escape replaces nothing")
		}
		if err := c.count(r.From, r.To); err != nil {
			return err
		}
	}
	if a.Default == nil {
		return nil
	}
	if a.Required {
		return errors.New("it is required and has a default")
	}
	if err := checkDefault(a.Default, a.Type, 0); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	if text, ok := a.Default.(string); ok && len(a.OneOf) > 0 && !slices.Contains(a.OneOf, text) {
		return errors.New("the default is not one of the values that are allowed")
	}
	return nil
}

func checkType(t schema.Type, depth int) error {
	if depth > maxSchemaDepth {
		return fmt.Errorf("its type nests more than %d deep", maxSchemaDepth)
	}
	switch t.Kind {
	case schema.KindString, schema.KindNumber, schema.KindBool, schema.KindDuration, schema.KindSize, schema.KindPath, schema.KindAny:
		if t.Element != nil {
			return errors.New("its type has elements, but is neither a list nor a map")
		}
		return nil
	case schema.KindList, schema.KindMap:
		if t.Element == nil {
			return errors.New("the type of its elements is missing")
		}
		return checkType(*t.Element, depth+1)
	}
	return fmt.Errorf("it is of a kind (%d) that this version of callbackd does not know", int(t.Kind))
}

func checkDefault(v schema.Value, t schema.Type, depth int) error {
	ok := false
	switch t.Kind {
	case schema.KindString, schema.KindPath:
		var text string
		if text, ok = v.(string); ok && (len(text) > maxSchemaText || !utf8.ValidString(text)) {
			return errors.New("it is too long, or not UTF-8")
		}
	case schema.KindNumber:
		switch v.(type) {
		case int64, float64:
			ok = true
		}
	case schema.KindBool:
		_, ok = v.(bool)
	case schema.KindDuration:
		_, ok = v.(time.Duration)
	case schema.KindSize:
		_, ok = v.(int64)
	case schema.KindAny:
		var text schema.JSON
		if text, ok = v.(schema.JSON); ok && len(text) > maxSchemaText {
			return errors.New("it is too long")
		}
	case schema.KindList:
		list, isList := v.(schema.List)
		if !isList || len(list) > maxSchemaNames {
			break
		}
		for _, x := range list {
			if err := checkDefault(x, *t.Element, depth+1); err != nil {
				return err
			}
		}
		ok = true
	case schema.KindMap:
		object, isObject := v.(schema.Object)
		if !isObject || len(object) > maxSchemaNames {
			break
		}
		for _, x := range object {
			if err := checkDefault(x, *t.Element, depth+1); err != nil {
				return err
			}
		}
		ok = true
	}
	if !ok {
		return fmt.Errorf("it is not %s", kindName(t))
	}
	return nil
}

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
