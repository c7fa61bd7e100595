package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	// maxFileBytes bounds one configuration file.
	maxFileBytes = 1 << 20
	// maxDepth bounds how deep brackets, templates and blocks nest.
	maxDepth = 64
	// maxChain bounds what adds up along one path through an expression:
	// operators of a chain, steps of an index, directives of a template, over all
	// brackets that are open at that point.
	maxChain = 1000
	// maxParts bounds the pieces of a template: the lines of a heredoc, and the
	// texts and references in a string. hclsyntax joins them in quadratic time.
	maxParts = 2000
	// maxNumberLen and maxExponent bound a number's text. Writing 1e999999999
	// out in full would take a gigabyte.
	maxNumberLen = 400
	maxExponent  = 400
)

// guard refuses source text that hclsyntax cannot be trusted with: it parses
// and evaluates by recursion, and a Go stack that overflows ends the process,
// whatever recovers. It reads the tokens, as the parser will, and keeps the sum
// of everything that makes the parser, or a walk over its tree, go deeper.
//
// The scanner itself keeps its state in slices and is safe on any input.
func guard(src []byte, filename string) hcl.Diagnostics {
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos)
	g := guardState{frames: []guardFrame{{closer: hclsyntax.TokenEOF, items: true}}}
	for _, tok := range tokens {
		if diag := g.step(tok); diag != nil {
			return hcl.Diagnostics{diag}
		}
	}
	return nil
}

// guardFrame is an open bracket, quote, template or block.
type guardFrame struct {
	closer hclsyntax.TokenType
	// items: a newline ends an item of this frame (a body, an object).
	items bool
	// links counts what adds depth within the present item.
	links int
	// parts counts the pieces of a template.
	parts int
}

type guardState struct {
	frames []guardFrame
	// total is the sum of links over all frames.
	total int
}

func (g *guardState) step(tok hclsyntax.Token) *hcl.Diagnostic {
	top := &g.frames[len(g.frames)-1]
	switch tok.Type {
	case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace, hclsyntax.TokenOQuote,
		hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		// An index (a[b][c]) and the directives of a template (%{ if }) nest in
		// the tree although their brackets do not, so an opener is a link too.
		if diag := g.link(top, tok); diag != nil {
			return diag
		}
		return g.open(tok)
	case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace, hclsyntax.TokenCQuote,
		hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
		g.close(tok.Type)
	case hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit:
		top.parts++
		if top.parts > maxParts {
			return &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Text is too long",
				Detail:   fmt.Sprintf("A text may have at most %d lines or parts. Keep it in a file of its own and use file(\"…\").", maxParts),
				Subject:  tok.Range.Ptr(),
			}
		}
	case hclsyntax.TokenComma:
		g.reset(top)
	case hclsyntax.TokenNewline:
		if top.items {
			g.reset(top)
		}
	case hclsyntax.TokenNumberLit:
		return guardNumber(tok)
	case hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenPercent,
		hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
		hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr,
		hclsyntax.TokenBang, hclsyntax.TokenQuestion:
		return g.link(top, tok)
	}
	return nil
}

func (g *guardState) link(top *guardFrame, tok hclsyntax.Token) *hcl.Diagnostic {
	top.links++
	g.total++
	if g.total <= maxChain {
		return nil
	}
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Expression is too long",
		Detail:   fmt.Sprintf("An expression may hold at most %d operators in a row. Split it up.", maxChain),
		Subject:  tok.Range.Ptr(),
	}
}

func (g *guardState) open(tok hclsyntax.Token) *hcl.Diagnostic {
	if len(g.frames) > maxDepth {
		return &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Nested too deep",
			Detail:   fmt.Sprintf("Brackets, templates and blocks may nest at most %d deep.", maxDepth),
			Subject:  tok.Range.Ptr(),
		}
	}
	frame := guardFrame{}
	switch tok.Type {
	case hclsyntax.TokenOParen:
		frame.closer = hclsyntax.TokenCParen
	case hclsyntax.TokenOBrack:
		frame.closer = hclsyntax.TokenCBrack
	case hclsyntax.TokenOBrace:
		frame.closer, frame.items = hclsyntax.TokenCBrace, true
	case hclsyntax.TokenOQuote:
		frame.closer = hclsyntax.TokenCQuote
	case hclsyntax.TokenOHeredoc:
		frame.closer = hclsyntax.TokenCHeredoc
	default:
		frame.closer = hclsyntax.TokenTemplateSeqEnd
	}
	g.frames = append(g.frames, frame)
	return nil
}

// close ends the innermost frame that closer ends, and with it what was left
// open inside. A closer that ends nothing is the parser's to complain about.
func (g *guardState) close(closer hclsyntax.TokenType) {
	for i := len(g.frames) - 1; i > 0; i-- {
		if g.frames[i].closer != closer {
			continue
		}
		for _, frame := range g.frames[i:] {
			g.total -= frame.links
		}
		g.frames = g.frames[:i]
		return
	}
}

func (g *guardState) reset(top *guardFrame) {
	g.total -= top.links
	top.links = 0
}

func guardNumber(tok hclsyntax.Token) *hcl.Diagnostic {
	exponent, inExponent := 0, false
	for _, c := range tok.Bytes {
		switch {
		case c == 'e' || c == 'E':
			inExponent = true
		case inExponent && c >= '0' && c <= '9' && exponent <= maxExponent:
			exponent = exponent*10 + int(c-'0')
		}
	}
	if len(tok.Bytes) <= maxNumberLen && exponent <= maxExponent {
		return nil
	}
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Number is too large",
		Detail:   fmt.Sprintf("A number may have at most %d digits.", maxNumberLen),
		Subject:  tok.Range.Ptr(),
	}
}
