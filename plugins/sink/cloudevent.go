package sink

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// AppendCloudEvent appends the event as one line of CloudEvents 1.0 JSON, without
// a line break at its end.
//
// The body becomes "data" where it is valid JSON in valid UTF-8: the sender's
// text without the space between its tokens, otherwise untouched. Any other body
// becomes "data_base64". Attributes that the event does not have are left out.
func (ev Event) AppendCloudEvent(dst []byte) []byte {
	dst = append(dst, `{"specversion":"1.0","id":`...)
	dst = appendJSONString(dst, "", ev.ID)
	dst = append(dst, `,"source":`...)
	dst = appendJSONString(dst, "/", ev.Source)
	dst = append(dst, `,"type":`...)
	dst = appendJSONString(dst, "", ev.Type)
	if ev.Subject != "" {
		dst = append(dst, `,"subject":`...)
		dst = appendJSONString(dst, "", ev.Subject)
	}
	if !ev.Time.IsZero() {
		dst = append(dst, `,"time":"`...)
		dst = ev.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	if ev.ContentType != "" {
		dst = append(dst, `,"datacontenttype":`...)
		dst = appendJSONString(dst, "", ev.ContentType)
	}
	return append(appendData(dst, ev.Body), '}')
}

func appendData(dst, body []byte) []byte {
	before := len(dst)
	dst = append(dst, `,"data":`...)
	if utf8.Valid(body) {
		buf := bytes.NewBuffer(dst)
		// Compact checks while it copies, and takes back what it wrote where the
		// text turns out not to be JSON.
		if json.Compact(buf, body) == nil {
			return buf.Bytes()
		}
	}
	dst = append(dst[:before], `,"data_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, body)
	return append(dst, '"')
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends prefix and text as a JSON string. U+2028 and U+2029
// are escaped although JSON does not ask for it: some readers take them for line
// breaks. Prefix is plain ASCII.
func appendJSONString(dst []byte, prefix, text string) []byte {
	dst = append(dst, '"')
	dst = append(dst, prefix...)
	start := 0
	for i := 0; i < len(text); {
		if b := text[i]; b < utf8.RuneSelf {
			if b >= ' ' && b != '"' && b != '\\' && b != 0x7f {
				i++
				continue
			}
			dst = append(dst, text[start:i]...)
			switch b {
			case '"', '\\':
				dst = append(dst, '\\', b)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xf])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(append(dst, text[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			dst = append(append(dst, text[start:i]...), '\\', 'u', '2', '0', '2', hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(append(dst, text[start:]...), '"')
}
