package expr

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/callbackd/callbackd/core/event"
)

// kinds is a set of kinds that a value can have, as far as is known while
// compiling.
type kinds uint8

const (
	canNull kinds = 1 << iota
	canBool
	canNumber
	canText
	canList
	canObject

	canAnything = canNull | canBool | canNumber | canText | canList | canObject
)

func (k kinds) String() string {
	var names []string
	for _, n := range []struct {
		kind kinds
		name string
	}{
		{canBool, "a bool"}, {canNumber, "a number"}, {canText, "text"}, {canList, "a list"}, {canObject, "an object"},
	} {
		if k&n.kind != 0 {
			names = append(names, n.name)
		}
	}
	if len(names) == 0 {
		return "null"
	}
	return strings.Join(names, " or ")
}

// never tells whether a value of k is never of one of the given kinds, unless it
// is always null.
func (k kinds) never(of kinds) bool { return k&of == 0 && k != canNull }

func (x value) kinds() kinds {
	switch x.kind {
	case kindNull:
		return canNull
	case kindBool:
		return canBool
	case kindInt, kindBig:
		return canNumber
	case kindText:
		return canText
	}
	if x.typeName() == "a list" {
		return canList
	}
	return canObject
}

type (
	evalFunc func(*event.View, *frame) (value, error)
	testFunc func(*event.View, *frame) (bool, error)
)

// node is a compiled expression.
type node struct {
	eval evalFunc
	rng  hcl.Range
	// test is set where the value is always a bool: the shorter way to it.
	test testFunc
	// attr is set for an event's attribute that is text, data for a path into the
	// body: comparisons take these without making a value of it. path is then what
	// is read.
	attr func(*event.View) (string, bool)
	data func(*event.View) (event.JSONValue, error)
	path string

	// guard says for which events the value is false.
	guard guard

	kinds kinds
	// event tells whether the value depends on the event, and variables which
	// variables of for it depends on: a bit for each level of nesting.
	event     bool
	variables uint64
	// frame tells whether eval needs a frame, slots how many locals it has.
	frame bool
	slots int

	// constant is set once val holds the value.
	constant bool
	val      value
	// marks are those of all constants that the value depends on; whole returns a
	// constant with its marks where they belong, nil: they are the whole value's.
	marks cty.ValueMarks
	whole func() cty.Value
}

// cty returns a constant with its marks.
func (n *node) cty() cty.Value {
	if n.whole != nil {
		return n.whole()
	}
	v, err := n.val.toCty(nil)
	if err != nil {
		return cty.DynamicVal // a constant holds nothing of a body that could fail
	}
	return v.WithMarks(n.marks)
}

// uses notes that n is computed from the given nodes.
func (n *node) uses(of ...node) {
	for i := range of {
		n.event = n.event || of[i].event
		n.variables |= of[i].variables
		n.frame = n.frame || of[i].frame
		n.slots = max(n.slots, of[i].slots)
		if len(of[i].marks) > 0 {
			marks := maps.Clone(n.marks)
			if marks == nil {
				marks = make(cty.ValueMarks)
			}
			maps.Copy(marks, of[i].marks)
			n.marks = marks
		}
	}
}

// mode says what becomes of text that comes from the event.
type mode int

const (
	// plain: nothing.
	plain mode = iota
	// escaped: it is replaced as the Setting says.
	escaped
	// escapedText: so it is, and what is no text becomes text first.
	escapedText
)

type compiler struct {
	scope Scope
	fns   Functions
	diags hcl.Diagnostics
	// escape is nil where nothing is escaped.
	escape *strings.Replacer
	// scopes are the variables of the enclosing fors, innermost last.
	scopes []scope
	items  map[*hclsyntax.AnonSymbolExpr]node
	depth  int
	// lenient is above 0 where a constant that cannot be computed is no mistake:
	// it may be one that is never asked for.
	lenient int
}

