package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// appendBody appends body to dst as text without a line break, so that one
// event is one line:
//
//   - JSON is compacted: white space between its parts goes, everything else
//     stays as the sender wrote it.
//   - Other text stays as it is, but each line break in it (LF, CR LF or CR)
//     becomes one space.
//   - What is not text in UTF-8 is written in base64 (RFC 4648, with padding).
func appendBody(dst, body []byte) []byte {
	if !utf8.Valid(body) {
		return base64.StdEncoding.AppendEncode(dst, body)
	}
	buf := bytes.NewBuffer(dst)
	if json.Compact(buf, body) == nil {
		return buf.Bytes()
	}
	for {
		i := bytes.IndexAny(body, "\r\n")
		if i < 0 {
			return append(dst, body...)
		}
		dst = append(dst, body[:i]...)
		dst = append(dst, ' ')
		if body[i] == '\r' && i+1 < len(body) && body[i+1] == '\n' {
			i++
		}
		body = body[i+1:]
	}
}
