package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/pipeline"
)

// sourceSpec has what all sources have; tencentSpec and httpSpec add the rest.
func sourceSpec() *spec {
	return &spec{
		name: "source", labels: []string{"TYPE", "NAME"},
		secrets:    true,
		attributes: []string{"path", "max_body", "allow_from", "type", "subject", "time"},
		blocks:     []string{"rate_limit", "dedupe"},
	}
}

func tencentSpec() *spec {
	return &spec{
		name: "source", labels: sourceSpec().labels,
		secrets:    true,
		attributes: append([]string{"sdk_app_ids", "tokens", "window"}, sourceSpec().attributes...),
		blocks:     sourceSpec().blocks,
	}
}

func httpSpec() *spec {
	return &spec{
		name: "source", labels: sourceSpec().labels,
		secrets:    true,
		attributes: sourceSpec().attributes,
		blocks:     append([]string{"verify"}, sourceSpec().blocks...),
	}
}

func rateSpec() *spec {
	return &spec{name: "rate_limit", attributes: []string{"per_second", "burst"}}
}

func dedupeSpec() *spec {
	return &spec{name: "dedupe", attributes: []string{"key", "window"}}
}

func hmacSpec() *spec {
	return &spec{
		name: "verify", labels: []string{"hmac"},
		secrets:    true,
		attributes: []string{"header", "prefix", "algorithm", "encoding", "secrets"},
	}
}

const (
	defaultMaxBody = 1 << 20
	maxMaxBody     = 32 << 20
	// maxTencentToken is the longest token that Tencent Cloud lets one set.
	maxTencentToken = 128
	// maxSecret bounds the keys of an HMAC.
	maxSecret = 4096
	// Senders give up after a few minutes, or after some days.
	defaultDedupeWindow = 10 * time.Minute
	maxDedupeWindow     = 7 * 24 * time.Hour
)

func (d *decoder) decodeSource(b *hclsyntax.Block) (Source, bool) {
	out := Source{Type: b.Labels[0], Name: b.Labels[1], MaxBody: defaultMaxBody}
	if out.Name == "unknown" {
		d.problems.errorAt(b.LabelRanges[1], `The name "unknown" is taken`,
			"Metrics count callbacks for unknown paths under it. Give the source another name.")
	}
	var s *section
	switch out.Type {
	case "tencent_im":
		s = d.section(tencentSpec(), b.Body, blockName(b), b.DefRange())
		out.Tencent = s.tencent()
	case "http":
		s = d.section(httpSpec(), b.Body, blockName(b), b.DefRange())
		out.HMAC = s.verify(b)
	default:
		d.files.hideBody(b.Body)
		d.problems.errorAt(b.LabelRanges[0], fmt.Sprintf("Unknown source type %q", out.Type),
			choose(out.Type, []string{"tencent_im", "http"}, "source types"))
		return out, false
	}
	s.require("path", `"/callbacks/`+out.Name+`"`)
	s.urlPath("path", &out.Path)
	s.size("max_body", &out.MaxBody, 1, maxMaxBody)
	out.AllowFrom = s.prefixes("allow_from")
	if r := s.block(rateSpec()); r != nil {
		out.RateLimit = r.rate()
	}
	out.EventType = s.requestText("type")
	out.Subject = s.requestText("subject")
	out.Time = s.requestText("time")
	if r := s.block(dedupeSpec()); r != nil {
		out.Dedupe = r.dedupe()
	}
	return out, true
}

// requestText compiles an expression over the request.
func (s *section) requestText(name string) pipeline.Text {
	if program := s.requestProgram(name); program != nil {
		return program.Text
	}
	return nil
}

func (s *section) requestProgram(name string) *expr.Program {
	attr := s.attribute(name)
	if attr == nil {
		return nil
	}
	program, diags := expr.CompileText(attr.Expr, expr.RequestScope, s.d.functions)
	s.d.problems.add(diags...)
	return program
}

func (s *section) dedupe() *Dedupe {
	out := &Dedupe{Window: defaultDedupeWindow}
	s.require("key", `headers["webhook-id"]`)
	if program := s.requestProgram("key"); program != nil {
		if program.IsConstant() {
			s.wrong("key", program.Range(),
				"It is the same for all callbacks, so all but the first would be taken for repetitions of it. It has to depend on the request: headers, query, body or data.")
		}
		out.Key = program.Text
	}
	s.duration("window", &out.Window, time.Second, maxDedupeWindow)
	return out
}

func (s *section) rate() *Rate {
	r := &Rate{}
	s.require("per_second", "100")
	s.float("per_second", &r.PerSecond, 0.001, 1_000_000)
	r.Burst = max(int(math.Ceil(r.PerSecond)), 1)
	s.integer("burst", &r.Burst, 1, 1_000_000)
	return r
}

func (s *section) tencent() *Tencent {
	t := &Tencent{Window: time.Minute}
	if s.require("sdk_app_ids", "[1400000000]") {
		t.SDKAppIDs = s.appIDs("sdk_app_ids")
	}
	t.Tokens = s.secretTexts("tokens", maxTencentToken)
	s.duration("window", &t.Window, time.Second, 15*time.Minute)
	return t
}

