package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/pipeline"
)

func pipelineSpec() *spec {
	return &spec{
		name: "pipeline", labels: []string{"NAME"},
		attributes: []string{"from", "match", "to"},
		blocks:     []string{"transform"},
	}
}

func transformSpec() *spec {
	return &spec{name: "transform", attributes: []string{"body", "content_type", "headers"}}
}

// references are the sources and sinks that pipelines refer to.
type references struct {
	// names has the references as they are written: "sink.audit".
	names map[string]bool
	// unclear has the kinds ("sink") of which a reference was wrong, so that
	// nobody can say what is not used.
	unclear map[string]bool
}

func (d *decoder) decodePipeline(b *hclsyntax.Block, used references) pipeline.Pipeline {
	s := d.section(pipelineSpec(), b.Body, blockName(b), b.DefRange())
	out := pipeline.Pipeline{Name: b.Labels[0]}
	if s.require("from", "[source.NAME]") {
		out.From = s.references("from", d.sources, used)
	} else {
		used.unclear["source"] = true
	}
	if attr := s.attribute("match"); attr != nil {
		program, diags := expr.CompileMatch(attr.Expr, d.functions)
		d.problems.add(diags...)
		if program != nil {
			out.Match, out.Guard = program.Match, program.Guard()
		}
	}
	if s.require("to", "[sink.NAME]") {
		out.Sinks = s.references("to", d.sinks, used)
	} else {
		used.unclear["sink"] = true
	}
	if t := s.block(transformSpec()); t != nil {
		out.Transform = t.transform()
	}
	return out
}

// references reads a list of references to one kind of block.
func (s *section) references(name string, n names, used references) []string {
	attr := s.attribute(name)
	before := len(s.d.problems.list)
	defer func() {
		if len(s.d.problems.list) > before {
			used.unclear[n.kind] = true
		}
	}()
	example := fmt.Sprintf("Write a list of references: %s = [%s.NAME].", name, n.kind)
	tuple, ok := attr.Expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		if ref, ok := reference(attr.Expr); ok {
			example = fmt.Sprintf("Write a list: %s = [%s].", name, ref)
		}
		s.wrong(name, attr.Expr.Range(), example)
		return nil
	}
	if len(tuple.Exprs) == 0 {
		s.wrong(name, attr.Expr.Range(), fmt.Sprintf("At least one %s is required.", n.kind))
		return nil
	}
	var out []string
	for _, e := range tuple.Exprs {
		ref, ok := reference(e)
		kind, target, dotted := strings.Cut(ref, ".")
		switch {
		case ok && !dotted:
			hint := fmt.Sprintf("A reference is written %s.NAME.", n.kind)
			if best := nearest(ref, n.all()); best != "" {
				hint = fmt.Sprintf("Did you mean %s.%s?", n.kind, best)
			}
			s.wrong(name, e.Range(), hint)
		case !ok || strings.Contains(target, "."):
			s.wrong(name, e.Range(), fmt.Sprintf("A reference to a %s is required, written %s.NAME, without quotes.", n.kind, n.kind))
		case kind != n.kind:
			s.wrong(name, e.Range(), fmt.Sprintf("This is a reference to a %s, but a %s is required: %s.NAME.", kind, n.kind, n.kind))
		case n.at[target].Filename == "":
			s.d.problems.errorAt(e.Range(), fmt.Sprintf("Unknown %s %q", n.kind, target), choose(target, n.all(), n.kind+"s"))
		case slices.Contains(out, target):
			s.wrong(name, e.Range(), "It is in the list twice.")
		default:
			out = append(out, target)
			used.names[ref] = true
		}
	}
	return out
}

// reference reads names that are joined by dots.
func reference(e hclsyntax.Expression) (string, bool) {
	traversal, diags := hcl.AbsTraversalForExpr(e)
	if diags.HasErrors() {
		return "", false
	}
	var b strings.Builder
	for i, step := range traversal {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(step.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + step.Name)
		default:
			return "", false
		}
		if i > 4 {
			return "", false
		}
	}
	return b.String(), true
}

func (s *section) transform() *pipeline.Transform {
	t := &pipeline.Transform{Body: s.eventText("body"), ContentType: s.eventText("content_type")}
	attr := s.attribute("headers")
	if attr == nil {
		return t
	}
	object, ok := attr.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		s.wrong("headers", attr.Expr.Range(), `It is written { "X-Name" = … }.`)
		return t
	}
	t.Headers = make(map[string]pipeline.Text, len(object.Items))
	seen := map[string]bool{}
	for _, item := range object.Items {
		name, ok := literalKey(item.KeyExpr)
		lower := strings.ToLower(name)
		switch {
		case !ok:
			s.wrong("headers", item.KeyExpr.Range(), "The name of a header has to be written out.")
		case !headerPattern.MatchString(name):
			s.wrong("headers", item.KeyExpr.Range(), "This is no name of an HTTP header.")
		case lower == "content-type":
			s.wrong("headers", item.KeyExpr.Range(), "The content type has an attribute of its own, content_type.")
		case seen[lower]:
			s.wrong("headers", item.KeyExpr.Range(), "The header is there twice; capital letters make no difference.")
		default:
			seen[lower] = true
			if text := s.compileText(item.ValueExpr); text != nil {
				t.Headers[name] = text
			}
		}
	}
	return t
}

func (s *section) eventText(name string) pipeline.Text {
	attr := s.attribute(name)
	if attr == nil {
		return nil
	}
	return s.compileText(attr.Expr)
}

func (s *section) compileText(e hclsyntax.Expression) pipeline.Text {
	program, diags := expr.CompileText(e, expr.EventScope, s.d.functions)
	s.d.problems.add(diags...)
	if program == nil {
		return nil
	}
	return program.Text
}

// checkUsed warns about what is configured but never takes part.
func (d *decoder) checkUsed(used references) {
	for name, rng := range d.sinks.at {
		if !used.names["sink."+name] && !used.unclear["sink"] {
			d.problems.warnAt(rng, fmt.Sprintf("Sink %q is not used", name), "No pipeline sends events to it.")
		}
	}
	for name, rng := range d.sources.at {
		if !used.names["source."+name] && !used.unclear["source"] {
			d.problems.warnAt(rng, fmt.Sprintf("Source %q is not used", name),
				"No pipeline takes its events: they would be accepted, counted as unrouted, and gone.")
		}
	}
}
