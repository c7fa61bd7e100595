package config

import (
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// secretName matches the names of settings that hold secrets by all appearance.
// It is used only where nobody has said yet whether they do: in a file that
// cannot be parsed, and in a sink's settings before its plugin was asked.
var secretName = regexp.MustCompile(`(?i)token|secret|passw|passphrase|credential|webhook_url|api_?key|private|auth|signing|cookie`)

// hideValue keeps a value from being quoted: everything in rng but brackets,
// commas and calls of env and file.
func (s *sources) hideValue(rng hcl.Range) {
	f := s.file(rng.Filename)
	if f == nil || rng.End.Byte > len(f.src) || rng.Start.Byte >= rng.End.Byte {
		return
	}
	tokens, _ := hclsyntax.LexExpression(f.src[rng.Start.Byte:rng.End.Byte], rng.Filename, rng.Start)
	s.hideTokens(tokens)
}

func (s *sources) hideTokens(tokens hclsyntax.Tokens) {
	// call is how many parentheses are open since env( or file(, plus one. What
	// follows up to a comma is a name.
	call, name := 0, false
	for i, tok := range tokens {
		if call > 0 {
			switch tok.Type {
			case hclsyntax.TokenOParen:
				call++
			case hclsyntax.TokenCParen:
				if call--; call == 1 {
					call = 0
				}
				continue
			case hclsyntax.TokenComma:
				name = false
			}
			if name {
				continue
			}
		}
		switch tok.Type {
		case hclsyntax.TokenIdent:
			function := string(tok.Bytes)
			if slices.Contains(functionNames(), function) && i+1 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenOParen {
				call, name = 1, true
				continue
			}
		case hclsyntax.TokenOBrack, hclsyntax.TokenCBrack, hclsyntax.TokenOParen, hclsyntax.TokenCParen,
			hclsyntax.TokenOBrace, hclsyntax.TokenCBrace, hclsyntax.TokenComma, hclsyntax.TokenNewline,
			hclsyntax.TokenOQuote, hclsyntax.TokenCQuote, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenEOF:
			continue
		}
		s.hide(tok.Range)
	}
}

// hideSettings hides what is in the config blocks of a sink.
func (s *sources) hideSettings(sink *hclsyntax.Block) {
	for _, b := range sink.Body.Blocks {
		if b.Type == "config" {
			s.hideBody(b.Body)
		}
	}
}

// hideUnparsed keeps from being quoted what may be secret in a file of which no
// tree could be made: the values of all settings whose name sounds like it, and
// all values in config blocks.
func (s *sources) hideUnparsed(f *sourceFile) {
	tokens, _ := hclsyntax.LexConfig(f.src, f.name, hcl.InitialPos)
	configDepth, depth := 0, 0 // of braces; configDepth is where a config block began
	for i := 0; i < len(tokens); i++ {
		tok := tokens[i]
		switch tok.Type {
		case hclsyntax.TokenOBrace:
			depth++
			if configDepth == 0 && i > 0 && string(tokens[i-1].Bytes) == "config" {
				configDepth = depth
			}
		case hclsyntax.TokenCBrace:
			if configDepth == depth {
				configDepth = 0
			}
			depth--
		case hclsyntax.TokenIdent:
			if i+1 >= len(tokens) || tokens[i+1].Type != hclsyntax.TokenEqual ||
				configDepth == 0 && !secretName.Match(tok.Bytes) {
				continue
			}
			end := valueEnd(tokens, i+2)
			s.hideTokens(tokens[i+2 : end])
			i = end - 1
		}
	}
	if len(tokens) > 0 { // what the scanner could not read to its end
		s.hide(hcl.Range{Filename: f.name, Start: tokens[len(tokens)-1].Range.End, End: hcl.Pos{Byte: len(f.src)}})
	}
}

// valueEnd returns the index behind a value that begins at from: of the next line
// break outside of brackets, or of a bracket that closes more than was opened.
func valueEnd(tokens hclsyntax.Tokens, from int) int {
	open := 0
	for i := from; i < len(tokens); i++ {
		switch tokens[i].Type {
		case hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOBrace, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateControl, hclsyntax.TokenOHeredoc:
			open++
		case hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCBrace, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCHeredoc:
			if open--; open < 0 {
				return i
			}
		case hclsyntax.TokenNewline:
			if open == 0 {
				return i
			}
		}
	}
	return len(tokens)
}
