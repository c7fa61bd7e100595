package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/callbackd/callbackd/core/config/expr"
)

// The blocks of the configuration. docs/configuration.md describes each name in
// here; a test compares.
func rootSpec() *spec {
	return &spec{
		name:       "",
		attributes: []string{"plugin_dir", "data_dir", "shutdown_grace"},
		blocks:     []string{"listen", "admin", "queue", "log"},
		repeated:   []string{"source", "sink", "plugin", "pipeline"},
	}
}

func listenSpec() *spec {
	return &spec{
		name: "listen",
		attributes: []string{
			"address", "trusted_proxies", "max_connections", "read_header_timeout",
			"read_timeout", "write_timeout", "idle_timeout", "max_header_bytes",
		},
		blocks: []string{"tls"},
	}
}

func tlsSpec() *spec {
	return &spec{name: "tls", attributes: []string{"cert_file", "key_file", "client_ca_file"}}
}

func adminSpec() *spec {
	return &spec{name: "admin", attributes: []string{"address", "web_config_file"}}
}

func queueSpec() *spec {
	return &spec{name: "queue", attributes: []string{"dir", "max_bytes", "reserve_bytes"}}
}

func logSpec() *spec {
	return &spec{name: "log", attributes: []string{"level", "format"}}
}

// namePattern is what names of sources, sinks, plugins and pipelines match.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

const namesAre = "A name has 1 to 63 letters, digits, - and _, and begins with a letter or _."

type decoder struct {
	files     *sources
	dir       string
	options   Options
	problems  problems
	functions expr.Functions

	sources, sinks, plugins, pipelines names
	// secret are the attributes about which nothing may be told.
	secret map[*hclsyntax.Attribute]bool
}

// names are the names of one kind, with where they are.
type names struct {
	kind string
	at   map[string]hcl.Range
}

func newDecoder(files *sources, dir string, options Options) *decoder {
	if options.LookupEnv == nil {
		options.LookupEnv = os.LookupEnv
	}
	d := &decoder{
		files: files, dir: dir, options: options, secret: map[*hclsyntax.Attribute]bool{},
		sources:   names{"source", map[string]hcl.Range{}},
		sinks:     names{"sink", map[string]hcl.Range{}},
		plugins:   names{"plugin", map[string]hcl.Range{}},
		pipelines: names{"pipeline", map[string]hcl.Range{}},
	}
	d.functions = configFunctions(files, dir, options.LookupEnv)
	return d
}

