package config

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/callbackd/callbackd/plugins/schema"
)

// spec lists what a block may hold. All that is not in it is a mistake, so that
// nothing a user writes is ignored.
type spec struct {
	// name is the block's type; labels are what its labels are called.
	name   string
	labels []string
	// attributes and blocks are the names that are known; a block of blocks may be
	// there once, of repeated any number of times.
	attributes, blocks, repeated []string
	// secrets: an attribute that is not known may be a misspelled secret.
	secrets bool
	// elsewhere says where a name that is not known may belong; begins with a
	// space.
	elsewhere string
}

// section is a block that is being decoded, with methods that read its
// attributes by name. They report what is wrong, and then leave the default.
type section struct {
	d    *decoder
	spec *spec
	body *hclsyntax.Body
	// what names the block in messages: `sink "file" "audit"`.
	what string
	// rng is the block's head, where something is missing.
	rng hcl.Range
}

// section checks what is in a block against its spec.
func (d *decoder) section(s *spec, body *hclsyntax.Body, what string, rng hcl.Range) *section {
	known := slices.Concat(s.attributes, s.blocks, s.repeated)
	for name, attr := range body.Attributes {
		switch {
		case slices.Contains(s.attributes, name):
		case slices.Contains(s.blocks, name) || slices.Contains(s.repeated, name):
			d.problems.errorAt(attr.NameRange, fmt.Sprintf("%q is a block", name),
				fmt.Sprintf("Write %s { … }, without the equals sign.", name))
		default:
			d.problems.errorAt(attr.NameRange, fmt.Sprintf("Unknown attribute %q", name),
				fmt.Sprintf("%s %s%s", lacks(what), choose(name, known, "names"), s.elsewhere))
			if s.secrets || secretName.MatchString(name) {
				d.files.hideValue(attr.Expr.Range())
			}
		}
	}
	first := map[string]*hclsyntax.Block{}
	for _, b := range body.Blocks {
		switch {
		case slices.Contains(s.blocks, b.Type):
			if other := first[b.Type]; other != nil {
				d.problems.errorAt(b.DefRange(), fmt.Sprintf("Duplicate block %q", b.Type),
					fmt.Sprintf("It may be there once, and is already at %s.", place(other.DefRange())))
			} else {
				first[b.Type] = b
			}
		case slices.Contains(s.repeated, b.Type):
		case slices.Contains(s.attributes, b.Type):
			d.problems.errorAt(b.DefRange(), fmt.Sprintf("%q is an attribute", b.Type),
				fmt.Sprintf("Write %s = …, with an equals sign.", b.Type))
			d.files.hideBody(b.Body)
		default:
			d.problems.errorAt(b.DefRange(), fmt.Sprintf("Unknown block %q", b.Type),
				fmt.Sprintf("%s %s%s", lacks(what), choose(b.Type, known, "names"), s.elsewhere))
			d.files.hideBody(b.Body)
		}
	}
	return &section{d: d, spec: s, body: body, what: what, rng: rng}
}

// hideBody hides all values of a block that nobody knows.
func (s *sources) hideBody(body *hclsyntax.Body) {
	for _, attr := range body.Attributes {
		s.hideValue(attr.Expr.Range())
	}
	for _, b := range body.Blocks {
		s.hideBody(b.Body)
	}
}

// block returns the block of a name, nil where there is none. Its labels are
// checked against its spec.
func (s *section) block(sub *spec) *section {
	for _, b := range s.body.Blocks {
		if b.Type == sub.name {
			if !s.d.labels(b, sub) {
				return nil
			}
			return s.d.section(sub, b.Body, blockName(b), b.DefRange())
		}
	}
	return nil
}

// labels checks that a block has the labels of its spec.
func (d *decoder) labels(b *hclsyntax.Block, s *spec) bool {
	if len(b.Labels) == len(s.labels) {
		return true
	}
	form := s.name
	for _, label := range s.labels {
		form += " " + strconv.Quote(label)
	}
	d.problems.errorAt(b.DefRange(), fmt.Sprintf("%q has the wrong number of labels", b.Type),
		fmt.Sprintf("It is written %s { … }.", form))
	return false
}

func (s *section) attribute(name string) *hclsyntax.Attribute {
	if !slices.Contains(s.spec.attributes, name) {
		panic("config: spec of " + s.spec.name + " lacks " + name)
	}
	return s.body.Attributes[name]
}

// has tells whether an attribute is written.
func (s *section) has(name string) bool { return s.attribute(name) != nil }

// require reports an attribute that is not written.
func (s *section) require(name, example string) bool {
	if s.has(name) {
		return true
	}
	s.d.problems.errorAt(s.rng, fmt.Sprintf("Missing attribute %q", name),
		fmt.Sprintf("The block %s needs it: write %s = %s.", s.what, name, example))
	return false
}

