package expr_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"golang.org/x/text/unicode/norm"

	"github.com/callbackd/callbackd/core/event"
)

// reference evaluates expressions the plain and slow way: it walks the tree that
// HCL parsed, with cty values and the operations and functions of HCL itself, and
// applies the null rules of the package comment. It shares no code with the
// package, so that both have to be wrong in the same way to agree on it.
type reference struct {
	event cty.Value
	vars  map[string]cty.Value
	items map[*hclsyntax.AnonSymbolExpr]cty.Value
}

// errUnsupported: the expression uses what the reference does not know.
var errUnsupported = errors.New("not supported by the reference")

var null = cty.NullVal(cty.DynamicPseudoType)

func newReference(ev *event.Event) *reference {
	optional := func(s string) cty.Value {
		if s == "" {
			return null
		}
		return cty.StringVal(strings.ToValidUTF8(s, "\uFFFD"))
	}
	pairs := func(pairs event.Pairs) cty.Value {
		m := make(map[string]cty.Value)
		for _, p := range pairs {
			m[p.Name] = cty.StringVal(strings.ToValidUTF8(p.Value, "\uFFFD"))
		}
		return cty.ObjectVal(m)
	}
	attrs := map[string]cty.Value{
		"id": cty.StringVal(ev.ID.String()), "source": optional(ev.Source), "type": optional(ev.Type),
		"subject": optional(ev.Subject), "time": null, "remote_addr": optional(ev.RemoteAddr),
		"content_type": optional(ev.ContentType), "headers": pairs(ev.Headers), "query": pairs(ev.Query),
		"body": null, "data": null,
	}
	if !ev.Time.IsZero() {
		attrs["time"] = cty.StringVal(ev.Time.UTC().Format(time.RFC3339Nano))
	}
	if utf8.Valid(ev.Body) {
		attrs["body"] = cty.StringVal(string(ev.Body))
		if json.Valid(ev.Body) {
			dec := json.NewDecoder(bytes.NewReader(ev.Body))
			dec.UseNumber()
			attrs["data"] = decode(dec)
		}
	}
	return &reference{
		event: cty.ObjectVal(attrs), vars: map[string]cty.Value{}, items: map[*hclsyntax.AnonSymbolExpr]cty.Value{},
	}
}

func decode(dec *json.Decoder) cty.Value {
	tok, err := dec.Token()
	if err != nil {
		panic(err)
	}
	switch tok := tok.(type) {
	case bool:
		return cty.BoolVal(tok)
	case json.Number:
		return normal(cty.MustParseNumberVal(tok.String()))
	case string:
		return cty.StringVal(tok)
	case json.Delim:
		if tok == '[' {
			elems := []cty.Value{}
			for dec.More() {
				elems = append(elems, decode(dec))
			}
			_, _ = dec.Token()
			return cty.TupleVal(elems)
		}
		members := map[string]cty.Value{}
		for dec.More() {
			name := decode(dec).AsString()
			members[name] = decode(dec)
		}
		_, _ = dec.Token()
		return cty.ObjectVal(members)
	}
	return null
}

// normal gives a value the one form that its kind has: tuples, objects, nulls
// without a type, numbers with 512 bits.
func normal(v cty.Value) cty.Value {
	ty := v.Type()
	switch {
	case v.IsNull():
		return null
	case ty == cty.Number:
		f := v.AsBigFloat()
		if f.Sign() == 0 {
			f = new(big.Float)
		}
		return cty.NumberVal(new(big.Float).SetPrec(512).Set(f))
	case ty.IsPrimitiveType():
		return v
	case ty.IsObjectType(), ty.IsMapType():
		members := map[string]cty.Value{}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			members[k.AsString()] = normal(e)
		}
		return cty.ObjectVal(members)
	}
	elems := []cty.Value{}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		elems = append(elems, normal(e))
	}
	return cty.TupleVal(elems)
}