// all returns the names, sorted.
func (n names) all() []string {
	out := make([]string, 0, len(n.at))
	for name := range n.at {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// claim checks a name and takes it.
func (d *decoder) claim(n names, name string, rng hcl.Range) bool {
	if !namePattern.MatchString(name) {
		d.problems.errorAt(rng, fmt.Sprintf("Wrong name of a %s", n.kind), namesAre)
		return false
	}
	if other, taken := n.at[name]; taken {
		d.problems.errorAt(rng, fmt.Sprintf("Duplicate %s %q", n.kind, name),
			fmt.Sprintf("There is one of that name at %s. Give one of them another name.", place(other)))
		return false
	}
	n.at[name] = rng
	return true
}

func (d *decoder) decode(bodies []*hclsyntax.Body) *Config {
	root := d.section(rootSpec(), d.merge(bodies), "", hcl.Range{})
	root.what = ""
	cfg := &Config{
		Dir: d.dir, DataDir: filepath.Join(d.dir, "data"), PluginDir: d.options.PluginDir,
		ShutdownGrace: 30 * time.Second,
		Log:           Log{Level: "info", Format: "text"},
		files:         d.files, functions: d.functions,
	}
	root.path("data_dir", &cfg.DataDir)
	root.path("plugin_dir", &cfg.PluginDir)
	root.duration("shutdown_grace", &cfg.ShutdownGrace, 100*time.Millisecond, time.Hour)
	cfg.Listen = d.decodeListen(root)
	cfg.Admin = d.decodeAdmin(root, cfg.Listen)
	cfg.Queue = d.decodeQueue(root, cfg.DataDir)
	if s := root.block(logSpec()); s != nil {
		s.oneOf("level", &cfg.Log.Level, "debug", "info", "warn", "error")
		s.oneOf("format", &cfg.Log.Format, "text", "json")
	}

	for _, b := range root.body.Blocks {
		if b.Type == "source" && d.labels(b, sourceSpec()) && d.claim(d.sources, b.Labels[1], b.LabelRanges[1]) {
			if s, ok := d.decodeSource(b); ok {
				cfg.Sources = append(cfg.Sources, s)
			}
		}
	}
	d.checkPaths(root.body.Blocks, cfg.Sources)
	plugins := d.decodePlugins(root.body.Blocks)
	for _, b := range root.body.Blocks {
		if b.Type == "sink" && d.labels(b, sinkSpec()) && d.claim(d.sinks, b.Labels[1], b.LabelRanges[1]) {
			cfg.Sinks = append(cfg.Sinks, d.decodeSink(b, plugins, cfg.PluginDir))
		}
	}
	d.shareQueue(cfg)
	d.checkPluginsUsed(plugins)
	cfg.plugins = plugins
	used := references{names: map[string]bool{}, unclear: map[string]bool{}}
	for _, b := range root.body.Blocks {
		if b.Type != "pipeline" {
			if !slices.Contains(slices.Concat(rootSpec().blocks, rootSpec().repeated), b.Type) {
				used.unclear["source"], used.unclear["sink"] = true, true // it may be a pipeline
			}
			continue
		}
		if d.labels(b, pipelineSpec()) && d.claim(d.pipelines, b.Labels[0], b.LabelRanges[0]) {
			cfg.Pipelines = append(cfg.Pipelines, d.decodePipeline(b, used))
		} else {
			used.unclear["source"], used.unclear["sink"] = true, true
		}
	}
	d.checkUsed(used)
	return cfg
}

// merge puts the bodies of all files into one. An attribute that is in two files
// is a mistake; blocks that may be there only once are checked later.
func (d *decoder) merge(bodies []*hclsyntax.Body) *hclsyntax.Body {
	all := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}}
	for _, body := range bodies {
		for name, attr := range body.Attributes {
			if other := all.Attributes[name]; other != nil {
				d.problems.errorAt(attr.NameRange, fmt.Sprintf("Duplicate attribute %q", name),
					fmt.Sprintf("It may be set once, and is already at %s.", place(other.NameRange)))
				continue
			}
			all.Attributes[name] = attr
		}
		all.Blocks = append(all.Blocks, body.Blocks...)
	}
	return all
}

// constant evaluates an attribute that does not depend on an event.
func (d *decoder) constant(attr *hclsyntax.Attribute) (cty.Value, bool) {
	program, diags := expr.Compile(attr.Expr, expr.ConfigScope, d.functions)
	if d.secret[attr] {
		discreet(attr.Name, diags)
	}
	d.problems.add(diags...)
	if program == nil || diags.HasErrors() {
		return cty.NilVal, false
	}
	v, ok := program.Constant()
	if !ok {
		d.problems.errorAt(attr.Expr.Range(), "Not a constant", "This value has to be the same for all events.")
	}
	return v, ok
}

// discreet takes out of diagnostics about a secret what they say about it: one
// without quotes reads as names and operators, and messages tell names. What env
// and file say is about a name that is not secret.
func discreet(name string, diags hcl.Diagnostics) {
	for _, diag := range diags {
		if slices.ContainsFunc(functionNames(), func(f string) bool { return strings.HasPrefix(diag.Detail, f+": ") }) {
			continue
		}
		diag.Summary = fmt.Sprintf("Wrong value of %q", name)
		diag.Detail = "It cannot be evaluated. Write it in quotes, or as env(\"NAME\")."
	}
}

// resolve makes a path absolute against the configuration's folder.
func (d *decoder) resolve(path string) (string, error) { return resolve(d.dir, path) }

