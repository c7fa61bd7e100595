package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

func sinkSpec() *spec {
	return &spec{
		name: "sink", labels: []string{"TYPE", "NAME"},
		secrets:    true,
		elsewhere:  " The settings of the sink itself go into its block config { … }.",
		attributes: []string{"timeout", "max_in_flight", "order_by", "max_backlog", "when_full"},
		blocks:     []string{"config", "batch", "retry", "rate_limit", "breaker", "dead_letter"},
	}
}

func batchSpec() *spec {
	return &spec{name: "batch", attributes: []string{"max_events", "max_bytes", "linger"}}
}

func pluginSpec() *spec {
	return &spec{
		name: "plugin", labels: []string{"TYPE"},
		secrets: true,
		attributes: []string{
			"command", "sha256", "env", "tls", "user", "group", "no_new_privs", "max_memory", "max_open_files",
		},
	}
}

const (
	// pluginPrefix begins the names of plugin programs.
	pluginPrefix = "callbackd-sink-"
	maxTimeout   = time.Hour

	// What a plugin may use where the configuration says nothing: more than any
	// sink needs, less than what brings a machine down.
	defaultPluginMemory    = 2 << 30
	defaultPluginOpenFiles = 65_536
)

func (d *decoder) decodeSink(b *hclsyntax.Block, plugins map[string]*pluginBlock, pluginDir string) Sink {
	s := d.section(sinkSpec(), b.Body, blockName(b), b.DefRange())
	out := Sink{
		Type: b.Labels[0], Name: b.Labels[1],
		Timeout: 30 * time.Second,
		Plugin:  defaultPlugin(),
		block:   b,
	}
	s.duration("timeout", &out.Timeout, 100*time.Millisecond, maxTimeout)
	s.integer("max_in_flight", &out.MaxInFlight, 1, 100_000)
	if batch := s.block(batchSpec()); batch != nil {
		batch.integer("max_events", &out.Batch.MaxEvents, 1, 10_000)
		batch.size("max_bytes", &out.Batch.MaxBytes, 1, maxMaxBody)
		batch.duration("linger", &out.Batch.Linger, 0, time.Minute)
	}
	s.guarantees(&out)
	for _, c := range b.Body.Blocks {
		if c.Type == "config" {
			out.config = c
			d.labels(c, &spec{name: "config"})
			d.guessSecrets(c.Body)
			break
		}
	}
	if !namePattern.MatchString(out.Type) {
		d.problems.errorAt(b.LabelRanges[0], "Wrong sink type", "It is the name of a plugin. "+namesAre)
		return out
	}
	if p := plugins[out.Type]; p != nil {
		p.used = true
		out.Plugin = p.plugin
		if p.own {
			return out
		}
	}
	out.Plugin.Command = []string{filepath.Join(pluginDir, pluginPrefix+out.Type)}
	d.checkProgram(out.Type, pluginDir, b.LabelRanges[0])
	return out
}

// guessSecrets takes the literals in a config block as secret whose names sound
// like it. Which ones are, the plugin's schema says, but that comes later, and
// the plugin's first words have to be masked already.
func (d *decoder) guessSecrets(body *hclsyntax.Body) {
	for name, attr := range body.Attributes {
		if secretName.MatchString(name) {
			for _, text := range literals(attr.Expr) {
				d.files.addSecret(text)
			}
		}
	}
	for _, b := range body.Blocks {
		d.guessSecrets(b.Body)
	}
}

// literals returns the texts that an expression consists of, if it is a text or
// a list or an object of texts.
func literals(e hclsyntax.Expression) []string {
	var out []string
	switch e := e.(type) {
	case *hclsyntax.TemplateExpr:
		if v, diags := e.Value(nil); e.IsStringLiteral() && !diags.HasErrors() {
			out = append(out, v.AsString())
		}
	case *hclsyntax.TupleConsExpr:
		for _, x := range e.Exprs {
			out = append(out, literals(x)...)
		}
	case *hclsyntax.ObjectConsExpr:
		for _, item := range e.Items {
			out = append(out, literals(item.ValueExpr)...)
		}
	}
	return out
}

