package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestBody(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 350, 4096, 1 << 20} {
		body := newBody(size)
		if len(body) != max(size, len(newBody(0))) || !json.Valid(body) {
			t.Errorf("%d: %d bytes, valid: %t", size, len(body), json.Valid(body))
		}
	}
	if least := len(newBody(0)); least > 350 {
		t.Errorf("the least body has %d bytes, more than the usual one", least)
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	request := newRequest("127.0.0.1:80", newBody(350))
	at := placesIn(request)
	now := time.Now()
	for _, n := range []int{0, 7, maxNumber - 1} {
		at.stamp(request, n, now)
		m, err := readRequest(request)
		if err != nil || m.size != len(request) {
			t.Fatalf("%d of %d bytes: %v", m.size, len(request), err)
		}
		if got := numberIn(m.body); got != n || !sentIn(m.body).Equal(now) || !json.Valid(m.body) {
			t.Errorf("number %d at %v, want %d at %v in valid JSON", got, sentIn(m.body), n, now)
		}
	}
	for _, text := range []string{"", numberKey, numberKey + "123", numberKey + "12345x7890"} {
		if got := numberIn([]byte(text)); got != -1 {
			t.Errorf("%q has the number %d", text, got)
		}
	}
}

func TestReadMessages(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       message
		err        error
	}{
		{"answer", "HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length: 2\r\n\r\nokHTTP", message{status: 200, body: []byte("ok"), size: 49}, nil},
		{"refusal that ends the connection", "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", message{status: 503, body: []byte{}, size: 59, last: true}, nil},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", message{status: 204, body: []byte{}, size: 27}, nil},
		{"part of the headers", "HTTP/1.1 200 OK\r\nContent-Le", message{status: 200}, nil},
		{"part of the body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", message{status: 200}, nil},
		{"part of the status", "HTTP/1.1 2", message{}, nil},
		{"no length", "HTTP/1.1 200 OK\r\n\r\n", message{status: 200}, errNoLength},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", message{status: 200}, errNoLength},
		{"too large", "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", message{status: 200}, errTooLarge},
		{"something else", "SSH-2.0-OpenSSH_9.2p1", message{}, errNoMessage},
	} {
		got, err := readAnswer([]byte(test.text))
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", test.name, err, test.err)
		}
		if got.status != test.want.status || got.size != test.want.size || got.last != test.want.last || !bytes.Equal(got.body, test.want.body) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func FuzzReadMessages(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add(newRequest("127.0.0.1:80", newBody(1)))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, read := range []func([]byte) (message, error){readAnswer, readRequest} {
			m, err := read(in)
			if m.size > len(in) || err != nil && m.size > 0 || len(m.body) > m.size {
				t.Fatalf("%d of %d bytes with a body of %d: %v", m.size, len(in), len(m.body), err)
			}
			_ = numberIn(m.body)
		}
	})
}