// wrong reports what is wrong with the value of an attribute.
func (s *section) wrong(name string, rng hcl.Range, detail string) {
	s.d.problems.errorAt(rng, fmt.Sprintf("Wrong value of %q", name), detail)
}

// constant evaluates an attribute that is the same for all events. It is not ok
// where it is not written, or null, or wrong.
func (s *section) constant(name string) (v cty.Value, expr hclsyntax.Expression, ok bool) {
	attr := s.attribute(name)
	if attr == nil {
		return cty.NilVal, nil, false
	}
	v, ok = s.d.constant(attr)
	if !ok || v.IsNull() {
		return cty.NilVal, nil, false
	}
	return v, attr.Expr, true
}

func (s *section) text(name string, dst *string) bool {
	v, e, ok := s.constant(name)
	if !ok {
		return false
	}
	text, ok := s.asText(name, v, e.Range())
	if ok {
		*dst = text
	}
	return ok
}

func (s *section) asText(name string, v cty.Value, rng hcl.Range) (string, bool) {
	v, _ = v.Unmark()
	if v.IsNull() || v.Type() != cty.String {
		s.wrong(name, rng, fmt.Sprintf("Text in quotes is required, but this is %s.", typeName(v)))
		return "", false
	}
	return v.AsString(), true
}

// notEmpty is text with at least one character.
func (s *section) notEmpty(name string, dst *string) bool {
	text := ""
	if !s.text(name, &text) {
		return false
	}
	if text == "" {
		s.wrong(name, s.attribute(name).Expr.Range(), "It must not be empty.")
		return false
	}
	*dst = text
	return true
}

func (s *section) oneOf(name string, dst *string, allowed ...string) {
	text := ""
	if !s.text(name, &text) {
		return
	}
	if !slices.Contains(allowed, text) {
		s.wrong(name, s.attribute(name).Expr.Range(), fmt.Sprintf("It is %s.", quoteList(allowed)))
		return
	}
	*dst = text
}

func (s *section) duration(name string, dst *time.Duration, least, most time.Duration) {
	v, e, ok := s.constant(name)
	if !ok {
		return
	}
	v, _ = v.Unmark()
	if v.Type() != cty.String {
		s.wrong(name, e.Range(), sentence(errDuration.Error()))
		return
	}
	d, err := schema.ParseDuration(v.AsString())
	switch {
	case err != nil:
		s.wrong(name, e.Range(), sentence(err.Error()))
	case d < least || d > most:
		s.wrong(name, e.Range(), fmt.Sprintf("It may be %s to %s.", schema.FormatDuration(least), schema.FormatDuration(most)))
	default:
		*dst = d
	}
}

func (s *section) size(name string, dst *int64, least, most int64) {
	v, e, ok := s.constant(name)
	if !ok {
		return
	}
	v, _ = v.Unmark()
	if v.Type() != cty.String {
		s.wrong(name, e.Range(), sentence(errSize.Error()))
		return
	}
	n, err := schema.ParseSize(v.AsString())
	switch {
	case err != nil:
		s.wrong(name, e.Range(), sentence(err.Error()))
	case n < least || n > most:
		s.wrong(name, e.Range(), fmt.Sprintf("It may be %s to %s.", schema.FormatSize(least), schema.FormatSize(most)))
	default:
		*dst = n
	}
}

func (s *section) boolean(name string, dst *bool) {
	v, e, ok := s.constant(name)
	if !ok {
		return
	}
	v, _ = v.Unmark()
	if v.IsNull() || v.Type() != cty.Bool {
		s.wrong(name, e.Range(), fmt.Sprintf("It is true or false, but this is %s.", typeName(v)))
		return
	}
	*dst = v.True()
}

// number returns a number as it is written; text from env counts if it is one.
func (s *section) number(name string) (*big.Float, hcl.Range, bool) {
	v, e, ok := s.constant(name)
	if !ok {
		return nil, hcl.Range{}, false
	}
	f, ok := s.asNumber(name, v, e.Range())
	return f, e.Range(), ok
}

func (s *section) asNumber(name string, v cty.Value, rng hcl.Range) (*big.Float, bool) {
	fromEnv := v.IsMarked()
	v, _ = v.Unmark()
	if fromEnv && v.Type() == cty.String {
		if n, err := convert.Convert(v, cty.Number); err == nil {
			v = n
		}
	}
	if v.IsNull() || v.Type() != cty.Number {
		s.wrong(name, rng, fmt.Sprintf("A number is required, but this is %s.", typeName(v)))
		return nil, false
	}
	return v.AsBigFloat(), true
}

func (s *section) integer(name string, dst *int, least, most int) {
	f, rng, ok := s.number(name)
	if !ok {
		return
	}
	n, accuracy := f.Int64()
	switch {
	case !f.IsInt():
		s.wrong(name, rng, "A whole number is required.")
	case accuracy != big.Exact || n < int64(least) || n > int64(most):
		s.wrong(name, rng, fmt.Sprintf("It may be %d to %d.", least, most))
	default:
		*dst = int(n)
	}
}

