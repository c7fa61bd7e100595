// Package redact keeps secrets out of text that people see: a plugin's messages,
// errors, logs. It knows the secrets and the forms in which programs print them.
//
// It promises that Mask leaves no secret of at least MinLen bytes in a text, be
// it raw or in one of the encodings below. It must not know where secrets come
// from, nor keep them anywhere else.
package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MinLen is the length from which a secret is masked, in bytes. Shorter ones
// would turn up in any text by chance, and masking "on" or "1" would make texts
// unreadable and give away the secret's place.
const MinLen = 4

// minPathLen and minQueryLen are the lengths from which the path and a query
// value of a secret URL are masked where they stand alone. Shorter ones are words
// such as "/callbacks" or "v=2".
const (
	minPathLen  = 12
	minQueryLen = 8
)

// Text is what stands in place of a secret.
const Text = "(sensitive)"

// Redactor masks secrets. It is immutable: make a new one when the secrets
// change. Any number of goroutines may use it. The zero value and nil mask
// nothing.
type Redactor struct {
	// replacer finds quickly that there is nothing to do, which is the rule.
	replacer *strings.Replacer
	forms    []string
}

// New returns a Redactor for secrets. Those shorter than MinLen are left out.
//
// Of each secret these forms are masked: as it is; escaped for a URL's query or
// path; in base64, standard and URL-safe, padded or not; in hex, lower and upper
// case; escaped as in JSON (also with "<", ">" and "&" escaped); quoted as Go
// does with %q, and without characters beyond ASCII. Of one with several lines,
// each line too. Of a URL also what stands behind its host, its query, and its
// password, which programs print without the rest. In HTTP basic auth, or
// wherever else base64 holds it among other text, up to three letters at either
// end are left, which depend on what is around.
func New(secrets []string) *Redactor {
	forms := map[string]bool{}
	for _, secret := range secrets {
		addSecret(forms, secret)
	}
	if len(forms) == 0 {
		return &Redactor{}
	}
	r := &Redactor{forms: slices.Sorted(maps.Keys(forms))}
	pairs := make([]string, 0, 2*len(r.forms))
	for _, form := range r.forms {
		pairs = append(pairs, form, Text)
	}
	r.replacer = strings.NewReplacer(pairs...)
	return r
}

// Mask returns text with every secret replaced by Text.
func (r *Redactor) Mask(text string) string {
	if r == nil || r.replacer == nil || r.replacer.Replace(text) == text {
		return text
	}
	// Forms overlap: a short one may begin inside a long one. Replacing one after
	// the other would leave the rest of the long one.
	hidden := make([]bool, len(text))
	for _, form := range r.forms {
		for at := 0; ; at++ {
			i := strings.Index(text[at:], form)
			if i < 0 {
				break
			}
			at += i
			for j := range len(form) {
				hidden[at+j] = true
			}
		}
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case !hidden[i]:
			b.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			b.WriteString(Text)
		}
	}
	return b.String()
}

func addSecret(forms map[string]bool, secret string) {
	addForms(forms, secret)
	if trimmed := strings.TrimSpace(secret); trimmed != secret {
		addForms(forms, trimmed)
	}
	if strings.ContainsAny(secret, "\r\n") {
		for line := range strings.Lines(secret) {
			addForms(forms, strings.TrimSpace(line))
		}
	}
	addURL(forms, secret)
}

func addForms(forms map[string]bool, secret string) {
	if len(secret) < MinLen {
		return
	}
	add := func(form string) {
		if len(form) >= MinLen {
			forms[form] = true
		}
	}
	add(secret)
	query := url.QueryEscape(secret)
	add(query)
	add(strings.ReplaceAll(query, "+", "%20"))
	add(lowerEscapes(query))
	path := url.PathEscape(secret)
	add(path)
	add(lowerEscapes(path))
	add((&url.URL{Path: secret}).EscapedPath())
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		addBase64(add, enc, secret)
	}
	add(hex.EncodeToString([]byte(secret)))
	add(strings.ToUpper(hex.EncodeToString([]byte(secret))))
	for _, escapeHTML := range []bool{true, false} {
		add(jsonText(secret, escapeHTML))
		// A quoted text that is quoted again, as an error inside a JSON log line.
		add(jsonText(unquoted(strconv.Quote(secret)), escapeHTML))
	}
	add(unquoted(strconv.Quote(secret)))
	add(unquoted(strconv.QuoteToASCII(secret)))
}

// addBase64 adds the secret alone, and the parts of its base64 that are the same
// wherever it stands in a longer text: basic auth encodes "name:secret".
func addBase64(add func(string), enc *base64.Encoding, secret string) {
	add(enc.EncodeToString([]byte(secret)))
	add(enc.WithPadding(base64.NoPadding).EncodeToString([]byte(secret)))
	raw := enc.WithPadding(base64.NoPadding)
	for offset := range 3 {
		skip := (3 - offset) % 3 // bytes of the secret that share a group with what is before
		if len(secret)-skip < 6 {
			continue
		}
		body := secret[skip:]
		// Whole groups do not depend on what follows.
		if whole := len(body) / 3 * 3; whole >= 6 {
			add(raw.EncodeToString([]byte(body[:whole])))
		}
		add(raw.EncodeToString([]byte(body)))
		add(enc.EncodeToString([]byte(body)))
	}
}

// addURL adds the parts of a secret URL that programs print alone.
func addURL(forms map[string]bool, secret string) {
	u, err := url.Parse(strings.TrimSpace(secret))
	if err != nil || u.Host == "" {
		return
	}
	addForms(forms, u.String())
	addForms(forms, u.Redacted())
	for _, path := range []string{u.RequestURI(), u.EscapedPath(), u.Path, strings.TrimPrefix(u.EscapedPath(), "/")} {
		if len(path) >= minPathLen {
			addForms(forms, path)
		}
	}
	queries := []string{u.RawQuery}
	for _, values := range u.Query() {
		queries = append(queries, values...)
	}
	for _, query := range queries {
		if len(query) >= minQueryLen {
			addForms(forms, query)
		}
	}
	if u.User == nil {
		return
	}
	if password, ok := u.User.Password(); ok {
		addForms(forms, password)
		pair := u.User.Username() + ":" + password
		addForms(forms, pair)
		addForms(forms, u.User.String())
	}
}

func jsonText(s string, escapeHTML bool) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(s); err != nil {
		return ""
	}
	return unquoted(strings.TrimSuffix(b.String(), "\n"))
}

func unquoted(s string) string {
	if len(s) < 2 {
		return ""
	}
	return s[1 : len(s)-1]
}

// lowerEscapes turns %2F into %2f.
func lowerEscapes(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(string(b[i+1:i+3])))
		}
	}
	return string(b)
}