// scope is the variables of one for.
type scope struct{ vars map[string]node }

func compile(e hcl.Expression, s Scope, fns Functions, set Setting, w want) (*Program, hcl.Diagnostics) {
	syntax, ok := e.(hclsyntax.Expression)
	if !ok {
		return nil, hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "Unsupported expression",
			Detail: "Expressions are written in HCL's native syntax.", Subject: e.Range().Ptr(),
		}}
	}
	c := &compiler{scope: s, fns: fns, items: make(map[*hclsyntax.AnonSymbolExpr]node)}
	m := plain
	if len(set.Escape) > 0 {
		pairs := make([]string, 0, 2*len(set.Escape))
		for _, r := range set.Escape {
			pairs = append(pairs, r.From, r.To)
		}
		c.escape = strings.NewReplacer(pairs...)
		if m = escaped; textOnly(set.Type) {
			m = escapedText
		}
	}
	root := c.expr(syntax, m)
	if c.diags.HasErrors() {
		return nil, c.diags
	}
	p := &Program{root: root, conv: newConverter(set), rng: e.Range()}
	c.checkWanted(p, w, set)
	if c.diags.HasErrors() {
		return nil, c.diags
	}
	return p, c.diags
}

// expr compiles e. After a mistake, which it reports, the node is one that can
// be anything.
func (c *compiler) expr(e hclsyntax.Expression, m mode) node {
	if c.depth++; c.depth > MaxDepth {
		if c.depth == MaxDepth+1 {
			c.report(e.Range(), "Expression nested too deep", "An expression may be nested at most %d deep.", MaxDepth)
		}
		c.depth--
		return c.failed(e.Range())
	}
	n := c.dispatch(e, m)
	c.depth--
	if n.rng == (hcl.Range{}) {
		n.rng = e.Range()
	}
	c.fold(&n)
	if m != plain && n.event && !selfEscaping(e) {
		n = c.escaping(n, m)
	}
	return n
}

func (c *compiler) dispatch(e hclsyntax.Expression, m mode) node {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return c.literal(e)
	case *hclsyntax.ParenthesesExpr:
		return c.expr(e.Expression, m)
	case *hclsyntax.TemplateWrapExpr:
		return c.expr(e.Wrapped, m)
	case *hclsyntax.ObjectConsKeyExpr:
		return c.objectKey(e, m)
	case *hclsyntax.ScopeTraversalExpr:
		return c.scopeTraversal(e)
	case *hclsyntax.RelativeTraversalExpr:
		return c.relativeTraversal(e)
	case *hclsyntax.IndexExpr:
		return c.index(e)
	case *hclsyntax.SplatExpr:
		return c.splat(e)
	case *hclsyntax.AnonSymbolExpr:
		if n, ok := c.items[e]; ok {
			return n
		}
	case *hclsyntax.BinaryOpExpr:
		return c.binary(e)
	case *hclsyntax.UnaryOpExpr:
		return c.unary(e)
	case *hclsyntax.ConditionalExpr:
		return c.conditional(e, m)
	case *hclsyntax.TupleConsExpr:
		return c.tuple(e, m)
	case *hclsyntax.ObjectConsExpr:
		return c.object(e, m)
	case *hclsyntax.ForExpr:
		return c.forExpr(e, m)
	case *hclsyntax.TemplateExpr:
		return c.template(e, m)
	case *hclsyntax.TemplateJoinExpr:
		return c.templateJoin(e, m)
	case *hclsyntax.FunctionCallExpr:
		return c.call(e, m)
	case *hclsyntax.ExprSyntaxError:
		c.diags = append(c.diags, e.ParseDiags...)
		return c.failed(e.Range())
	}
	c.report(e.Range(), "Unsupported expression", "Expressions of this kind cannot be used here.")
	return c.failed(e.Range())
}

