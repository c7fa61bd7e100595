package contract

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

// maxSaid bounds what is kept of what a plugin says during one rule.
const maxSaid = 16 << 20

// said is what a plugin said: text with where it stood.
type said struct {
	texts []text
	size  int
	lines int         // that were printed
	cut   []host.Line // those that were too long
}

type text struct{ where, text string }

func (s *said) add(where, what string) {
	if what == "" || s.size+len(what) > maxSaid {
		return
	}
	s.size += len(what)
	s.texts = append(s.texts, text{where, what})
}

// heard keeps what the plugin said in an answer.
func (s *suite) heard(where, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.add(where, what)
}

// heardLine keeps what the plugin printed.
func (s *suite) heardLine(line host.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.lines++
	if line.Cut {
		s.said.cut = append(s.said.cut, host.Line{Stream: line.Stream, Text: line.Text[:min(len(line.Text), 60)]})
	}
	s.said.add("line on "+line.Stream, line.Text)
}

// everythingSaid is what the plugin said during this rule, so far.
func (s *suite) everythingSaid() said {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.said
	out.texts, out.cut = slices.Clone(out.texts), slices.Clone(out.cut)
	return out
}

// minSecret is the length from which the value of a sensitive setting is looked
// for: shorter ones turn up by chance.
const minSecret = 8

// masking knows the values of sensitive settings.
type masking struct {
	forms map[string]string // what may stand in a text, and how it was written
	order []string          // the longest first
}

func (m *masking) learn(s schema.Schema, values schema.Object) {
	for _, a := range s.Attributes {
		if a.Sensitive {
			eachText(values[a.Name], m.add)
		}
	}
	for _, b := range s.Blocks {
		switch v := values[b.Name].(type) {
		case schema.Object:
			m.learn(b.Schema, v)
		case schema.List:
			for _, item := range v {
				if inner, ok := item.(schema.Object); ok {
					m.learn(b.Schema, inner)
				}
			}
		}
	}
}

func eachText(v schema.Value, use func(string)) {
	switch v := v.(type) {
	case string:
		use(v)
	case schema.JSON:
		use(string(v))
	case schema.List:
		for _, item := range v {
			eachText(item, use)
		}
	case schema.Object:
		for _, item := range v {
			eachText(item, use)
		}
	}
}

// add takes in a secret, in the forms in which programs print it.
func (m *masking) add(secret string) {
	if len(secret) < minSecret {
		return
	}
	if m.forms == nil {
		m.forms = map[string]string{}
	}
	quoted, _ := json.Marshal(secret) // of a string: cannot fail
	forms := [][2]string{
		{secret, "as it is"},
		{strings.Trim(string(quoted), `"`), "in JSON"},
		{strings.Trim(fmt.Sprintf("%q", secret), `"`), "quoted"},
		{url.QueryEscape(secret), "escaped for a URL"},
		{url.PathEscape(secret), "escaped for a URL"},
		{base64.StdEncoding.EncodeToString([]byte(secret)), "in base64"},
		{base64.RawURLEncoding.EncodeToString([]byte(secret)), "in base64"},
		{hex.EncodeToString([]byte(secret)), "in hex"},
	}
	if u, err := url.Parse(secret); err == nil && u.Host != "" {
		// A program may print a URL without its host.
		if len(u.Path) >= 12 {
			forms = append(forms, [2]string{u.Path, "without the host of the URL"})
		}
		if password, ok := u.User.Password(); ok && len(password) >= minSecret {
			forms = append(forms, [2]string{password, "as the password of the URL"})
		}
	}
	for _, form := range forms {
		if _, known := m.forms[form[0]]; !known {
			m.forms[form[0]] = form[1]
			m.order = append(m.order, form[0])
		}
	}
	slices.SortStableFunc(m.order, func(a, b string) int { return len(b) - len(a) })
}

func (m *masking) mask(s string) string {
	for _, form := range m.order {
		s = strings.ReplaceAll(s, form, "(sensitive)")
	}
	return s
}

// find tells in which form a secret stands in a text; empty: in none.
func (m *masking) find(s string) string {
	for _, form := range m.order {
		if strings.Contains(s, form) {
			return m.forms[form]
		}
	}
	return ""
}
