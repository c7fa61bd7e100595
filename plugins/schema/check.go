package schema

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"
)

// The bounds of a schema. A plugin is another program: what it declares is
// checked before anything relies on it.
const (
	// MaxDepth is how deep blocks may be nested in blocks, and lists and maps in
	// the type of an attribute.
	MaxDepth = 8
	// MaxSettings is how many attributes and blocks there may be, all levels
	// together.
	MaxSettings = 1000
	// MaxDocBytes is how long the doc of an attribute or a block may be.
	MaxDocBytes = 16 << 10
	// MaxTextBytes is how much text there may be in all: docs, allowed values,
	// replacements, defaults.
	MaxTextBytes = 1 << 20
	// MaxOneOf is how many values an attribute may allow.
	MaxOneOf = 1000
	// MaxEscape is how many replacements an attribute may have.
	MaxEscape = 256
	// MaxDefaultBytes is how long a text in a default may be, JSON included.
	MaxDefaultBytes = 64 << 10
	// MaxDefaultItems is how many elements the lists and maps of a default may
	// have, all levels together.
	MaxDefaultItems = 1000
	// MaxMinItems is how many blocks of a name may be required.
	MaxMinItems = 1000
	// maxItems bounds Block.MaxItems: what a 32-bit number holds.
	maxItems = 1<<31 - 1
)

// namePattern is the pattern of all names in a configuration.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// ValidName tells whether a sink type, an attribute or a block may have the name.
func ValidName(name string) bool { return namePattern.MatchString(name) }

// Check tells what is unsound about a schema: names, types, bounds, defaults that
// do not conform. Whoever gets a schema from elsewhere calls it first; all other
// code may rely on what it checks.
func Check(s Schema) error {
	c := &checker{}
	return c.body(s, 0)
}

// checker walks a schema and keeps count.
type checker struct{ settings, text int }

func (c *checker) body(s Schema, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("nested deeper than %d levels", MaxDepth)
	}
	if c.settings += len(s.Attributes) + len(s.Blocks); c.settings > MaxSettings {
		return fmt.Errorf("more than %d attributes and blocks", MaxSettings)
	}
	seen := make(map[string]bool, len(s.Attributes)+len(s.Blocks))
	for i := range s.Attributes {
		a := &s.Attributes[i]
		err := c.name(a.Name, a.Doc, seen)
		if err == nil {
			err = c.attribute(a)
		}
		if err != nil {
			return fmt.Errorf("attribute %q: %w", shown(a.Name), err)
		}
	}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		err := c.name(b.Name, b.Doc, seen)
		if err == nil {
			err = checkBounds(b)
		}
		if err == nil {
			err = c.body(b.Schema, depth+1)
		}
		if err != nil {
			return fmt.Errorf("block %q: %w", shown(b.Name), err)
		}
	}
	return nil
}

// shown is a name in a message; one that is none may be of any length.
func shown(name string) string { return name[:min(len(name), 100)] }

func (c *checker) name(name, doc string, seen map[string]bool) error {
	switch {
	case !ValidName(name):
		return errors.New("a name starts with a letter or _ and has at most 63 letters, digits, _ and -")
	case seen[name]:
		return errors.New("the name is used twice")
	case len(doc) > MaxDocBytes:
		return fmt.Errorf("the doc is longer than %d bytes", MaxDocBytes)
	case !utf8.ValidString(doc):
		return errors.New("the doc is not UTF-8")
	}
	seen[name] = true
	return c.count(doc)
}

func (c *checker) count(text string) error {
	if c.text += len(text); c.text > MaxTextBytes {
		return fmt.Errorf("the schema holds more than %d bytes of text", MaxTextBytes)
	}
	return nil
}

func checkBounds(b *Block) error {
	switch {
	case b.MinItems < 0 || b.MinItems > maxItems || b.MaxItems < 0 || b.MaxItems > maxItems:
		return errors.New("the number of blocks is out of range")
	case b.MaxItems > 0 && b.MinItems > b.MaxItems:
		return fmt.Errorf("at least %d and at most %d blocks cannot be met", b.MinItems, b.MaxItems)
	case b.MinItems > MaxMinItems:
		return fmt.Errorf("more than %d blocks are required", MaxMinItems)
	case !b.Repeated && (b.MinItems > 1 || b.MaxItems > 1):
		return errors.New("a block that is not repeated is there at most once")
	}
	return nil
}

func (c *checker) attribute(a *Attribute) error {
	if err := checkType(a.Type, 0); err != nil {
		return err
	}
	if err := c.oneOf(a); err != nil {
		return err
	}
	if err := c.escape(a); err != nil {
		return err
	}
	if a.Default == nil {
		return nil
	}
	if a.Required {
		return errors.New("it is required, so it cannot have a default")
	}
	if err := Conform(a.Type, a.Default); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	items := 0
	if err := c.byDefault(a.Default, &items); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	if text, ok := a.Default.(string); ok && len(a.OneOf) > 0 && !slices.Contains(a.OneOf, text) {
		return fmt.Errorf("the default %q is not among the allowed values", shown(text))
	}
	return nil
}