func resolve(dir, path string) (string, error) {
	if path == "" {
		return "", errors.New("a path must not be empty")
	}
	if strings.ContainsRune(path, 0) {
		return "", errors.New("a path must not hold a NUL character")
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	return filepath.Join(dir, path), nil
}

func (d *decoder) decodeListen(root *section) Listen {
	l := Listen{
		Address: "127.0.0.1:8080", MaxConnections: 4096,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
	}
	s := root.block(listenSpec())
	if s == nil {
		return l
	}
	s.address("address", &l.Address)
	l.TrustedProxies = s.prefixes("trusted_proxies")
	s.integer("max_connections", &l.MaxConnections, 1, 1_000_000)
	const least = 100 * time.Millisecond
	s.duration("read_header_timeout", &l.ReadHeaderTimeout, least, 5*time.Minute)
	s.duration("read_timeout", &l.ReadTimeout, least, 10*time.Minute)
	s.duration("write_timeout", &l.WriteTimeout, least, 10*time.Minute)
	s.duration("idle_timeout", &l.IdleTimeout, time.Second, time.Hour)
	headers := int64(l.MaxHeaderBytes)
	s.size("max_header_bytes", &headers, 4<<10, 1<<20)
	l.MaxHeaderBytes = int(headers)

	if t := s.block(tlsSpec()); t != nil {
		l.TLS = &TLS{}
		t.require("cert_file", `"server.crt"`)
		t.require("key_file", `"server.key"`)
		t.file("cert_file", &l.TLS.CertFile)
		t.file("key_file", &l.TLS.KeyFile)
		t.file("client_ca_file", &l.TLS.ClientCAFile)
	}
	return l
}

func (d *decoder) decodeAdmin(root *section, l Listen) Admin {
	a := Admin{Address: "127.0.0.1:8081"}
	s := root.block(adminSpec())
	if s != nil {
		s.address("address", &a.Address)
		s.file("web_config_file", &a.WebConfigFile)
	}
	rng := root.bodyRange("admin", "address")
	if rng == nil {
		rng = root.bodyRange("listen", "address")
	}
	if rng == nil {
		return a
	}
	if _, port, _ := net.SplitHostPort(a.Address); a.Address == l.Address && port != "0" {
		d.problems.errorAt(*rng, "Two listeners on one address",
			fmt.Sprintf("Both listen and admin have the address %q. Give one of them another port.", a.Address))
	} else if s != nil && s.has("address") && a.WebConfigFile == "" && !loopback(a.Address) {
		d.problems.warnAt(*rng, "The admin address is open to everyone who reaches it",
			"It is not a loopback address, and there is no web_config_file that asks for a password.")
	}
	return a
}

// bodyRange returns where an attribute's value is in a block, nil if nowhere.
func (s *section) bodyRange(block, attribute string) *hcl.Range {
	for _, b := range s.body.Blocks {
		if b.Type == block && b.Body.Attributes[attribute] != nil {
			return b.Body.Attributes[attribute].Expr.Range().Ptr()
		}
	}
	return nil
}

func (d *decoder) decodeQueue(root *section, dataDir string) Queue {
	q := Queue{Dir: filepath.Join(dataDir, "queue"), MaxBytes: 10 << 30, ReserveBytes: 256 << 20}
	if s := root.block(queueSpec()); s != nil {
		s.path("dir", &q.Dir)
		s.size("max_bytes", &q.MaxBytes, minQueueBytes, maxQueueBytes)
		s.size("reserve_bytes", &q.ReserveBytes, 1<<20, 1<<40)
	}
	return q
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// address is host:port, the host an address, a name, or nothing for all.
func (s *section) address(name string, dst *string) {
	text := ""
	if !s.notEmpty(name, &text) {
		return
	}
	rng := s.attribute(name).Expr.Range()
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		s.wrong(name, rng, `An address is written HOST:PORT, for example "127.0.0.1:8080", or ":8080" for all addresses of this machine.`)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		s.wrong(name, rng, "The port is a number from 0 to 65535.")
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostPattern.MatchString(host) {
		s.wrong(name, rng, "The host is an IP address, a name, or empty.")
		return
	}
	*dst = text
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// prefixes is a list of networks; a single address counts as one.
func (s *section) prefixes(name string) []netip.Prefix {
	var out []netip.Prefix
	for _, el := range s.texts(name, "networks") {
		text := el.value.AsString()
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			s.wrong(name, el.rng, `A network is written like "10.0.0.0/8", "2001:db8::/32" or "192.0.2.7".`)
			continue
		}
		if prefix.Masked() != prefix {
			s.wrong(name, el.rng, fmt.Sprintf("The address has bits behind the network's length. Did you mean %q?", prefix.Masked()))
			continue
		}
		out = append(out, prefix)
	}
	return out
}

// file is the path of a file that has to be there.
func (s *section) file(name string, dst *string) {
	path := ""
	if !s.path(name, &path) {
		return
	}
	if !s.d.options.SkipFileChecks {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			s.wrong(name, s.attribute(name).Expr.Range(), fmt.Sprintf("The file %s cannot be read: %s.", path, reason(err)))
			return
		case info.IsDir():
			s.wrong(name, s.attribute(name).Expr.Range(), fmt.Sprintf("%s is a folder, but a file is required.", path))
			return
		}
	}
	*dst = path
}
