package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/plugins/schema"
)

func specs() []*spec {
	return []*spec{
		rootSpec(), listenSpec(), tlsSpec(), adminSpec(), queueSpec(), logSpec(), sourceSpec(), tencentSpec(), httpSpec(), rateSpec(), hmacSpec(),
		dedupeSpec(), sinkSpec(), batchSpec(), retrySpec(), breakerSpec(), deadLetterSpec(), pluginSpec(), pipelineSpec(), transformSpec(),
	}
}

func readDoc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// The reference has every attribute in a table, every block, and every function
// with its description.
func TestReferenceIsComplete(t *testing.T) {
	t.Parallel()
	doc := readDoc(t)
	for _, s := range specs() {
		for _, name := range s.attributes {
			if !strings.Contains(doc, "| `"+name+"` | ") {
				t.Errorf("attribute %s of %s is not in a table", name, s.name)
			}
		}
		for _, name := range slices.Concat(s.blocks, s.repeated) {
			if !regexp.MustCompile("(?m)^(#+ `|`)" + name + "[ `]").MatchString(doc) {
				t.Errorf("block %s of %s is not described", name, s.name)
			}
		}
	}
	for _, f := range expr.FunctionDocs() {
		if row := fmt.Sprintf("| `%s` | %s |", strings.ReplaceAll(f.Usage, "|", `\|`), f.Doc); !strings.Contains(doc, row) {
			t.Errorf("the reference lacks the row\n%s", row)
		}
	}
	for _, name := range functionNames() {
		if !strings.Contains(doc, "| `"+name+"(") {
			t.Errorf("function %s is not described", name)
		}
	}
}

// What a table says about the range of a value is what the decoder says.
func TestReferenceRanges(t *testing.T) {
	t.Parallel()
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (duration, |size, |)([0-9][0-9.a-zA-Z]*) to ([0-9][0-9a-zA-Z]*) \\|").
		FindAllStringSubmatch(readDoc(t), -1)
	if len(rows) < 20 {
		t.Fatalf("only %d ranges found", len(rows))
	}
	around := []struct {
		spec *spec
		text string
	}{
		{rootSpec(), "%s"},
		{listenSpec(), "listen {\n%s\n}"},
		{queueSpec(), "queue {\n%s\n}"},
		{tencentSpec(), "source \"tencent_im\" \"a\" {\n%s\n}"},
		{rateSpec(), "source \"http\" \"a\" {\nrate_limit {\n%s\n}\n}"},
		{sinkSpec(), "sink \"a\" \"b\" {\n%s\n}"},
		{batchSpec(), "sink \"a\" \"b\" {\nbatch {\n%s\n}\n}"},
		{pluginSpec(), "plugin \"a\" {\n%s\n}"},
		{retrySpec(), "sink \"a\" \"b\" {\nretry {\n%s\n}\n}"},
		{breakerSpec(), "sink \"a\" \"b\" {\nbreaker {\n%s\n}\n}"},
		{deadLetterSpec(), "sink \"a\" \"b\" {\ndead_letter {\n%s\n}\n}"},
		{dedupeSpec(), "source \"http\" \"a\" {\ndedupe {\n%s\n}\n}"},
	}
	for _, row := range rows {
		name, kind, least, most := row[1], row[2], row[3], row[4]
		value := map[string]string{"": "-1", "duration, ": `"100000h"`, "size, ": `"8000PiB"`}[kind]
		found := false
		for _, a := range around {
			if !slices.Contains(a.spec.attributes, name) {
				continue
			}
			path := filepath.Join(t.TempDir(), "config.hcl")
			if err := os.WriteFile(path, fmt.Appendf(nil, a.text+"\n", name+" = "+value), 0o600); err != nil {
				t.Fatal(err)
			}
			_, diags := Load(path, Options{SkipFileChecks: true})
			found = found || strings.Contains(diags.Error(), fmt.Sprintf("It may be %s to %s.", least, most))
		}
		if !found {
			t.Errorf("%s: %s to %s is not what the decoder says", name, least, most)
		}
	}
}

