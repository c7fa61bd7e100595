package ingest

import (
	"encoding/json"
	"net/http"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
)

// generic is the protocol of "http" sources: any body, kept as it was sent,
// Content-Encoding included.
type generic struct {
	name string
	hmac *hmacVerifier // nil: callbacks are not verified
}

func newGeneric(name string, settings *HMAC) (*generic, error) {
	p := &generic{name: name}
	if settings != nil {
		var err error
		if p.hmac, err = newHMACVerifier(*settings); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// methods: some senders put what others post.
func (p *generic) methods() []string { return []string{http.MethodPost, http.MethodPut} }

func (p *generic) codes() []int {
	return []int{202, 400, 401, 403, 405, 408, 413, 429, 500, 503}
}

// check has nothing to do: what cannot be read of the query is left out.
func (p *generic) check(*callback) *Refusal { return nil }

func (p *generic) verify(c *callback) *Refusal {
	if p.hmac == nil {
		return nil
	}
	if wrong := p.hmac.verify(c.header, c.body); wrong != "" {
		return refuse(http.StatusUnauthorized, wrong)
	}
	return nil
}

func (p *generic) describe(*callback) (description, *Refusal) {
	return description{typ: p.name}, nil
}

func (p *generic) accepted(_ *event.Event, id ulid.ULID) []byte {
	const before, after = `{"id":"`, `"}`
	out := make([]byte, len(before)+ulid.EncodedSize+len(after))
	n := copy(out, before)
	_ = id.MarshalTextTo(out[n : n+ulid.EncodedSize]) // fails only on a wrong length
	copy(out[n+ulid.EncodedSize:], after)
	return out
}

func (p *generic) refused(reason string) []byte { return errorJSON(reason) }

// errorJSON is a refusal where no other shape is known.
func errorJSON(reason string) []byte {
	text, _ := json.Marshal(reason) // fails for no string
	return append(append([]byte(`{"error":`), text...), '}')
}
