package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is a syslog server for tests. It ends with the test.
type server struct {
	t        *testing.T
	address  string
	messages chan string
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newServer(t *testing.T, address string, config *tls.Config) *server {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, address: listener.Addr().String(), messages: make(chan string), listener: listener}
	if config != nil {
		s.listener = tls.NewListener(listener, config)
	}
	s.work.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

// close ends it and all its connections.
func (s *server) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.work.Go(func() { s.read(conn) })
	}
}

// read takes messages off a connection until it ends.
func (s *server) read(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		var length int64
		if _, err := fmt.Fscanf(in, "%d ", &length); err != nil {
			return
		}
		message, err := io.ReadAll(io.LimitReader(in, length))
		if err != nil {
			return
		}
		select {
		case s.messages <- string(message):
		case <-s.t.Context().Done():
			return
		}
	}
}

func (s *server) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// expect waits for the next message, which has to end with the text.
func (s *server) expect(text string) {
	s.t.Helper()
	select {
	case message := <-s.messages:
		if !strings.HasSuffix(message, " "+text) {
			s.t.Errorf("the server got %q, want %q at its end", message, text)
		}
	case <-time.After(10 * time.Second):
		s.t.Fatalf("the server did not get %q", text)
	}
}
