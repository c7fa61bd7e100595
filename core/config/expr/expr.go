// Package expr compiles the expressions of the configuration. HCL parses an
// expression once; this package checks it, computes what does not depend on an
// event, and turns the rest into closures over event.View. Of a body only what
// an expression refers to is read, and nothing of it where no expression does.
//
// The meaning is HCL's, with these rules on top, because events differ:
//
//   - An attribute that the event does not have is null. So is a path through
//     null, and a path into something that has no such key or element.
//   - == and != compare null like any value; < <= > >= with null are false.
//   - !null is true; null in &&, ||, ?: and the if of a for counts as false.
//   - Arithmetic with null is null. A for over null has no elements, and an
//     object leaves out a key that is null.
//   - A function that does not take the null it was given, be it inside a list
//     or an object, yields null.
//   - null in a template is empty text, and a match that is null is false.
//   - The operand of && or || that decides ends the evaluation. The result of ?:
//     is that of the branch taken, of whatever type the other one is.
//   - There is one kind of list and one kind of object: what HCL calls a tuple or
//     a set is a list, and what it calls a map is an object.
//
// So a missing attribute never makes an expression fail. What does fail, fails
// with the position in the configuration, and never with text of the event.
// Text is in Unicode's normal form C, whole numbers are exact.
//
// All work is bounded: see the Max constants. The package must not know how the
// configuration is laid out, and reads no file, clock or environment: env and
// file are functions that its caller hands in.
package expr

import (
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/schema"
)

// The bounds of an evaluation. Beyond them it fails with an error that says so.
const (
	// MaxDepth is how deep an expression may be nested.
	MaxDepth = 4000
	// MaxWork is how much one evaluation may handle: the bytes of text and 64 for
	// each value that it reads, produces, or passes to a function.
	MaxWork = 128 << 20
	// MaxText is the length of a text that an evaluation produces, in bytes.
	MaxText = 32 << 20
)

// Scope says which names an expression may use.
type Scope int

// The scopes.
const (
	// ConfigScope: no names at all, only constants and functions.
	ConfigScope Scope = iota
	// EventScope: event, with the attributes id, source, type, subject, time,
	// remote_addr, headers, query, content_type, body and data.
	EventScope
	// RequestScope: headers, query, body and data, for the expressions of a
	// source, which run before there is an event.
	RequestScope
)

// Functions are functions by name that expressions may call besides the ones of
// FunctionNames. They are called while compiling, with constants only. A result
// that is marked makes all that depends on it sensitive, see Program.Sensitive.
type Functions map[string]function.Function

// Program is a compiled expression. It is immutable, and may be used by any
// number of goroutines, each with its own View.
type Program struct {
	root node
	conv converter
	rng  hcl.Range
}

// Compile compiles e. A nil Program comes with diagnostics that have errors.
func Compile(e hcl.Expression, s Scope, fns Functions) (*Program, hcl.Diagnostics) {
	return compile(e, s, fns, Setting{Type: schema.Type{Kind: schema.KindAny}}, wantAnything)
}

// CompileMatch compiles the match of a pipeline. Beyond Compile, it reports an
// expression that can never be true or false.
func CompileMatch(e hcl.Expression, fns Functions) (*Program, hcl.Diagnostics) {
	return compile(e, EventScope, fns, Setting{Type: schema.Type{Kind: schema.KindBool}}, wantBool)
}

// CompileText compiles an expression whose value is text. Beyond Compile, it
// reports an expression that can never be text.
func CompileText(e hcl.Expression, s Scope, fns Functions) (*Program, hcl.Diagnostics) {
	return compile(e, s, fns, Setting{Type: schema.Type{Kind: schema.KindString}}, wantText)
}

// Setting says what a per-event attribute of a sink is.
type Setting struct {
	// Type is what the plugin declared. Program.Value converts to it.
	Type schema.Type
	// Escape is what is replaced, in one pass, in text that comes from the event.
	// Literal text of the configuration, and what raw() is around, stay as they
	// are.
	Escape []schema.Replacement
	// OneOf, when not empty, lists the texts that are allowed.
	OneOf []string
	// Duration, Size and Path read text of a KindDuration (from "30s"), a KindSize
	// (from "10MiB") and a KindPath (made absolute). Nil: the kind cannot be per
	// event.
	Duration func(string) (time.Duration, error)
	Size     func(string) (int64, error)
	Path     func(string) (string, error)
}

// CompileSetting compiles a per-event attribute of a sink, in EventScope.
func CompileSetting(e hcl.Expression, fns Functions, s Setting) (*Program, hcl.Diagnostics) {
	return compile(e, EventScope, fns, s, wantSetting)
}

// Constant returns the value of an expression that does not depend on an event;
// ok is false where it does. Lists are tuples and maps are objects; what came
// from a function with a marked result has those marks, and only that.
func (p *Program) Constant() (v cty.Value, ok bool) {
	if !p.root.constant {
		return cty.DynamicVal, false
	}
	return p.root.cty(), true
}

// IsConstant tells whether the expression is the same for all events.
func (p *Program) IsConstant() bool { return p.root.constant }

// Sensitive tells whether the value depends on a function's marked result.
func (p *Program) Sensitive() bool { return len(p.root.marks) > 0 }

// Range is where the expression is.
func (p *Program) Range() hcl.Range { return p.rng }

// Match evaluates a predicate. Null is false; a value that is neither true nor
// false is an error that names its type. It is a pipeline.Match.
func (p *Program) Match(v *event.View) (bool, error) {
	if p.root.test != nil && !p.root.frame {
		return p.root.test(v, nil)
	}
	x, err := p.eval(v)
	switch {
	case err != nil:
		return false, err
	case x.kind == kindBool:
		return x.num != 0, nil
	case x.kind == kindNull:
		return false, nil
	}
	return false, errorAt(p.rng, "a match is true or false, but this one is %s", x.typeName())
}

// Guard says for which events Match is false, without an error, as far as the
// comparisons in the expression tell.
func (p *Program) Guard() pipeline.Guard { return p.root.guard.of(p.root.frame) }

// Text evaluates to text: numbers and bools are converted as in a template, null
// is ok false, lists and objects are errors. It is a pipeline.Text.
func (p *Program) Text(v *event.View) (text string, ok bool, err error) {
	x, err := p.eval(v)
	if err != nil || x.kind == kindNull {
		return "", false, err
	}
	text, ok = x.text()
	if !ok {
		return "", false, errorAt(p.rng, "text is required, but this is %s", x.typeName())
	}
	return text, true, nil
}

// Value evaluates to a setting, converted to the type of the Setting that it was
// compiled with, else to a KindAny. Null is nil. It is a pipeline.Value.
func (p *Program) Value(v *event.View) (schema.Value, error) {
	x, err := p.eval(v)
	if err != nil || x.kind == kindNull {
		return nil, err
	}
	out, err := p.conv.convert(x)
	if err != nil {
		return nil, errorAt(p.rng, "%w", err)
	}
	return out, nil
}

func (p *Program) eval(v *event.View) (value, error) {
	if p.root.constant {
		return p.root.val, nil
	}
	if !p.root.frame {
		return p.root.eval(v, nil)
	}
	return p.root.eval(v, newFrame(p.root.slots))
}