// checkProgram reports a plugin program that is not there, with the one that is
// probably meant.
func (d *decoder) checkProgram(sinkType, dir string, rng hcl.Range) {
	if d.options.SkipFileChecks {
		return
	}
	if dir == "" {
		d.problems.errorAt(rng, fmt.Sprintf("No plugin for sink type %q", sinkType), "Set plugin_dir to the folder of the plugins.")
		return
	}
	program := filepath.Join(dir, pluginPrefix+sinkType)
	why := runnable(program)
	if why == "" {
		return
	}
	detail := fmt.Sprintf("The program %s %s.", program, why)
	entries, err := os.ReadDir(dir)
	if err != nil {
		d.problems.errorAt(rng, fmt.Sprintf("No plugin for sink type %q", sinkType),
			fmt.Sprintf("The folder of the plugins, %s, cannot be read: %s.", dir, reason(err)))
		return
	}
	var types []string
	for _, entry := range entries {
		if name, ok := strings.CutPrefix(entry.Name(), pluginPrefix); ok && name != sinkType && runnable(filepath.Join(dir, entry.Name())) == "" {
			types = append(types, name)
		}
	}
	d.problems.errorAt(rng, fmt.Sprintf("No plugin for sink type %q", sinkType),
		detail+" "+choose(sinkType, types, "sink types")+fmt.Sprintf("\nAnother program is named by plugin %q { command = … }.", sinkType))
}

// runnable tells why a program cannot be run, or "".
func runnable(program string) string {
	info, err := os.Stat(program)
	switch {
	case os.IsNotExist(err):
		return "does not exist"
	case err != nil:
		return "cannot be run: " + reason(err)
	case !info.Mode().IsRegular():
		return "is not a file"
	case info.Mode().Perm()&0o111 == 0:
		return "is not executable"
	}
	return ""
}

// pluginBlock is a decoded plugin block.
type pluginBlock struct {
	plugin Plugin
	own    bool // it names a program of its own
	rng    hcl.Range
	used   bool
}

func (d *decoder) decodePlugins(blocks hclsyntax.Blocks) map[string]*pluginBlock {
	out := map[string]*pluginBlock{}
	for _, b := range blocks {
		if b.Type != "plugin" || !d.labels(b, pluginSpec()) || !d.claim(d.plugins, b.Labels[0], b.LabelRanges[0]) {
			continue
		}
		s := d.section(pluginSpec(), b.Body, blockName(b), b.DefRange())
		p := &pluginBlock{rng: b.LabelRanges[0], plugin: defaultPlugin()}
		p.plugin.Command = s.command("command")
		p.own = s.has("command")
		s.sha256("sha256", &p.plugin.SHA256)
		p.plugin.Env = s.environment("env")
		tls := true
		s.boolean("tls", &tls)
		p.plugin.NoTLS = !tls
		s.account("user", &p.plugin.User)
		s.account("group", &p.plugin.Group)
		s.boolean("no_new_privs", &p.plugin.NoNewPrivs)
		s.size("max_memory", &p.plugin.MaxMemory, 64<<20, 1<<40)
		s.integer("max_open_files", &p.plugin.MaxOpenFiles, 64, 1<<20)
		out[b.Labels[0]] = p
	}
	return out
}

func defaultPlugin() Plugin {
	return Plugin{MaxMemory: defaultPluginMemory, MaxOpenFiles: defaultPluginOpenFiles}
}

