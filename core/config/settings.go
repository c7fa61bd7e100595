package config

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/schema"
)

// DecodeSink decodes the config block of a sink against the schema that its
// plugin declares. The schema may come from anybody: one that cannot be used is a
// diagnostic. Settings are nil where there are errors.
//
// Afterwards Config.Secrets has the sink's sensitive values too. Sinks may be
// decoded at the same time.
func (c *Config) DecodeSink(s *Sink, declared schema.Schema) (*Settings, Diagnostics) {
	d := &settingsDecoder{cfg: c, out: &Settings{PerEvent: map[string]pipeline.Value{}}}
	if err := schema.Check(declared); err != nil {
		d.problems.errorAt(s.block.LabelRanges[0], fmt.Sprintf("The plugin of sink type %q declares settings that cannot be used", s.Type),
			sentence(err.Error())+" This is a mistake of the plugin.")
		return nil, c.files.diagnostics(&d.problems)
	}
	body, rng := &hclsyntax.Body{}, s.block.DefRange()
	if s.config != nil {
		body, rng = s.config.Body, s.config.DefRange()
	}
	d.out.Values = d.body(declared, body, rng, fmt.Sprintf("Sink type %q", s.Type), "")
	diags := c.files.diagnostics(&d.problems)
	if diags.HasErrors() {
		return nil, diags
	}
	return d.out, diags
}

// SinkProblem is an error of a sink as a whole, at its block.
func (c *Config) SinkProblem(s *Sink, summary, detail string) Diagnostic {
	var p problems
	p.errorAt(s.block.DefRange(), summary, detail)
	return c.files.diagnostics(&p)[0]
}

type settingsDecoder struct {
	cfg      *Config
	problems problems
	out      *Settings
}

// body decodes a block. owner begins sentences about it; key is the path of the
// block with a dot behind it.
func (d *settingsDecoder) body(declared schema.Schema, body *hclsyntax.Body, rng hcl.Range, owner, key string) schema.Object {
	d.unknown(declared, body, owner)
	out := make(schema.Object, len(declared.Attributes)+len(declared.Blocks))
	for i := range declared.Attributes {
		a := &declared.Attributes[i]
		out[a.Name] = d.attribute(a, body, rng, owner, key)
	}
	for i := range declared.Blocks {
		b := &declared.Blocks[i]
		out[b.Name] = d.blocks(b, body, rng, owner, key)
	}
	return out
}

// unknown reports what is written but not declared.
func (d *settingsDecoder) unknown(declared schema.Schema, body *hclsyntax.Body, owner string) {
	attributes, blocks := attributeNames(declared), blockNames(declared)
	known := slices.Concat(attributes, blocks)
	for name, attr := range body.Attributes {
		switch {
		case slices.Contains(attributes, name):
			continue
		case slices.Contains(blocks, name):
			d.problems.errorAt(attr.NameRange, fmt.Sprintf("%q is a block", name),
				fmt.Sprintf("Write %s { … }, without the equals sign.", name))
		default:
			d.problems.errorAt(attr.NameRange, fmt.Sprintf("Unknown setting %q", name),
				fmt.Sprintf("%s does not have it. %s", owner, choose(name, known, "settings")))
		}
		d.cfg.files.hideObjectValues(attr.Expr)
		for _, text := range literals(attr.Expr) {
			d.cfg.files.addSecret(text)
		}
	}
	for _, b := range body.Blocks {
		switch {
		case slices.Contains(blocks, b.Type):
			if len(b.Labels) > 0 {
				d.problems.errorAt(b.LabelRanges[0], fmt.Sprintf("%q has no labels", b.Type),
					fmt.Sprintf("Write %s { … }.", b.Type))
			}
			continue
		case slices.Contains(attributes, b.Type):
			d.problems.errorAt(b.DefRange(), fmt.Sprintf("%q is an attribute", b.Type),
				fmt.Sprintf("Write %s = …, with an equals sign.", b.Type))
		default:
			d.problems.errorAt(b.DefRange(), fmt.Sprintf("Unknown block %q", b.Type),
				fmt.Sprintf("%s does not have it. %s", owner, choose(b.Type, known, "settings")))
		}
		d.cfg.files.hideBody(b.Body)
	}
}