func (c *checker) oneOf(a *Attribute) error {
	if len(a.OneOf) > MaxOneOf {
		return fmt.Errorf("more than %d allowed values", MaxOneOf)
	}
	if len(a.OneOf) > 0 && a.Type.Kind != KindString {
		return errors.New("only text can be one of a list of values")
	}
	seen := make(map[string]bool, len(a.OneOf))
	for _, value := range a.OneOf {
		switch {
		case !utf8.ValidString(value):
			return errors.New("an allowed value is not UTF-8")
		case seen[value]:
			return fmt.Errorf("the allowed value %q is listed twice", shown(value))
		}
		seen[value] = true
		if err := c.count(value); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) escape(a *Attribute) error {
	if len(a.Escape) > MaxEscape {
		return fmt.Errorf("more than %d replacements", MaxEscape)
	}
	if len(a.Escape) > 0 && !a.PerEvent {
		return errors.New("only what is evaluated per event can be escaped")
	}
	seen := make(map[string]bool, len(a.Escape))
	for _, r := range a.Escape {
		switch {
		case r.From == "":
			return errors.New("a replacement of nothing")
		case !utf8.ValidString(r.From) || !utf8.ValidString(r.To):
			return errors.New("a replacement is not UTF-8")
		case seen[r.From]:
			return fmt.Errorf("%q is replaced twice", shown(r.From))
		}
		seen[r.From] = true
		if err := c.count(r.From + r.To); err != nil {
			return err
		}
	}
	return nil
}

// byDefault bounds a default, which conforms to its type already.
func (c *checker) byDefault(v Value, items *int) error {
	text := ""
	switch v := v.(type) {
	case string:
		text = v
	case JSON:
		text = string(v)
	case List:
		for _, x := range v {
			if err := c.element(x, items); err != nil {
				return err
			}
		}
	case Object:
		for key, x := range v {
			if !utf8.ValidString(key) {
				return errors.New("a key is not UTF-8")
			}
			if err := c.count(key); err != nil {
				return err
			}
			if err := c.element(x, items); err != nil {
				return err
			}
		}
	}
	switch {
	case len(text) > MaxDefaultBytes:
		return fmt.Errorf("a text is longer than %d bytes", MaxDefaultBytes)
	case !utf8.ValidString(text):
		return errors.New("a text is not UTF-8")
	}
	return c.count(text)
}

func (c *checker) element(v Value, items *int) error {
	if *items++; *items > MaxDefaultItems {
		return fmt.Errorf("more than %d elements", MaxDefaultItems)
	}
	return c.byDefault(v, items)
}

func checkType(t Type, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("nested deeper than %d levels", MaxDepth)
	}
	if t.Kind < KindString || t.Kind > KindAny {
		return fmt.Errorf("it is of a kind (%d) that this version of callbackd does not know", int(t.Kind))
	}
	container := t.Kind == KindList || t.Kind == KindMap
	switch {
	case container && t.Element == nil:
		return errors.New("a list or map without a type of its elements")
	case !container && t.Element != nil:
		return errors.New("only lists and maps have elements")
	case container:
		return checkType(*t.Element, depth+1)
	}
	return nil
}

// Conform tells how a value differs from a type, which must be one that Check
// accepts. Null conforms to every type at the top, but not as an element. A
// PerEvent conforms to none.
func Conform(t Type, v Value) error {
	if v == nil {
		return nil
	}
	return conform(t, v)
}

// conform goes as deep as the type, which Check bounds.
func conform(t Type, v Value) error {
	ok := false
	switch t.Kind {
	case KindString, KindPath:
		_, ok = v.(string)
	case KindBool:
		_, ok = v.(bool)
	case KindNumber:
		switch v.(type) {
		case int64, float64:
			ok = true
		}
	case KindDuration:
		_, ok = v.(time.Duration)
	case KindSize:
		size, whole := v.(int64)
		if whole && size < 0 {
			return errors.New("a size is not negative")
		}
		ok = whole
	case KindAny:
		_, ok = v.(JSON)
	case KindList:
		var list List
		if list, ok = v.(List); ok {
			for i, item := range list {
				if err := conform(*t.Element, item); err != nil {
					return fmt.Errorf("element %d: %w", i, err)
				}
			}
		}
	case KindMap:
		var object Object
		if object, ok = v.(Object); ok {
			for key, item := range object {
				if err := conform(*t.Element, item); err != nil {
					return fmt.Errorf("%q: %w", key, err)
				}
			}
		}
	}
	if !ok {
		return fmt.Errorf("%s is expected, not %s", KindName(t.Kind), valueName(v))
	}
	return nil
}

// KindName names a kind for people, with its article.
func KindName(kind Kind) string {
	names := [...]string{
		KindString:   "a string",
		KindNumber:   "a number",
		KindBool:     "true or false",
		KindDuration: "a duration",
		KindSize:     "a size",
		KindPath:     "a path",
		KindList:     "a list",
		KindMap:      "a map",
		KindAny:      "a value",
	}
	if kind <= 0 || int(kind) >= len(names) {
		return "an unknown kind"
	}
	return names[kind]
}

func valueName(v Value) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64, float64:
		return "a number"
	case time.Duration:
		return "a duration"
	case JSON:
		return "JSON text"
	case List:
		return "a list"
	case Object:
		return "a map"
	case PerEvent:
		return "a per-event value"
	}
	return fmt.Sprintf("a %T", v)
}
