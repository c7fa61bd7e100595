package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strconv"
	"time"
)

// defaultWindow is how far a RequestTime may be from now, as the provider says.
const defaultWindow = time.Minute

// tencentSign verifies Sign and RequestTime: Sign is the hex SHA-256 of the token
// followed by RequestTime, which is Unix seconds as decimal text. Neither the body
// nor the rest of the query is signed.
// See https://trtc.io/document/34354.
type tencentSign struct {
	tokens []string
	window time.Duration
}

func newTencentSign(tokens []string, window time.Duration) (*tencentSign, error) {
	for _, t := range tokens {
		if t == "" {
			return nil, errors.New("one of the tokens is empty: anybody could sign with it")
		}
	}
	if window == 0 {
		window = defaultWindow
	}
	if window < 0 {
		return nil, errors.New("the window of RequestTime is negative")
	}
	return &tencentSign{tokens: tokens, window: window}, nil
}

// maxRequestTimeLen bounds RequestTime. Digits only, and few of them: what is
// hashed has no length in it, so longer text could be an extension of signed text.
const maxRequestTimeLen = 12

// verify returns what is wrong, or an empty text.
func (s *tencentSign) verify(sign, requestTime string, now time.Time) string {
	if sign == "" || requestTime == "" {
		return "Sign and RequestTime are needed: the callback is not signed"
	}
	if len(requestTime) > maxRequestTimeLen {
		return "RequestTime is not Unix seconds"
	}
	for i := range len(requestTime) {
		if requestTime[i] < '0' || requestTime[i] > '9' {
			return "RequestTime is not Unix seconds"
		}
	}
	seconds, err := strconv.ParseInt(requestTime, 10, 64)
	if err != nil {
		return "RequestTime is not Unix seconds"
	}
	// Whole seconds, as RequestTime has no more.
	if d := now.Unix() - seconds; d > int64(s.window/time.Second) || -d > int64(s.window/time.Second) {
		return "RequestTime is too far from now: check the clocks, and whether the callback is played again"
	}
	const wrong = "Sign is wrong: check the token"
	var got [sha256.Size]byte
	if len(sign) != hex.EncodedLen(len(got)) {
		return wrong
	}
	if _, err := hex.Decode(got[:], []byte(sign)); err != nil {
		return wrong
	}
	match := 0
	var text [160]byte
	for _, token := range s.tokens {
		want := sha256.Sum256(append(append(text[:0], token...), requestTime...))
		match |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	if match != 1 {
		return wrong
	}
	return ""
}