func (r *reference) eval(e hclsyntax.Expression) (cty.Value, error) {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return normal(e.Val), nil
	case *hclsyntax.ParenthesesExpr:
		return r.eval(e.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return r.eval(e.Wrapped)
	case *hclsyntax.ObjectConsKeyExpr:
		if !e.ForceNonLiteral {
			if name := hcl.ExprAsKeyword(e.Wrapped); name != "" {
				return cty.StringVal(name), nil
			}
		}
		return r.eval(e.Wrapped)
	case *hclsyntax.ScopeTraversalExpr:
		root, ok := r.vars[e.Traversal.RootName()]
		if !ok {
			root = r.event
		}
		return r.walk(root, e.Traversal[1:])
	case *hclsyntax.RelativeTraversalExpr:
		v, err := r.eval(e.Source)
		if err != nil {
			return null, err
		}
		return r.walk(v, e.Traversal)
	case *hclsyntax.IndexExpr:
		return r.index(e)
	case *hclsyntax.AnonSymbolExpr:
		return r.items[e], nil
	case *hclsyntax.SplatExpr:
		return r.splat(e)
	case *hclsyntax.BinaryOpExpr:
		return r.binary(e)
	case *hclsyntax.UnaryOpExpr:
		return r.unary(e)
	case *hclsyntax.ConditionalExpr:
		cond, err := r.truth(e.Condition)
		if err != nil {
			return null, err
		}
		if cond.True() {
			return r.eval(e.TrueResult)
		}
		return r.eval(e.FalseResult)
	case *hclsyntax.TupleConsExpr:
		vals, err := r.all(e.Exprs)
		return cty.TupleVal(vals), err
	case *hclsyntax.ObjectConsExpr:
		return r.object(e)
	case *hclsyntax.ForExpr:
		return r.forExpr(e)
	case *hclsyntax.TemplateExpr:
		vals, err := r.all(e.Parts)
		if err != nil {
			return null, err
		}
		return join(vals)
	case *hclsyntax.TemplateJoinExpr:
		v, err := r.eval(e.Tuple)
		if err != nil {
			return null, err
		}
		return join(v.AsValueSlice())
	case *hclsyntax.FunctionCallExpr:
		return r.call(e)
	}
	return null, fmt.Errorf("%w: %T", errUnsupported, e)
}

func (r *reference) all(exprs []hclsyntax.Expression) ([]cty.Value, error) {
	vals := make([]cty.Value, len(exprs))
	for i, e := range exprs {
		var err error
		if vals[i], err = r.eval(e); err != nil {
			return nil, err
		}
	}
	return vals, nil
}

func join(vals []cty.Value) (cty.Value, error) {
	var b strings.Builder
	for _, v := range vals {
		if v.IsNull() {
			continue
		}
		s, err := convert.Convert(v, cty.String)
		if err != nil {
			return null, err
		}
		b.WriteString(s.AsString())
	}
	return cty.StringVal(b.String()), nil
}

// walk follows a path; one to nowhere is null.
func (r *reference) walk(v cty.Value, t hcl.Traversal) (cty.Value, error) {
	for _, step := range t {
		next, diags := step.TraversalStep(v)
		if diags.HasErrors() {
			return null, nil
		}
		v = next
	}
	return v, nil
}

func (r *reference) index(e *hclsyntax.IndexExpr) (cty.Value, error) {
	coll, err := r.eval(e.Collection)
	if err != nil {
		return null, err
	}
	key, err := r.eval(e.Key)
	if err != nil {
		return null, err
	}
	v, diags := hcl.Index(coll, key, nil)
	if diags.HasErrors() {
		return null, nil
	}
	return v, nil
}

func (r *reference) splat(e *hclsyntax.SplatExpr) (cty.Value, error) {
	src, err := r.eval(e.Source)
	if err != nil {
		return null, err
	}
	elems := []cty.Value{src}
	switch {
	case src.IsNull():
		elems = nil
	case src.Type().IsTupleType():
		elems = src.AsValueSlice()
	}
	out := make([]cty.Value, len(elems))
	for i, elem := range elems {
		r.items[e.Item] = elem
		if out[i], err = r.eval(e.Each); err != nil {
			return null, err
		}
	}
	return cty.TupleVal(out), nil
}

// truth evaluates an operand of a logical operator: null is false.
func (r *reference) truth(e hclsyntax.Expression) (cty.Value, error) {
	v, err := r.eval(e)
	if err != nil {
		return cty.UnknownVal(cty.Bool), err
	}
	if v.IsNull() {
		return cty.False, nil
	}
	b, err := convert.Convert(v, cty.Bool)
	if err != nil {
		return cty.UnknownVal(cty.Bool), err
	}
	return b, nil
}

func diagnose(err error) hcl.Diagnostics {
	if err == nil {
		return nil
	}
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: err.Error()}}
}

func (r *reference) binary(e *hclsyntax.BinaryOpExpr) (cty.Value, error) {
	if e.Op.ShortCircuit != nil {
		l, errL := r.truth(e.LHS)
		rhs, errR := r.truth(e.RHS)
		if errors.Is(errL, errUnsupported) || errors.Is(errR, errUnsupported) {
			return null, errUnsupported
		}
		if v, diags := e.Op.ShortCircuit(l, rhs, diagnose(errL), diagnose(errR)); v != cty.NilVal && v.IsKnown() {
			if diags.HasErrors() {
				return null, diags
			}
			return v, nil
		}
		if err := errors.Join(errL, errR); err != nil {
			return null, err
		}
		return e.Op.Impl.Call([]cty.Value{l, rhs})
	}
	vals, err := r.all([]hclsyntax.Expression{e.LHS, e.RHS})
	if err != nil {
		return null, err
	}
	switch e.Op {
	case hclsyntax.OpEqual:
		return cty.BoolVal(same(vals[0], vals[1])), nil
	case hclsyntax.OpNotEqual:
		return cty.BoolVal(!same(vals[0], vals[1])), nil
	}
	return operate(e.Op, vals...)
}

