package ingest

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // senders choose it; as an HMAC it is not broken
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// hmacVerifier verifies an HMAC over the raw body.
type hmacVerifier struct {
	header, prefix string // header: the name in its usual spelling
	name           string // in lower case
	size           int
	decode         func(dst []byte, text string) (int, error)
	// keyed has a pool of keyed hashes for each secret: keying costs as much as
	// hashing a small body.
	keyed []*sync.Pool
}

func newHMACVerifier(settings HMAC) (*hmacVerifier, error) {
	v := &hmacVerifier{header: http.CanonicalHeaderKey(settings.Header), name: strings.ToLower(settings.Header), prefix: settings.Prefix}
	if !httpguts.ValidHeaderFieldName(settings.Header) {
		return nil, fmt.Errorf("verify: %q is no name of a header", settings.Header)
	}
	var algorithm func() hash.Hash
	switch settings.Algorithm {
	case "sha256", "":
		algorithm = sha256.New
	case "sha512":
		algorithm = sha512.New
	case "sha1":
		algorithm = sha1.New
	default:
		return nil, fmt.Errorf("verify: there is no algorithm %q: it is sha1, sha256 or sha512", settings.Algorithm)
	}
	switch settings.Encoding {
	case "hex", "":
		v.decode = decodeHex
	case "base64":
		v.decode = decodeBase64
	default:
		return nil, fmt.Errorf("verify: there is no encoding %q: it is hex or base64", settings.Encoding)
	}
	if len(settings.Secrets) == 0 {
		return nil, errors.New("verify: there is no secret")
	}
	for _, secret := range settings.Secrets {
		if secret == "" {
			return nil, errors.New("verify: one of the secrets is empty: anybody could sign with it")
		}
		key := []byte(secret)
		v.keyed = append(v.keyed, &sync.Pool{New: func() any { return hmac.New(algorithm, key) }})
	}
	v.size = algorithm().Size()
	return v, nil
}

// verify returns what is wrong, or an empty text.
func (v *hmacVerifier) verify(h header, body []byte) string {
	values := h.values(v.name)
	switch len(values) {
	case 0:
		return "the header " + v.header + " is missing: the callback is not signed"
	case 1:
	default:
		return "the header " + v.header + " is given more than once"
	}
	signature, ok := strings.CutPrefix(values[0], v.prefix)
	if !ok {
		return "the header " + v.header + " does not begin with " + v.prefix
	}
	wrong := "the signature in the header " + v.header + " is wrong"
	var got, want [sha512.Size]byte
	if n, err := v.decode(got[:], signature); err != nil || n != v.size {
		return wrong
	}
	match := 0
	for _, pool := range v.keyed {
		mac := pool.Get().(hash.Hash)
		mac.Reset()
		_, _ = mac.Write(body) // never fails
		match |= subtle.ConstantTimeCompare(got[:v.size], mac.Sum(want[:0]))
		pool.Put(mac)
	}
	if match != 1 {
		return wrong
	}
	return ""
}

// errLength says that a signature cannot be one, by its length.
var errLength = errors.New("wrong length")

func decodeHex(dst []byte, text string) (int, error) {
	if hex.DecodedLen(len(text)) > len(dst) {
		return 0, errLength
	}
	return hex.Decode(dst, []byte(text))
}

// decodeBase64 takes the standard alphabet, with padding or without.
func decodeBase64(dst []byte, text string) (int, error) {
	text = strings.TrimRight(text, "=")
	if base64.RawStdEncoding.DecodedLen(len(text)) > len(dst) {
		return 0, errLength
	}
	return base64.RawStdEncoding.Strict().Decode(dst, []byte(text))
}
