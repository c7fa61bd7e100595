package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// As much of HTTP/1.1 as generator and receiver need. Go's client and server
// would cost as much as what is measured.

const (
	callbackPath  = "/callbacks/bench?SdkAppid=1400000000&CallbackCommand=Group.CallbackAfterSendMsg&contenttype=json&ClientIP=203.0.113.7&OptPlatform=RESTAPI"
	numberKey     = `"MsgKey":"`
	numberDigits  = 10
	maxMessage    = 64 << 20
	timeKey       = `"CloudCustomData":"`
	timeDigits    = 19 // nanoseconds since 1970
	bodyBeginning = `{"CallbackCommand":"Group.CallbackAfterSendMsg",` + numberKey + `0000000000",` + timeKey + `0000000000000000000","GroupId":"@TGS#2J4SZEAEL","Type":"Public",` +
		`"From_Account":"jared","Operator_Account":"admin","Random":123456,"MsgTime":1490686222,` +
		`"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"red packet`
	bodyEnd = `"}}],"EventTime":"1670574414123"}`
)

// newBody makes a callback's body of so many bytes, as the provider sends them, or
// of as few as it takes.
func newBody(size int) []byte {
	filler := max(0, size-len(bodyBeginning)-len(bodyEnd))
	return bytes.Join([][]byte{[]byte(bodyBeginning), bytes.Repeat([]byte("x"), filler), []byte(bodyEnd)}, nil)
}

// newRequest makes a request.
func newRequest(address string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", callbackPath, address, len(body), body)
}

// places are where the figures of a callback stand in its request.
type places struct{ number, time int }

func placesIn(request []byte) places {
	return places{bytes.Index(request, []byte(numberKey)) + len(numberKey), bytes.Index(request, []byte(timeKey)) + len(timeKey)}
}

// stamp writes the number and the time of a callback into its request.
func (p places) stamp(request []byte, n int, at time.Time) {
	putDigits(request[p.number:][:numberDigits], int64(n))
	putDigits(request[p.time:][:timeDigits], at.UnixNano())
}

func putDigits(to []byte, n int64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = byte('0' + n%10)
		n /= 10
	}
}

// numberIn finds the number in a body or in a line of the file; -1 without one.
func numberIn(text []byte) int { return int(digitsIn(text, numberKey, numberDigits)) }

// sentIn finds the time; before 1970 without one.
func sentIn(text []byte) time.Time { return time.Unix(0, digitsIn(text, timeKey, timeDigits)) }

func digitsIn(text []byte, key string, digits int) int64 {
	i := bytes.Index(text, []byte(key))
	if i < 0 || len(text) < i+len(key)+digits {
		return -1
	}
	n := int64(0)
	for _, c := range text[i+len(key):][:digits] {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int64(c-'0')
	}
	return n
}

// message is a request or an answer that is there as a whole.
type message struct {
	status int // of an answer
	body   []byte
	size   int  // of all of it; 0: there is more to come
	last   bool // the sender closes the connection after it
}

var (
	errTooLarge  = errors.New("the message is too large")
	errNoLength  = errors.New("the message has no Content-Length")
	errNoMessage = errors.New("not HTTP/1.1")
)

// readAnswer reads the first answer of what a connection has brought.
func readAnswer(in []byte) (message, error) {
	const line = "HTTP/1.1 200"
	if len(in) < len(line) {
		return message{}, nil
	}
	status, err := strconv.Atoi(string(in[9:12]))
	if err != nil || !bytes.HasPrefix(in, []byte("HTTP/1.")) {
		return message{}, errNoMessage
	}
	m, err := readMessage(in, status == 204 || status == 304)
	m.status = status
	return m, err
}

// readRequest reads the first request of what a connection has brought.
func readRequest(in []byte) (message, error) { return readMessage(in, false) }

func readMessage(in []byte, bare bool) (message, error) {
	end := bytes.Index(in, []byte("\r\n\r\n"))
	if end < 0 {
		if len(in) > 64<<10 {
			return message{}, errTooLarge
		}
		return message{}, nil
	}
	m, length := message{}, -1
	headers := in[:end+2]
	for {
		i := bytes.IndexByte(headers, '\n')
		if i < 0 || i+1 >= len(headers) {
			break
		}
		headers = headers[i+1:]
		switch headers[0] | 0x20 {
		case 'c':
			if value, ok := header(headers, "content-length:"); ok {
				n, err := strconv.ParseUint(string(value), 10, 31)
				if err != nil {
					return message{}, fmt.Errorf("content-length: %w", err)
				}
				length = int(n)
			} else if value, ok := header(headers, "connection:"); ok {
				m.last = bytes.EqualFold(value, []byte("close"))
			}
		case 't':
			if _, ok := header(headers, "transfer-encoding:"); ok {
				return message{}, errNoLength
			}
		}
	}
	switch {
	case length < 0 && bare:
		length = 0
	case length < 0:
		return message{}, errNoLength
	case length > maxMessage:
		return message{}, errTooLarge
	}
	if size := end + 4 + length; len(in) >= size {
		m.size, m.body = size, in[end+4:size]
	}
	return m, nil
}

// header returns the value of the line's header, if it is the one with the name
// (lower case, with its colon).
func header(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	value, _, _ := bytes.Cut(line[len(name):], []byte("\r\n"))
	return bytes.TrimSpace(value), true
}