func (s *section) appIDs(name string) []uint64 {
	elements, ok := s.list(name, "numbers")
	if !ok {
		return nil
	}
	if len(elements) == 0 {
		s.wrong(name, s.attribute(name).Expr.Range(), "At least one SDKAppID is required: callbacks of other applications are refused.")
	}
	seen := map[uint64]bool{}
	var out []uint64
	for _, el := range elements {
		f, ok := s.asNumber(name, el.value, el.rng)
		if !ok {
			continue
		}
		id, accuracy := f.Uint64()
		switch {
		case accuracy != big.Exact || id == 0:
			s.wrong(name, el.rng, "An SDKAppID is a whole number above zero.")
		case seen[id]:
			s.wrong(name, el.rng, "It is in the list twice.")
		default:
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

var headerPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")

func (s *section) verify(source *hclsyntax.Block) *HMAC {
	for _, b := range s.body.Blocks {
		if b.Type != "verify" {
			continue
		}
		if !s.d.labels(b, hmacSpec()) {
			s.d.files.hideBody(b.Body)
			return nil
		}
		if method := b.Labels[0]; method != "hmac" {
			s.d.files.hideBody(b.Body)
			s.d.problems.errorAt(b.LabelRanges[0], fmt.Sprintf("Unknown verification %q", method), `There is "hmac".`)
			return nil
		}
		return s.d.section(hmacSpec(), b.Body, blockName(b), b.DefRange()).hmac()
	}
	if s.body.Attributes["verify"] == nil {
		s.d.problems.warnAt(source.DefRange(), fmt.Sprintf("Source %q takes callbacks from everyone", source.Labels[1]),
			`Nobody's signature is checked. Add verify "hmac" { … } if the sender can sign.`)
	}
	return nil
}

func (s *section) hmac() *HMAC {
	h := &HMAC{Algorithm: "sha256", Encoding: "hex"}
	s.require("header", `"X-Signature-256"`)
	if s.notEmpty("header", &h.Header) && !headerPattern.MatchString(h.Header) {
		s.wrong("header", s.attribute("header").Expr.Range(), "This is no name of an HTTP header.")
	}
	s.text("prefix", &h.Prefix)
	s.oneOf("algorithm", &h.Algorithm, "sha1", "sha256", "sha512")
	s.oneOf("encoding", &h.Encoding, "hex", "base64")
	if s.require("secrets", `[env("SECRET")]`) {
		before := len(s.d.problems.list)
		h.Secrets = s.secretTexts("secrets", maxSecret)
		if len(h.Secrets) == 0 && before == len(s.d.problems.list) {
			s.wrong("secrets", s.attribute("secrets").Expr.Range(), "At least one secret is required.")
		}
	}
	return h
}

var urlPathPattern = regexp.MustCompile(`^/[A-Za-z0-9._~!$&'()*+,;=:@/-]*$`)

// urlPath is the path of a source: as it is compared with that of a request.
func (s *section) urlPath(name string, dst *string) {
	text := ""
	if !s.notEmpty(name, &text) {
		return
	}
	var why string
	switch {
	case !strings.HasPrefix(text, "/"):
		why = "A path begins with a slash."
	case strings.ContainsAny(text, "?#"):
		why = "A path has no query and no fragment."
	case strings.Contains(text, "%"):
		why = "A path is written without percent signs: it is compared after decoding."
	case !urlPathPattern.MatchString(text):
		why = "A path has letters, digits, slashes and -._~!$&'()*+,;=:@ only."
	case len(text) > 1024:
		why = "A path has at most 1024 characters."
	case strings.Contains(text, "//"), strings.Contains(text+"/", "/./"), strings.Contains(text+"/", "/../"):
		why = `A path has no empty parts and no "." or ".." between slashes.`
	default:
		*dst = text
		return
	}
	s.wrong(name, s.attribute(name).Expr.Range(), why)
}

// checkPaths reports sources on one path.
func (d *decoder) checkPaths(blocks hclsyntax.Blocks, sources []Source) {
	type owner struct {
		name string
		attr *hclsyntax.Attribute
	}
	attributes := map[string]*hclsyntax.Attribute{}
	for _, b := range blocks {
		if b.Type == "source" && len(b.Labels) == 2 && attributes[b.Labels[1]] == nil {
			attributes[b.Labels[1]] = b.Body.Attributes["path"]
		}
	}
	owners := map[string]owner{}
	for _, s := range sources {
		attr := attributes[s.Name]
		if s.Path == "" || attr == nil {
			continue
		}
		if other, taken := owners[s.Path]; taken {
			d.problems.errorAt(attr.Expr.Range(), fmt.Sprintf("Two sources on the path %q", s.Path),
				fmt.Sprintf("Source %q has it already, at %s. Give one of them another path.", other.name, place(other.attr.Expr.Range())))
			continue
		}
		owners[s.Path] = owner{s.Name, attr}
	}
}