// selfEscaping tells whether e hands the mode on to its parts.
func selfEscaping(e hclsyntax.Expression) bool {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr, *hclsyntax.TemplateWrapExpr, *hclsyntax.ObjectConsKeyExpr,
		*hclsyntax.ConditionalExpr, *hclsyntax.TupleConsExpr, *hclsyntax.ObjectConsExpr,
		*hclsyntax.ForExpr, *hclsyntax.TemplateExpr, *hclsyntax.TemplateJoinExpr:
		return true
	case *hclsyntax.FunctionCallExpr:
		return handsOn(e)
	}
	return false
}

// report notes a mistake.
func (c *compiler) report(rng hcl.Range, summary, detail string, args ...any) {
	c.diags = append(c.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: rng.Ptr(),
	})
}

// failed is what stands for a part that has a mistake.
func (c *compiler) failed(rng hcl.Range) node {
	return node{
		rng: rng, kinds: canAnything, event: true,
		eval: func(*event.View, *frame) (value, error) { return value{}, errorAt(rng, "the expression has a mistake") },
	}
}

// fold computes n, if it depends neither on the event nor on a variable.
func (c *compiler) fold(n *node) {
	if n.constant || n.event || n.variables != 0 {
		return
	}
	f := newFrame(n.slots)
	f.strict = c.lenient == 0
	val, err := n.eval(nil, f)
	if err != nil {
		if c.lenient == 0 {
			c.reportConstant(n, err)
		}
		return
	}
	*n = node{
		rng: n.rng, constant: true, val: val, kinds: val.kinds(), marks: n.marks, whole: n.whole,
		eval: func(*event.View, *frame) (value, error) { return val, nil },
	}
	if val.kind == kindBool {
		n.test = func(*event.View, *frame) (bool, error) { return val.num != 0, nil }
	}
}

// reportConstant reports a constant that cannot be computed. Once is enough: a
// constant around it fails for the same reason.
func (c *compiler) reportConstant(n *node, err error) {
	rng, detail := n.rng, err
	var positioned *positionError
	if errors.As(err, &positioned) {
		rng, detail = positioned.rng, positioned.err
	}
	for _, d := range c.diags {
		if d.Subject != nil && *d.Subject == rng {
			return
		}
	}
	if len(n.marks) > 0 && !errors.As(detail, new(typeError)) {
		detail = errors.New("the value does not fit, and is not shown because it is sensitive")
	}
	c.report(rng, "Invalid expression", "%s.", sentence(detail.Error()))
}

// sentence makes a message the begin of a sentence.
func sentence(s string) string {
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".")
}

func (c *compiler) literal(e *hclsyntax.LiteralValueExpr) node {
	return c.constantNode(e.Range(), e.Val)
}

// constantNode is a node with a value that is known, its marks included.
func (c *compiler) constantNode(rng hcl.Range, v cty.Value) node {
	_, marks := v.UnmarkDeep()
	val, err := fromCty(v)
	if err != nil {
		c.report(rng, "Invalid expression", "%s.", sentence(err.Error()))
		return c.failed(rng)
	}
	n := node{
		rng: rng, constant: true, val: val, kinds: val.kinds(), marks: marks,
		eval: func(*event.View, *frame) (value, error) { return val, nil },
	}
	if len(marks) > 0 {
		n.whole = func() cty.Value { return v }
	}
	return n
}

// testOf returns the shortest way to the value of an operand that has to be a
// bool.
func testOf(n node) testFunc {
	if n.test != nil {
		return n.test
	}
	return func(v *event.View, f *frame) (bool, error) {
		x, err := n.eval(v, f)
		if err != nil {
			return false, err
		}
		b, err := x.truth()
		return b, at(n.rng, err)
	}
}

// fromTest makes the eval of a node from its test.
func fromTest(test testFunc) evalFunc {
	return func(v *event.View, f *frame) (value, error) {
		b, err := test(v, f)
		if err != nil {
			return value{}, err
		}
		return boolean(b), nil
	}
}
