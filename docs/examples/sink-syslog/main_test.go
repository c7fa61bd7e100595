package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
	"github.com/callbackd/callbackd/plugins/sinktest"
)

func TestMain(m *testing.M) { sinktest.Main(m, main) }

// TestContract runs the plugin as callbackd does, and checks what callbackd relies
// on: crashes, deadlines, odd events, closing.
func TestContract(t *testing.T) {
	server := newServer(t, "127.0.0.1:0", nil)
	go func() {
		for range server.messages { // nobody looks at them
		}
	}()
	sinktest.Run(t, sinktest.Options{
		Settings: map[string]any{"address": server.address},
		Refused: []sinktest.Refused{
			{Settings: map[string]any{"address": "nowhere"}, Path: []any{"address"}},
			{Settings: map[string]any{"address": server.address, "app_name": "my app"}, Path: []any{"app_name"}},
			{Settings: map[string]any{"address": server.address, "max_message": "1MiB"}, Path: []any{"max_message"}},
		},
		Failing: func(ev *sinktest.Event) { ev.Body = bytes.Repeat([]byte("x"), 9000) },
	})
}

func TestMessage(t *testing.T) {
	cfg := decode(t, map[string]any{
		"address": "127.0.0.1:514", "facility": "local7", "severity": "err", "app_name": "ci",
		"message": sink.FromEvent(func(ev sink.Event) (string, bool) { return "push: " + string(ev.Body), ev.Type == "push" }),
	})
	f := newFormat(cfg)
	f.hostname = "host"
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		event sink.Event
		want  string
	}{
		"a message of its own": {
			sink.Event{DeliveryID: "d", Source: "in", Type: "push", Subject: "main", Time: noon, Body: []byte("1")},
			`127 <187>1 2026-03-04T12:00:00.000000Z host ci - push [callbackd@32473 delivery="d" source="in" type="push" subject="main"] push: 1`,
		},
		"the body": {
			sink.Event{DeliveryID: "d", Source: "in", Type: "tag", Time: noon, Body: []byte("größe")},
			`121 <187>1 2026-03-04T12:00:00.000000Z host ci - tag [callbackd@32473 delivery="d" source="in" type="tag" subject=""] größe`,
		},
		"nothing that begins a line or ends the data": {
			sink.Event{DeliveryID: "d", Type: "a b", Subject: "\"]\\\n", Body: []byte("1\n2\x00\xff")},
			`107 <187>1 - host ci - - [callbackd@32473 delivery="d" source="" type="a b" subject="\"\]\\#012"] 1#0122#000` + "\uFFFD",
		},
	} {
		got, err := f.frame(test.event)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, test.want)
		}
	}
	for _, ev := range []sink.Event{{Body: make([]byte, 8<<10)}, {Subject: strings.Repeat("s", 8<<10)}} {
		if _, err := f.frame(ev); err == nil || !strings.Contains(err.Error(), "max_message is 8192") {
			t.Errorf("a message that is too long: %v", err)
		}
	}
}

// TestConnection: one connection is used for all, until the server ends it; then
// the next event gets a new one.
func TestConnection(t *testing.T) {
	server := newServer(t, "127.0.0.1:0", nil)
	s := newSink(t, map[string]any{"address": server.address})
	for _, body := range []string{"first", "second"} {
		deliver(t, s, body)
		server.expect(body)
	}
	if server.accepted() != 1 {
		t.Errorf("%d connections were made for two events", server.accepted())
	}

	server.close()
	<-s.conn.over // it has heard of that
	err := s.Deliver(t.Context(), sink.Event{Body: []byte("nobody is there")})
	if outcome, _ := sink.OutcomeOf(err); outcome != sink.OutcomeRetry {
		t.Errorf("without a server: %v, %v", outcome, err)
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("the check finds nothing wrong without a server")
	}

	server = newServer(t, server.address, nil)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("the check, with a server again: %v", err)
	}
	deliver(t, s, "third")
	server.expect("third")
}

// TestBatch: what is too long concerns no other event.
func TestBatch(t *testing.T) {
	server := newServer(t, "127.0.0.1:0", nil)
	s := newSink(t, map[string]any{"address": server.address})
	errs := s.DeliverBatch(t.Context(), []sink.Event{{Body: []byte("first")}, {Body: make([]byte, 9000)}, {Body: []byte("third")}})
	for i, want := range []sink.Outcome{sink.OutcomeDelivered, sink.OutcomeRejected, sink.OutcomeDelivered} {
		if outcome, _ := sink.OutcomeOf(errs[i]); outcome != want {
			t.Errorf("event %d: %v, %v; want %v", i, outcome, errs[i], want)
		}
	}
	server.expect("first")
	server.expect("third")
}

// TestDeadline: a server that takes nothing more holds nobody up.
func TestDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts and reads
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := newSink(t, map[string]any{"address": listener.Addr().String(), "max_message": "64KiB"})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	evs := slices.Repeat([]sink.Event{{Body: bytes.Repeat([]byte("x"), 60<<10)}}, 100)
	for err == nil { // until no buffer is left
		err = s.DeliverBatch(ctx, evs)[0]
	}
	if outcome, _ := sink.OutcomeOf(err); outcome != sink.OutcomeRetry || s.conn != nil {
		t.Errorf("%v, %v; the connection is kept: %v", outcome, err, s.conn != nil)
	}
}

func TestTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := newServer(t, "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	deliver(t, newSink(t, map[string]any{"address": server.address, "tls": map[string]any{"ca_file": ca}}), "private")
	server.expect("private")

	stranger := newSink(t, map[string]any{"address": server.address, "tls": map[string]any{}})
	if err := stranger.Check(t.Context()); err == nil {
		t.Error("a certificate that nobody trusts was taken")
	}
	for _, file := range []string{ca + ".none", os.Args[0]} {
		_, err := sink.Decode[Config](map[string]any{"address": server.address, "tls": map[string]any{"ca_file": file}})
		if err == nil || !strings.Contains(err.Error(), "tls.ca_file") {
			t.Errorf("ca_file %s: %v", file, err)
		}
	}
}

func decode(t *testing.T, settings map[string]any) Config {
	t.Helper()
	cfg, err := sink.Decode[Config](settings)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// newSink opens a sink that is closed at the end of the test.
func newSink(t *testing.T, settings map[string]any) *syslogSink {
	t.Helper()
	s, err := open(t.Context(), decode(t, settings))
	if err != nil {
		t.Fatal(err)
	}
	out := s.(*syslogSink)
	t.Cleanup(func() {
		if err := out.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return out
}

func deliver(t *testing.T, s sink.Sink, body string) {
	t.Helper()
	if err := s.Deliver(t.Context(), sink.Event{Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}
