package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// BenchmarkDeliver measures one sink against a receiver on loopback in the same
// process, with as many deliveries at the same time as its name says, over the
// transport that the sink chooses and over net/http. The bare receiver parses
// next to nothing, so what is left is the sink's own cost; transport=floor is the same
// requests sent by as little as possible.
func BenchmarkDeliver(b *testing.B) {
	body := []byte(`{"CallbackCommand":"Group.CallbackAfterGroupInfoChanged","GroupId":"@TGS#2J4SZEAEL","Type":"Public","Operator_Account":"leckie","Notification":"` + strings.Repeat("x", 200) + `"}`)
	receivers := []struct {
		name string
		url  func(b *testing.B) string
	}{
		{"bare", bareReceiver},
		{"nethttp", func(b *testing.B) string {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}))
			b.Cleanup(server.Close)
			return server.URL
		}},
	}
	for _, receiver := range receivers {
		for _, concurrency := range []int{16, 64, 128, 256} {
			b.Run(fmt.Sprintf("transport=floor/receiver=%s/secrets=0/concurrency=%d", receiver.name, concurrency), func(b *testing.B) {
				floor(b, receiver.url(b), body, concurrency)
			})
			for name, open := range transports() {
				for _, secrets := range []int{0, 1} {
					b.Run(fmt.Sprintf("transport=%s/receiver=%s/secrets=%d/concurrency=%d", name, receiver.name, secrets, concurrency), func(b *testing.B) {
						config := Config{URL: sink.NewSecret(receiver.url(b) + "/callbacks"), Method: "POST", Format: formatBody}
						for range secrets {
							config.SigningSecrets = append(config.SigningSecrets, sink.NewSecret(vectorSecret))
						}
						deliverAll(b, open(b, config), body, concurrency)
					})
				}
			}
		}
	}
}

// floor sends requests of the same size without building, looking, waiting with a
// limit, or reading more of the answer than its end.
func floor(b *testing.B, url string, body []byte, concurrency int) {
	address := strings.TrimPrefix(url, "http://")
	request := fmt.Appendf(nil, "POST /callbacks HTTP/1.1\r\nHost: %s\r\nUser-Agent: callbackd/dev\r\nContent-Type: application/json\r\nWebhook-Id: %s\r\nWebhook-Timestamp: 1614265330\r\nContent-Length: %d\r\n\r\n%s",
		address, sampleEvent().DeliveryID, len(body), body)
	free := make(chan net.Conn, concurrency)
	for range concurrency {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		free <- conn
	}
	measure(b, concurrency, func() error {
		conn := <-free
		defer func() { free <- conn }()
		if _, err := conn.Write(request); err != nil {
			return err
		}
		var answer [1024]byte
		for n := 0; !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")); {
			k, err := conn.Read(answer[n:])
			if err != nil {
				return err
			}
			n += k
		}
		return nil
	})
}

// BenchmarkDeliverTLS does the same over TLS, with HTTP/2 and without.
func BenchmarkDeliverTLS(b *testing.B) {
	for _, http2 := range []bool{false, true} {
		b.Run(fmt.Sprintf("http2=%v", http2), func(b *testing.B) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}))
			server.EnableHTTP2 = http2
			// Dials that lose to a connection that became free meanwhile are noisy.
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			b.Cleanup(server.Close)
			config := Config{
				URL: sink.NewSecret(server.URL), Method: "POST", Format: formatBody,
				TLS: &TLS{CAFile: sink.Path(writePEM(b, "CERTIFICATE", server.Certificate().Raw))},
			}
			deliverAll(b, openWebhook(b, config), bytes.Repeat([]byte("x"), 350), 64)
		})
	}
}

func deliverAll(b *testing.B, w *webhook, body []byte, concurrency int) {
	ev := sampleEvent()
	ev.Body = body
	running, stop := context.WithCancel(b.Context())
	defer stop()
	measure(b, concurrency, func() error {
		ctx, cancel := context.WithTimeout(running, 30*time.Second) // as the daemon has it done
		defer cancel()
		return w.Deliver(ctx, ev)
	})
}

func measure(b *testing.B, concurrency int, deliver func() error) {
	var next atomic.Int64
	var group sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	for range concurrency {
		group.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := deliver(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	// Sink and receiver together; unlike the wall clock it does not count what
	// else the machine does.
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// bareReceiver answers every request with 204 and looks at nothing but the
// length of its body.
func bareReceiver(b *testing.B) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReaderSize(conn, 16<<10)
				for {
					length := 0
					for {
						line, err := r.ReadSlice('\n')
						if err != nil {
							return
						}
						if len(line) == 2 {
							break
						}
						if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
							length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
						}
					}
					if _, err := r.Discard(length); err != nil {
						return
					}
					if _, err := conn.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n")); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// BenchmarkBuild measures what a request costs before a transport has it.
func BenchmarkBuild(b *testing.B) {
	for _, format := range []string{formatBody, formatBinary, formatStructured} {
		b.Run(format, func(b *testing.B) {
			w, err := newWebhook(Config{URL: sink.NewSecret("http://127.0.0.1:1/"), Method: "POST", Format: format, SigningSecrets: []sink.Secret{sink.NewSecret(vectorSecret)}}, time.Now, newTransport)
			if err != nil {
				b.Fatal(err)
			}
			ev := sampleEvent()
			ev.Body = bytes.Repeat([]byte("x"), 350)
			b.ReportAllocs()
			for b.Loop() {
				req, err := w.requests.build(&ev, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				w.requests.release(req)
			}
		})
	}
}