var accountPattern = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\$?)$`)

// account is the name or the number of a user or a group.
func (s *section) account(name string, dst *string) {
	text := ""
	if !s.notEmpty(name, &text) {
		return
	}
	if !accountPattern.MatchString(text) {
		s.wrong(name, s.attribute(name).Expr.Range(), "It is the name or the number of an account of this machine.")
		return
	}
	*dst = text
}

// command is a program, or a list of a program and its arguments.
func (s *section) command(name string) []string {
	v, e, ok := s.constant(name)
	if !ok {
		return nil
	}
	elements := []element{{v, e.Range()}}
	if plain, _ := v.Unmark(); isList(plain) {
		if elements, ok = s.list(name, "texts"); !ok {
			return nil
		}
	}
	var out []string
	for _, el := range elements {
		text, ok := s.asText(name, el.value, el.rng)
		if !ok {
			return nil
		}
		if strings.ContainsRune(text, 0) {
			s.wrong(name, el.rng, "It must not hold a NUL character.")
			return nil
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		s.wrong(name, e.Range(), "The program is missing.")
		return nil
	}
	program, err := s.d.resolve(out[0])
	if err != nil {
		s.wrong(name, elements[0].rng, sentence(err.Error()))
		return nil
	}
	out[0] = program
	if !s.d.options.SkipFileChecks {
		if why := runnable(program); why != "" {
			s.wrong(name, elements[0].rng, fmt.Sprintf("The program %s %s. Relative paths are relative to the folder of the configuration.", program, why))
			return nil
		}
	}
	return out
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

func (s *section) sha256(name string, dst *string) {
	text := ""
	if !s.text(name, &text) {
		return
	}
	if !sha256Pattern.MatchString(text) {
		s.wrong(name, s.attribute(name).Expr.Range(), "A SHA-256 has 64 hexadecimal digits, as sha256sum prints them.")
		return
	}
	*dst = strings.ToLower(text)
}

// environment is an object of texts. The values count as secret.
func (s *section) environment(name string) []string {
	if attr := s.attribute(name); attr != nil {
		s.d.files.hideObjectValues(attr.Expr)
	}
	v, e, ok := s.constant(name)
	if !ok {
		return nil
	}
	v, marks := v.Unmark()
	if !isObject(v) {
		s.wrong(name, e.Range(), `It is written { NAME = "value" }.`)
		return nil
	}
	var out []string
	for key, value := range v.AsValueMap() {
		rng := itemRange(e, key)
		if !envPattern.MatchString(key) {
			s.wrong(name, rng, "The name of an environment variable has letters, digits and _.")
			continue
		}
		text, ok := s.asText(name, value.WithMarks(marks), rng)
		if !ok {
			continue
		}
		if strings.ContainsRune(text, 0) {
			s.wrong(name, rng, "It must not hold a NUL character.")
			continue
		}
		s.d.files.addSecret(text)
		out = append(out, key+"="+text)
	}
	slices.Sort(out)
	return out
}

// hideObjectValues hides the values of an object, not its keys.
func (s *sources) hideObjectValues(e hclsyntax.Expression) {
	object, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		s.hideValue(e.Range())
		return
	}
	for _, item := range object.Items {
		s.hideValue(item.ValueExpr.Range())
	}
}

// itemExpr returns the expression of an item of an object, nil if it cannot be
// told.
func itemExpr(e hclsyntax.Expression, key string) hclsyntax.Expression {
	object, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return nil
	}
	var found hclsyntax.Expression
	for _, item := range object.Items {
		if name, ok := literalKey(item.KeyExpr); ok && name == key {
			found = item.ValueExpr // the last one counts
		}
	}
	return found
}

func itemRange(e hclsyntax.Expression, key string) hcl.Range {
	if item := itemExpr(e, key); item != nil {
		return item.Range()
	}
	return e.Range()
}

// literalKey returns the key of an item of an object where it is written out.
func literalKey(e hclsyntax.Expression) (string, bool) {
	if wrapped, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok {
		if name := hcl.ExprAsKeyword(wrapped.Wrapped); name != "" && !wrapped.ForceNonLiteral {
			return name, true
		}
		e = wrapped.Wrapped
	}
	if template, ok := e.(*hclsyntax.TemplateExpr); ok && template.IsStringLiteral() {
		if v, diags := template.Value(nil); !diags.HasErrors() && v.Type() == cty.String {
			return v.AsString(), true
		}
	}
	return "", false
}

func (d *decoder) checkPluginsUsed(plugins map[string]*pluginBlock) {
	for name, p := range plugins {
		if !p.used {
			d.problems.warnAt(p.rng, fmt.Sprintf("Plugin %q is not used", name), fmt.Sprintf("There is no sink %q.", name))
		}
	}
}
