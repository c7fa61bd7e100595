package ingest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // senders choose it; as an HMAC it is not broken
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tidwall/gjson"
)

// Sample is a callback as a provider would post it.
type Sample struct {
	Body []byte
	// Query and Header go before what a provider would send.
	Query  url.Values
	Header http.Header
	Now    time.Time
}

// NewRequest makes the request that the provider of the source would send,
// signed as the source's settings say, with the first secret. base is the
// scheme, host and port of the server.
func NewRequest(ctx context.Context, settings SourceSettings, base string, sample Sample) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+(&url.URL{Path: settings.Path}).EscapedPath(), bytes.NewReader(sample.Body))
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", settings.Name, err)
	}
	if gjson.ValidBytes(sample.Body) {
		r.Header.Set("Content-Type", "application/json")
	}
	query := url.Values{}
	switch {
	case settings.Tencent != nil:
		signTencent(query, *settings.Tencent, sample)
	case settings.HMAC != nil:
		if err := signHMAC(r.Header, *settings.HMAC, sample.Body); err != nil {
			return nil, fmt.Errorf("source %q: %w", settings.Name, err)
		}
	}
	for name, values := range sample.Query {
		query[name] = values
	}
	for name, values := range sample.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	r.URL.RawQuery = query.Encode()
	return r, nil
}

// signTencent fills the query as https://trtc.io/document/34354 describes it.
func signTencent(query url.Values, settings Tencent, sample Sample) {
	query.Set(queryAppID, strconv.FormatUint(settings.SDKAppIDs[0], 10))
	if command := gjson.GetBytes(sample.Body, queryCommand); command.Type == gjson.String {
		query.Set(queryCommand, command.Str)
	}
	query.Set("contenttype", "json")
	query.Set("ClientIP", "203.0.113.7") // an address for documentation: RFC 5737
	query.Set("OptPlatform", "RESTAPI")
	if len(settings.Tokens) == 0 {
		return
	}
	requestTime := strconv.FormatInt(sample.Now.Unix(), 10)
	sum := sha256.Sum256([]byte(settings.Tokens[0] + requestTime))
	query.Set(queryRequestTime, requestTime)
	query.Set(querySign, hex.EncodeToString(sum[:]))
}

func signHMAC(header http.Header, settings HMAC, body []byte) error {
	algorithm, err := hmacAlgorithm(settings.Algorithm)
	if err != nil {
		return err
	}
	mac := hmac.New(algorithm, []byte(settings.Secrets[0]))
	_, _ = mac.Write(body) // never fails
	encode := hex.EncodeToString
	if settings.Encoding == "base64" {
		encode = base64.StdEncoding.EncodeToString
	}
	header.Set(settings.Header, settings.Prefix+encode(mac.Sum(nil)))
	return nil
}

// hmacAlgorithm returns the hash of an algorithm's name.
func hmacAlgorithm(name string) (func() hash.Hash, error) {
	switch name {
	case "sha256", "":
		return sha256.New, nil
	case "sha512":
		return sha512.New, nil
	case "sha1":
		return sha1.New, nil
	}
	return nil, fmt.Errorf("verify: there is no algorithm %q: it is sha1, sha256 or sha512", name)
}
