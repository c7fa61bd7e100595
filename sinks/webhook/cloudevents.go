package main

// appendPercentEncoded appends value as the CloudEvents HTTP binding wants it in
// a header (cloudevents/bindings/http-protocol-binding.md, 3.1.3.2): a space, a
// double quote, a percent sign and every byte of the UTF-8 text outside of
// U+0021 to U+007E become %XX.
func appendPercentEncoded(dst []byte, value string) []byte {
	const upperHex = "0123456789ABCDEF"
	for i := range len(value) {
		c := value[i]
		if mustPercentEncode(c) {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&0xf])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// percentEncoded is appendPercentEncoded for a string; it copies only what has
// to change.
func percentEncoded(value string) string {
	for i := range len(value) {
		if mustPercentEncode(value[i]) {
			return string(appendPercentEncoded(make([]byte, 0, len(value)+16), value))
		}
	}
	return value
}

func mustPercentEncode(c byte) bool {
	return c < '!' || c > '~' || c == '"' || c == '%'
}