func (d *settingsDecoder) blocks(declared *schema.Block, body *hclsyntax.Body, rng hcl.Range, owner, key string) schema.Value {
	var found []*hclsyntax.Block
	for _, b := range body.Blocks {
		if b.Type == declared.Name {
			found = append(found, b)
		}
	}
	most := declared.MaxItems
	if most == 0 || most > maxBlockItems {
		most = maxBlockItems
	}
	if !declared.Repeated {
		most = 1
	}
	if len(found) > most {
		detail := fmt.Sprintf("At most %d are allowed, this is number %d.", most, most+1)
		if most == 1 {
			detail = fmt.Sprintf("It may be there once, and is already at %s.", place(found[0].DefRange()))
		}
		d.problems.errorAt(found[most].DefRange(), fmt.Sprintf("Too many blocks %q", declared.Name), detail)
		for _, b := range found[most:] {
			d.cfg.files.hideBody(b.Body)
		}
		found = found[:most]
	}
	if len(found) < declared.MinItems {
		detail := fmt.Sprintf("%s needs it: write %s { … }.", owner, declared.Name)
		if declared.MinItems > 1 {
			detail = fmt.Sprintf("%s needs at least %d of it.", owner, declared.MinItems)
		}
		d.problems.errorAt(rng, fmt.Sprintf("Missing block %q", declared.Name), withDoc(detail, declared.Doc))
	}
	inner := fmt.Sprintf("The block %s", declared.Name)
	if !declared.Repeated {
		if len(found) == 0 {
			return nil
		}
		return d.body(declared.Schema, found[0].Body, found[0].DefRange(), inner, key+declared.Name+".")
	}
	list := make(schema.List, 0, len(found))
	for i, b := range found {
		list = append(list, d.body(declared.Schema, b.Body, b.DefRange(), inner, key+declared.Name+"."+strconv.Itoa(i)+"."))
	}
	return list
}

func (d *settingsDecoder) attribute(a *schema.Attribute, body *hclsyntax.Body, rng hcl.Range, owner, key string) schema.Value {
	attr := body.Attributes[a.Name]
	if attr == nil {
		if a.Required {
			d.problems.errorAt(rng, fmt.Sprintf("Missing setting %q", a.Name),
				withDoc(fmt.Sprintf("%s needs it: write %s.", owner, example(a)), a.Doc))
		}
		return d.unset(a)
	}
	if a.Sensitive {
		d.cfg.files.hideValue(attr.Expr.Range())
		for _, text := range literals(attr.Expr) {
			d.cfg.files.addSecret(text)
		}
	}
	program, ok := d.compile(a, attr.Expr)
	if !ok {
		return nil
	}
	v, constant := program.Constant()
	if !constant {
		path := key + a.Name
		d.out.PerEvent[path] = allowed(a, program.Value)
		return schema.PerEvent{Key: path}
	}
	if v.IsNull() {
		if a.Required {
			d.wrong(a.Name, attr.Expr.Range(), fmt.Sprintf("It is required, but this is null: write %s.", example(a)))
		}
		return d.unset(a)
	}
	value, ok := d.value(a.Name, a.Type, v, attr.Expr, a.Sensitive)
	if !ok {
		return nil
	}
	if text, isText := value.(string); isText && len(a.OneOf) > 0 && !slices.Contains(a.OneOf, text) {
		detail := fmt.Sprintf("It is %s.", quoteList(a.OneOf))
		if best := nearest(text, a.OneOf); best != "" {
			detail = fmt.Sprintf("It is %s. Did you mean %q?", quoteList(a.OneOf), best)
		}
		d.wrong(a.Name, attr.Expr.Range(), detail)
	}
	return value
}

// allowed holds the values of a per-event attribute to those that its schema
// allows.
func allowed(a *schema.Attribute, value pipeline.Value) pipeline.Value {
	if len(a.OneOf) == 0 {
		return value
	}
	return func(v *event.View) (schema.Value, error) {
		x, err := value(v)
		if text, ok := x.(string); err == nil && ok && !slices.Contains(a.OneOf, text) {
			// The value is not told: it may be of the body, and secret.
			return nil, fmt.Errorf("%s is none of the values that it may have: %s", a.Name, quoteList(a.OneOf))
		}
		return x, err
	}
}

// unset is the value of an attribute that is not written.
func (d *settingsDecoder) unset(a *schema.Attribute) schema.Value {
	if path, ok := a.Default.(string); ok && a.Type.Kind == schema.KindPath {
		if resolved, err := resolve(d.cfg.Dir, path); err == nil {
			return resolved
		}
	}
	return a.Default
}