// Every example of the README and the pages is formatted, and has nothing wrong
// but what it leaves out.
func TestExamplesOfThePages(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	sinks, err := filepath.Glob("../../docs/sinks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, sinks...), "../../README.md")
	rest := map[string]string{
		"source.chat": "source \"tencent_im\" \"chat\" {\n  path = \"/c\"\n  sdk_app_ids = [1]\n}\n",
		"sink.audit":  "sink \"file\" \"audit\" {\n}\n",
	}
	count := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```hcl\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			count++
			src := m[1]
			if out, diags := Format("x.hcl", []byte(src)); diags.HasErrors() || string(out) != src {
				t.Errorf("%s: not formatted: %v\n%s\nshould be\n%s", page, diags, src, out)
			}
			for ref, block := range rest {
				kind, name, _ := strings.Cut(ref, ".")
				if strings.Contains(src, ref) && !regexp.MustCompile(kind+` "\w+" "`+name+`"`).MatchString(src) {
					src += block
				}
			}
			path := filepath.Join(t.TempDir(), "config.hcl")
			if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
				t.Fatal(err)
			}
			_, diags := Load(path, Options{SkipFileChecks: true, LookupEnv: func(string) (string, bool) { return "value", true }})
			if diags.HasErrors() {
				t.Errorf("%s: %v\nin\n%s", page, diags, src)
			}
		}
	}
	if count < 9 {
		t.Errorf("only %d examples were found", count)
	}
}

// The configuration at the root runs as it is, and so does every part of it that
// is shown as a comment.
func TestRootConfig(t *testing.T) {
	t.Parallel()
	const root = "../../config.hcl"
	env := map[string]string{
		"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/X", "CRM_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "CI_SECRET": "ci",
		"CHAT_CALLBACK_TOKEN": "token",
	}
	check := func(name, src string, sources, sinks, pipelines int) *Config {
		t.Helper()
		path := filepath.Join(t.TempDir(), "config.hcl")
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := Load(path, Options{SkipFileChecks: true, LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
		if len(diags) > 0 {
			t.Fatalf("%s: %v", name, diags)
		}
		if len(cfg.Sources) != sources || len(cfg.Sinks) != sinks || len(cfg.Pipelines) != pipelines {
			t.Errorf("%s: %d sources, %d sinks, %d pipelines", name, len(cfg.Sources), len(cfg.Sinks), len(cfg.Pipelines))
		}
		if out, diags := Format(path, []byte(src)); diags.HasErrors() || string(out) != src {
			t.Errorf("%s is not formatted: %v", name, diags)
		}
		return cfg
	}
	content, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	cfg := check("as it is", string(content), 1, 1, 1)
	s := cfg.Sources[0]
	if s.Name != "chat" || s.Path != "/callbacks/chat" || !slices.Equal(s.Tencent.SDKAppIDs, []uint64{1400000000}) || cfg.Sinks[0].Name != "audit" {
		t.Errorf("as it is: %+v %+v", s, cfg.Sinks[0])
	}
	settings, diags := cfg.DecodeSink(&cfg.Sinks[0], schema.Schema{Attributes: []schema.Attribute{
		{Name: "path", Type: schema.Type{Kind: schema.KindPath}, Required: true},
	}})
	if diags.HasErrors() || settings.Values["path"] != filepath.Join(cfg.Dir, "data", "audit.jsonl") {
		t.Errorf("audit: %v %v", settings, diags)
	}

	parts := strings.Split(string(content), "# --- ")
	all := parts[0]
	for _, part := range parts[1:] {
		title, body, _ := strings.Cut(part, "\n")
		body = regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(body, "")
		all += "# " + title + "\n" + body
	}
	all = strings.ReplaceAll(all, "  # tokens    =", "  tokens      =")
	check("all of it", all, 2, 3, 4)
}