// same compares structure by structure, scalars by HCL's ==.
func same(a, b cty.Value) bool {
	switch {
	case a.IsNull() || b.IsNull():
		return a.IsNull() && b.IsNull()
	case a.Type().IsTupleType() && b.Type().IsTupleType():
		return slices.EqualFunc(a.AsValueSlice(), b.AsValueSlice(), same)
	case a.Type().IsObjectType() && b.Type().IsObjectType():
		x, y := a.AsValueMap(), b.AsValueMap()
		if len(x) != len(y) {
			return false
		}
		for name := range x {
			if other, ok := y[name]; !ok || !same(x[name], other) {
				return false
			}
		}
		return true
	}
	v, err := hclsyntax.OpEqual.Impl.Call([]cty.Value{a, b})
	return err == nil && v.IsKnown() && v.True()
}

func (r *reference) unary(e *hclsyntax.UnaryOpExpr) (cty.Value, error) {
	if e.Op == hclsyntax.OpLogicalNot {
		v, err := r.truth(e.Val)
		if err != nil {
			return null, err
		}
		return v.Not(), nil
	}
	v, err := r.eval(e.Val)
	if err != nil {
		return null, err
	}
	return operate(e.Op, v)
}

// operate runs an operator on numbers.
func operate(op *hclsyntax.Operation, vals ...cty.Value) (cty.Value, error) {
	for _, v := range vals {
		if v.IsNull() {
			if op.Type == cty.Bool {
				return cty.False, nil
			}
			return null, nil
		}
	}
	for i := range vals {
		var err error
		if vals[i], err = convert.Convert(vals[i], cty.Number); err != nil {
			return null, err
		}
		if vals[i] = normal(vals[i]); vals[i].AsBigFloat().IsInf() {
			return null, errors.New("infinite")
		}
	}
	if (op == hclsyntax.OpDivide || op == hclsyntax.OpModulo) && vals[1].AsBigFloat().Sign() == 0 {
		return null, errors.New("division by zero")
	}
	v, err := op.Impl.Call(vals)
	if err != nil {
		return null, err
	}
	return normal(v), nil
}

// key evaluates a key; ok is false where it is null.
func (r *reference) key(e hclsyntax.Expression) (name string, ok bool, err error) {
	k, err := r.eval(e)
	if err != nil || k.IsNull() {
		return "", false, err
	}
	if k, err = convert.Convert(k, cty.String); err != nil {
		return "", false, err
	}
	return k.AsString(), true, nil
}

func (r *reference) object(e *hclsyntax.ObjectConsExpr) (cty.Value, error) {
	members := map[string]cty.Value{}
	for _, item := range e.Items {
		name, ok, err := r.key(item.KeyExpr)
		if err != nil {
			return null, err
		}
		v, err := r.eval(item.ValueExpr)
		if err != nil {
			return null, err
		}
		if ok {
			members[name] = v
		}
	}
	return cty.ObjectVal(members), nil
}

func (r *reference) forExpr(e *hclsyntax.ForExpr) (cty.Value, error) {
	coll, err := r.eval(e.CollExpr)
	if err != nil {
		return null, err
	}
	outer := r.vars
	defer func() { r.vars = outer }()
	list, groups := []cty.Value{}, map[string][]cty.Value{}
	if !coll.IsNull() {
		if !coll.CanIterateElements() {
			return null, errors.New("not a collection")
		}
		for it := coll.ElementIterator(); it.Next(); {
			k, v := it.Element()
			r.vars = map[string]cty.Value{}
			for name, val := range outer {
				r.vars[name] = val
			}
			r.vars[e.ValVar] = v
			if e.KeyVar != "" {
				r.vars[e.KeyVar] = normal(k)
			}
			if e.CondExpr != nil {
				if ok, err := r.truth(e.CondExpr); err != nil {
					return null, err
				} else if ok.False() {
					continue
				}
			}
			if e.KeyExpr != nil {
				name, ok, err := r.key(e.KeyExpr)
				if err != nil {
					return null, err
				} else if !ok {
					continue
				}
				val, err := r.eval(e.ValExpr)
				if err != nil {
					return null, err
				}
				if groups[name] = append(groups[name], val); len(groups[name]) > 1 && !e.Group {
					return null, errors.New("duplicate key")
				}
				continue
			}
			val, err := r.eval(e.ValExpr)
			if err != nil {
				return null, err
			}
			list = append(list, val)
		}
	}
	if e.KeyExpr == nil {
		return cty.TupleVal(list), nil
	}
	members := map[string]cty.Value{}
	for name, group := range groups {
		members[name] = cty.TupleVal(group)
		if !e.Group {
			members[name] = group[0]
		}
	}
	return cty.ObjectVal(members), nil
}