func (d *settingsDecoder) compile(a *schema.Attribute, e hclsyntax.Expression) (*expr.Program, bool) {
	var program *expr.Program
	var diags hcl.Diagnostics
	if a.PerEvent {
		program, diags = expr.CompileSetting(e, d.cfg.functions, expr.Setting{
			Type: a.Type, Escape: a.Escape, Duration: schema.ParseDuration, Size: schema.ParseSize,
			Path: func(path string) (string, error) { return resolve(d.cfg.Dir, path) },
		})
	} else {
		program, diags = expr.Compile(e, expr.ConfigScope, d.cfg.functions)
		if refersTo(e, "event") {
			d.wrong(a.Name, e.Range(), "It cannot depend on the event: it is set once, when the sink starts.")
			return nil, false
		}
	}
	if a.Sensitive {
		discreet(a.Name, diags)
	}
	d.problems.add(diags...)
	return program, program != nil && !diags.HasErrors()
}

func refersTo(e hclsyntax.Expression, name string) bool {
	return slices.ContainsFunc(e.Variables(), func(t hcl.Traversal) bool { return t.RootName() == name })
}

func (d *settingsDecoder) wrong(name string, rng hcl.Range, detail string) {
	d.problems.errorAt(rng, fmt.Sprintf("Wrong value of %q", name), detail)
}

// value converts a constant. secret: it came from env or file, or the schema
// says so.
func (d *settingsDecoder) value(name string, t schema.Type, v cty.Value, e hclsyntax.Expression, secret bool) (schema.Value, bool) {
	marked := v.IsMarked()
	v, _ = v.Unmark()
	secret = secret || marked
	if v.IsNull() {
		d.wrong(name, e.Range(), fmt.Sprintf("%s is required, but this is null.", capitalize(kindName(t))))
		return nil, false
	}
	mistaken := func() (schema.Value, bool) {
		d.wrong(name, e.Range(), fmt.Sprintf("%s is required, but this is %s.", capitalize(kindName(t)), typeName(v)))
		return nil, false
	}
	switch t.Kind {
	case schema.KindList:
		if !isList(v) {
			return mistaken()
		}
		out := make(schema.List, 0, v.LengthInt())
		good := true
		for i := range v.LengthInt() {
			inner := e
			if tuple, ok := e.(*hclsyntax.TupleConsExpr); ok && i < len(tuple.Exprs) {
				inner = tuple.Exprs[i]
			}
			x, ok := d.value(name, *t.Element, v.Index(cty.NumberIntVal(int64(i))), inner, secret)
			good = good && ok
			out = append(out, x)
		}
		return out, good
	case schema.KindMap:
		if !isObject(v) {
			return mistaken()
		}
		out := schema.Object{}
		good := true
		values := v.AsValueMap()
		for _, key := range slices.Sorted(maps.Keys(values)) {
			inner := itemExpr(e, key)
			if inner == nil {
				inner = e
			}
			x, ok := d.value(name, *t.Element, values[key], inner, secret)
			good = good && ok
			out[key] = x
		}
		return out, good
	case schema.KindAny:
		return d.json(name, v, e, secret)
	}
	out, err := scalar(t.Kind, v, marked, d.cfg.Dir)
	if err != nil {
		d.wrong(name, e.Range(), sentence(err.Error()))
		return nil, false
	}
	if out == nil {
		return mistaken()
	}
	if secret && v.Type() == cty.String {
		d.cfg.files.addSecret(v.AsString())
	}
	return out, true
}

// scalar converts a value that has no parts. It is nil where the type is wrong.
// Text that came from env may stand for a number or a bool.
func scalar(kind schema.Kind, v cty.Value, fromEnv bool, dir string) (schema.Value, error) {
	isText := v.Type() == cty.String
	switch kind {
	case schema.KindString:
		if isText {
			return v.AsString(), nil
		}
	case schema.KindPath:
		if isText {
			return resolve(dir, v.AsString())
		}
	case schema.KindDuration:
		if !isText {
			return nil, errDuration
		}
		return schema.ParseDuration(v.AsString())
	case schema.KindSize:
		if !isText {
			return nil, errSize
		}
		return schema.ParseSize(v.AsString())
	case schema.KindBool:
		switch {
		case v.Type() == cty.Bool:
			return v.True(), nil
		case isText && fromEnv && (v.AsString() == "true" || v.AsString() == "false"):
			return v.AsString() == "true", nil
		}
	case schema.KindNumber:
		if isText && fromEnv {
			if f, _, err := big.ParseFloat(strings.TrimSpace(v.AsString()), 10, 512, big.ToNearestEven); err == nil && len(v.AsString()) <= maxNumberLen {
				return number(f)
			}
		}
		if v.Type() == cty.Number {
			return number(v.AsBigFloat())
		}
	}
	return nil, nil
}