func (s *section) float(name string, dst *float64, least, most float64) {
	f, rng, ok := s.number(name)
	if !ok {
		return
	}
	n, _ := f.Float64()
	if n < least || n > most || math.IsNaN(n) {
		s.wrong(name, rng, fmt.Sprintf("It may be %s to %s.",
			strconv.FormatFloat(least, 'f', -1, 64), strconv.FormatFloat(most, 'f', -1, 64)))
		return
	}
	*dst = n
}

// ordered reports two durations of which the first must not be above the second.
func (s *section) ordered(low string, least time.Duration, high string, most time.Duration) {
	if least <= most {
		return
	}
	name := low
	if !s.has(name) {
		name = high
	}
	s.wrong(name, s.attribute(name).Expr.Range(),
		fmt.Sprintf("%s (%s) must not be above %s (%s).", low, schema.FormatDuration(least), high, schema.FormatDuration(most)))
}

// path is a path, made absolute against the configuration's folder.
func (s *section) path(name string, dst *string) bool {
	text := ""
	if !s.notEmpty(name, &text) {
		return false
	}
	path, err := s.d.resolve(text)
	if err != nil {
		s.wrong(name, s.attribute(name).Expr.Range(), sentence(err.Error()))
		return false
	}
	*dst = path
	return true
}

// element is an element of a list, with its place.
type element struct {
	value cty.Value
	rng   hcl.Range
}

// list returns the elements of a list. It is not ok where there is none.
func (s *section) list(name, of string) ([]element, bool) {
	v, e, ok := s.constant(name)
	if !ok {
		return nil, false
	}
	v, marks := v.Unmark()
	if !isList(v) {
		s.wrong(name, e.Range(), fmt.Sprintf("A list of %s is required, in square brackets, but this is %s.", of, typeName(v)))
		return nil, false
	}
	out := make([]element, 0, v.LengthInt())
	for i := range v.LengthInt() {
		out = append(out, element{v.Index(cty.NumberIntVal(int64(i))).WithMarks(marks), elementRange(e, i)})
	}
	return out, true
}

// texts returns a list of texts of at least one character each.
func (s *section) texts(name, of string) []element {
	elements, ok := s.list(name, of)
	if !ok {
		return nil
	}
	out := make([]element, 0, len(elements))
	for _, el := range elements {
		text, ok := s.asText(name, el.value, el.rng)
		switch {
		case !ok:
		case text == "":
			s.wrong(name, el.rng, "It must not be empty.")
		default:
			out = append(out, element{cty.StringVal(text), el.rng})
		}
	}
	return out
}

// secretTexts is texts whose values are never shown.
func (s *section) secretTexts(name string, most int) []string {
	attr := s.attribute(name)
	if attr == nil {
		return nil
	}
	s.d.secret[attr] = true
	s.d.files.hideValue(attr.Expr.Range())
	for _, text := range literals(attr.Expr) {
		s.d.files.addSecret(text)
	}
	var out []string
	for _, el := range s.texts(name, "texts") {
		text := el.value.AsString()
		s.d.files.addSecret(text)
		switch {
		case utf8.RuneCountInString(text) > most:
			s.wrong(name, el.rng, fmt.Sprintf("It may have 1 to %d characters.", most))
		case slices.Contains(out, text):
			s.wrong(name, el.rng, "It is in the list twice.")
		default:
			out = append(out, text)
		}
	}
	return out
}

func elementRange(e hclsyntax.Expression, i int) hcl.Range {
	if tuple, ok := e.(*hclsyntax.TupleConsExpr); ok && i < len(tuple.Exprs) {
		return tuple.Exprs[i].Range()
	}
	return e.Range()
}

func isList(v cty.Value) bool {
	t := v.Type()
	return v.IsKnown() && !v.IsNull() && (t.IsTupleType() || t.IsListType())
}

func isObject(v cty.Value) bool {
	t := v.Type()
	return v.IsKnown() && !v.IsNull() && (t.IsObjectType() || t.IsMapType())
}

// typeName names what a value is, in the words of the documentation.
func typeName(v cty.Value) string {
	t := v.Type()
	switch {
	case v.IsNull():
		return "null"
	case t == cty.String:
		return "text"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t.IsTupleType() || t.IsListType():
		return "a list"
	case t.IsObjectType() || t.IsMapType():
		return "an object"
	}
	return "something else"
}

// place names a place in a message.
func place(rng hcl.Range) string {
	return fmt.Sprintf("%s:%d", rng.Filename, rng.Start.Line)
}

// blockName names a block in messages, as it is written.
func blockName(b *hclsyntax.Block) string {
	name := b.Type
	for _, label := range b.Labels {
		name += " " + strconv.Quote(label)
	}
	return name
}

// lacks says that a block does not have something.
func lacks(what string) string {
	if what == "" {
		return "The configuration does not have it."
	}
	return "The block " + what + " does not have it."
}
