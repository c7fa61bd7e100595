package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// listenLoopback listens on a free port.
func listenLoopback(ctx context.Context) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
}

// serveBare is the reference for accepting: a handler of net/http that reads the
// body and answers, and keeps nothing.
func serveBare(ln net.Listener) error {
	buffers := sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
	server := &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		for {
			_, err := r.Body.Read(*buf)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = io.WriteString(w, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`)
	})}
	return server.Serve(ln)
}

// bufferPool spares the proxy the allocation of a buffer for each answer.
type bufferPool struct{ sync.Pool }

func (p *bufferPool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p *bufferPool) Put(b []byte) { p.Pool.Put(&b) }

// serveProxy is the reference for relaying: the reverse proxy of Go's library as it
// comes. Its transport keeps two idle connections to a receiver.
func serveProxy(ln net.Listener, receiver string) error {
	to, err := url.Parse("http://" + receiver)
	if err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	return (&http.Server{ReadTimeout: time.Minute, Handler: proxy}).Serve(ln)
}

// serveTunedProxy is the same proxy with what makes it faster: as many idle
// connections kept as it can use, and buffers used again.
func serveTunedProxy(ln net.Listener, receiver string) error {
	to, err := url.Parse("http://" + receiver)
	if err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:  &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true},
		BufferPool: &bufferPool{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
		ErrorLog:   log.New(io.Discard, "", 0),
	}
	return (&http.Server{ReadTimeout: time.Minute, Handler: proxy}).Serve(ln)
}