func number(f *big.Float) (schema.Value, error) {
	if n, accuracy := f.Int64(); accuracy == big.Exact {
		return n, nil
	}
	n, _ := f.Float64()
	if f.IsInf() || n > maxFloat || n < -maxFloat {
		return nil, fmt.Errorf("the number is too large")
	}
	return n, nil
}

const maxFloat = 1.7976931348623157e308

// json encodes any value as JSON.
func (d *settingsDecoder) json(name string, v cty.Value, e hclsyntax.Expression, secret bool) (schema.Value, bool) {
	plain, marks := v.UnmarkDeepWithPaths()
	if secret || len(marks) > 0 {
		_ = cty.Walk(plain, func(_ cty.Path, x cty.Value) (bool, error) {
			if x.Type() == cty.String && !x.IsNull() && x.IsKnown() {
				d.cfg.files.addSecret(x.AsString())
			}
			return true, nil
		})
	}
	text, err := ctyjson.Marshal(plain, plain.Type())
	if err != nil {
		d.wrong(name, e.Range(), "It cannot be written as JSON.")
		return nil, false
	}
	return schema.JSON(text), true
}

func capitalize(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func withDoc(detail, doc string) string {
	if doc = docSentence(doc); doc != "" {
		return detail + "\nThe plugin says about it: " + doc
	}
	return detail
}

// Locate puts what a plugin says about its settings at their place in the
// configuration. A path that leads nowhere is shown as far as it leads.
func (c *Config) Locate(s *Sink, found []schema.Diagnostic) Diagnostics {
	var p problems
	for _, diag := range found {
		h := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: oneLine(diag.Summary), Detail: diag.Detail}
		if diag.Warning {
			h.Severity = hcl.DiagWarning
		}
		if h.Summary == "" {
			h.Summary = fmt.Sprintf("The plugin of sink %q does not accept this", s.Name)
		}
		rng, left := s.find(diag.Path)
		if len(left) > 0 {
			h.Detail = strings.TrimSpace(h.Detail + fmt.Sprintf("\nIt is about %s, which is not written here.", pathText(diag.Path)))
		}
		h.Subject = &rng
		p.add(h)
	}
	return c.files.diagnostics(&p)
}

// find follows a path into the config block, and returns what it could not
// follow.
func (s *Sink) find(path []any) (hcl.Range, []any) {
	if s.config == nil {
		return s.block.DefRange(), path
	}
	body, rng := s.config.Body, s.config.DefRange()
	for len(path) > 0 {
		name, ok := path[0].(string)
		if !ok {
			return rng, path
		}
		if attr := body.Attributes[name]; attr != nil {
			return findValue(attr.Expr, path[1:])
		}
		var blocks []*hclsyntax.Block
		for _, b := range body.Blocks {
			if b.Type == name {
				blocks = append(blocks, b)
			}
		}
		index, rest := 0, path[1:]
		if len(rest) > 0 {
			if n, isIndex := pathIndex(rest[0]); isIndex {
				index, rest = n, rest[1:]
			}
		}
		if index >= len(blocks) {
			return rng, path
		}
		body, rng, path = blocks[index].Body, blocks[index].DefRange(), rest
	}
	return rng, nil
}

// findValue follows a path into a value as far as it is written out.
func findValue(e hclsyntax.Expression, path []any) (hcl.Range, []any) {
	for len(path) > 0 {
		var next hclsyntax.Expression
		if index, ok := pathIndex(path[0]); ok {
			if tuple, isTuple := e.(*hclsyntax.TupleConsExpr); isTuple && index < len(tuple.Exprs) {
				next = tuple.Exprs[index]
			}
		} else if key, isKey := path[0].(string); isKey {
			next = itemExpr(e, key)
		}
		if next == nil {
			return e.Range(), nil
		}
		e, path = next, path[1:]
	}
	return e.Range(), nil
}

func pathIndex(step any) (int, bool) {
	switch n := step.(type) {
	case int:
		return n, n >= 0
	case int64:
		return int(n), n >= 0 && n < maxFileBytes
	}
	return 0, false
}

func pathText(path []any) string {
	var b strings.Builder
	for i, step := range path {
		if index, ok := pathIndex(step); ok {
			fmt.Fprintf(&b, "[%d]", index)
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		fmt.Fprint(&b, step)
	}
	return b.String()
}