// referenceFunctions are the functions whose meaning is that of cty's library.
var referenceFunctions = map[string]function.Function{
	"upper": stdlib.UpperFunc, "lower": stdlib.LowerFunc, "title": stdlib.TitleFunc, "trim": stdlib.TrimFunc,
	"trimspace": stdlib.TrimSpaceFunc, "trimprefix": stdlib.TrimPrefixFunc, "trimsuffix": stdlib.TrimSuffixFunc,
	"chomp": stdlib.ChompFunc, "replace": stdlib.ReplaceFunc, "split": stdlib.SplitFunc, "join": stdlib.JoinFunc,
	"substr": stdlib.SubstrFunc, "format": stdlib.FormatFunc, "regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc,
	"regexreplace": stdlib.RegexReplaceFunc, "keys": stdlib.KeysFunc, "values": stdlib.ValuesFunc,
	"concat": stdlib.ConcatFunc, "merge": stdlib.MergeFunc, "flatten": stdlib.FlattenFunc, "reverse": stdlib.ReverseListFunc,
	"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "floor": stdlib.FloorFunc, "min": stdlib.MinFunc, "max": stdlib.MaxFunc,
	"jsonencode": stdlib.JSONEncodeFunc,
}

func (r *reference) call(e *hclsyntax.FunctionCallExpr) (cty.Value, error) {
	switch {
	case e.ExpandFinal || len(e.Args) == 0:
		return null, errUnsupported
	case e.Name == "try":
		var v cty.Value
		var err error
		for _, arg := range e.Args {
			if v, err = r.eval(arg); err == nil || errors.Is(err, errUnsupported) {
				break
			}
		}
		return v, err
	case e.Name == "can":
		_, err := r.eval(e.Args[0])
		if errors.Is(err, errUnsupported) {
			return null, err
		}
		return cty.BoolVal(err == nil), nil
	case e.Name == "coalesce":
		for _, arg := range e.Args {
			if v, err := r.eval(arg); err != nil || !v.IsNull() {
				return v, err
			}
		}
		return null, nil
	}
	vals, err := r.all(e.Args)
	if err != nil {
		return null, err
	}
	fn, ok := referenceFunctions[e.Name]
	if e.Name == "length" {
		ok, fn = true, stdlib.LengthFunc
		if vals[0].Type().IsPrimitiveType() {
			fn = stdlib.StrlenFunc
			if vals[0].Type() != cty.String {
				return null, errors.New("no length")
			}
		} else if vals[0].Type().IsObjectType() {
			return cty.NumberIntVal(int64(vals[0].LengthInt())), nil
		}
	}
	if !ok {
		return null, fmt.Errorf("%w: %s", errUnsupported, e.Name)
	}
	if e.Name == "jsonencode" {
		// cty normalises the JSON text, and breaks it where a combining character
		// follows an escape.
		text, err := ctyjson.Marshal(vals[0], vals[0].Type())
		if err != nil || !norm.NFC.IsNormal(text) {
			return null, errUnsupported
		}
	}
	v, err := callReference(fn, vals)
	if err != nil && slices.ContainsFunc(vals, hasNull) {
		return null, nil
	}
	return v, err
}

func callReference(fn function.Function, vals []cty.Value) (cty.Value, error) {
	args := make([]cty.Value, len(vals))
	params := fn.Params()
	for i, v := range vals {
		param := fn.VarParam()
		if i < len(params) {
			param = &params[i]
		} else if param == nil {
			return null, errors.New("too many arguments")
		}
		if v.IsNull() && !param.AllowNull {
			return null, nil
		}
		var err error
		if args[i], err = convert.Convert(v, param.Type); err != nil {
			return null, err
		}
	}
	v, err := fn.Call(args)
	if err != nil {
		return null, err
	}
	return normal(v), nil
}

func hasNull(v cty.Value) bool {
	switch {
	case v.IsNull():
		return true
	case v.Type().IsPrimitiveType():
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		if _, e := it.Element(); hasNull(e) {
			return true
		}
	}
	return false
}
