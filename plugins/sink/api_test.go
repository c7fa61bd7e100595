package sink

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "add what is new to testdata/api.txt")

// What sink authors use stays as it is: testdata/api.txt lists it, a line for
// each function, type, field, method and constant. Lines are only ever added,
// with -update; one that is not true any more breaks somebody's sink.
func TestAPI(t *testing.T) {
	const golden = "testdata/api.txt"
	text, err := os.ReadFile(golden)
	if err != nil && !*update {
		t.Fatal(err)
	}
	promised := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	is := api(t, ".")
	if len(is) < 40 {
		t.Fatalf("only %d lines were found", len(is))
	}
	for _, line := range promised {
		if !slices.Contains(is, line) {
			t.Errorf("this was promised to sink authors and is gone, or is another now:\n  %s", line)
		}
	}
	var added []string
	for _, line := range is {
		if !slices.Contains(promised, line) {
			added = append(added, line)
		}
	}
	if len(added) == 0 || t.Failed() {
		return
	}
	if !*update {
		t.Errorf("this is new and will have to stay; if that is meant: go test ./plugins/sink -run TestAPI -update\n  %s", strings.Join(added, "\n  "))
		return
	}
	promised = append(promised, added...)
	slices.Sort(promised)
	if err := os.WriteFile(golden, []byte(strings.Join(promised, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// api lists what a package exports, without the names of parameters.
func api(t *testing.T, dir string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if receiver := receiverName(decl); decl.Name.IsExported() && (receiver == "" || ast.IsExported(strings.TrimPrefix(receiver, "*"))) {
					if receiver != "" {
						receiver = "(" + receiver + ") "
					}
					lines = append(lines, "func "+receiver+decl.Name.Name+signature(t, decl.Type))
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					lines = append(lines, specLines(t, decl.Tok, spec)...)
				}
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func receiverName(decl *ast.FuncDecl) string {
	if decl.Recv == nil {
		return ""
	}
	star := ""
	typ := decl.Recv.List[0].Type
	if s, ok := typ.(*ast.StarExpr); ok {
		star, typ = "*", s.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	return star + typ.(*ast.Ident).Name
}

// signature is the text of a function's type with its type parameters.
func signature(t *testing.T, typ *ast.FuncType) string {
	t.Helper()
	for _, list := range []*ast.FieldList{typ.Params, typ.Results} {
		if list == nil {
			continue
		}
		var unnamed []*ast.Field
		for _, field := range list.List {
			for range max(1, len(field.Names)) {
				unnamed = append(unnamed, &ast.Field{Type: nameless(t, field.Type)})
			}
		}
		list.List = unnamed
	}
	return strings.TrimPrefix(source(t, typ), "func")
}

func nameless(t *testing.T, typ ast.Expr) ast.Expr {
	if function, ok := typ.(*ast.FuncType); ok {
		signature(t, function)
	}
	return typ
}

func specLines(t *testing.T, tok token.Token, spec ast.Spec) (lines []string) {
	t.Helper()
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for i, name := range spec.Names {
			if name.IsExported() && i < len(spec.Values) {
				lines = append(lines, tok.String()+" "+name.Name+" = "+source(t, spec.Values[i]))
			}
		}
	case *ast.TypeSpec:
		if !spec.Name.IsExported() {
			return nil
		}
		head := "type " + spec.Name.Name
		if spec.TypeParams != nil {
			var params []string
			for _, field := range spec.TypeParams.List {
				params = append(params, source(t, field.Type))
			}
			head += "[" + strings.Join(params, ", ") + "]"
		}
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			lines = append(lines, head+" struct")
			for _, field := range typ.Fields.List {
				for _, name := range field.Names {
					if name.IsExported() {
						lines = append(lines, head+" struct: "+name.Name+" "+source(t, field.Type))
					}
				}
			}
		case *ast.InterfaceType:
			// As a whole: a method more breaks who implements it.
			var methods []string
			for _, method := range typ.Methods.List {
				if function, ok := method.Type.(*ast.FuncType); ok {
					methods = append(methods, method.Names[0].Name+signature(t, function))
				}
			}
			lines = append(lines, head+" interface { "+strings.Join(methods, "; ")+" }")
		default:
			lines = append(lines, head+" "+source(t, typ))
		}
	}
	return lines
}

func source(t *testing.T, node ast.Node) string {
	t.Helper()
	var b bytes.Buffer
	if err := printer.Fprint(&b, token.NewFileSet(), node); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
