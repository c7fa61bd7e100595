// Command bench measures callbackd beside references, in one run on one machine:
// how many callbacks a bare net/http handler answers, how many the daemon
// accepts and delivers to a file and to another HTTP service, and how many
// deliveries pass the process line. Loopback only, bounded in time, and every
// accepted callback is accounted for: a loss is an error.
//
// The output is in the format of Go benchmarks, so that benchstat compares runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// body is what is posted: about 350 bytes, as the provider sends them.
const body = `{"CallbackCommand":"Group.CallbackAfterSendMsg","GroupId":"@TGS#2J4SZEAEL","Type":"Public","From_Account":"jared",` +
	`"Operator_Account":"admin","Random":123456,"MsgSeq":123,"MsgTime":1490686222,"OnlineOnlyFlag":0,"MsgBody":[{"MsgType":` +
	`"TIMTextElem","MsgContent":{"Text":"red packet"}}],"CloudCustomData":"your cloud custom data","EventTime":"1670574414123"}`

const callbackPath = "/callbacks/bench?SdkAppid=1400000000&CallbackCommand=Group.CallbackAfterSendMsg&contenttype=json&ClientIP=203.0.113.7&OptPlatform=RESTAPI"

// drainPatience is how long deliveries may take once the load has ended.
const drainPatience = time.Minute

func main() {
	switch {
	case os.Getenv("CALLBACKD_SINK") != "":
		sink.Serve(sink.Info{Name: "noop", Version: "1", Doc: "Takes everything, does nothing."}, openNoop)
		return
	case len(os.Args) == 2 && os.Args[1] == "bare-handler":
		serveBare(context.Background())
		return
	}
	bin := flag.String("bin", "bin", "the folder with callbackd and its sinks")
	duration := flag.Duration("duration", 4*time.Second, "how long each load lasts")
	rounds := flag.Int("count", 1, "how many times everything is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, *bin, *duration, *rounds)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, bin string, duration time.Duration, rounds int) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	fmt.Printf("goos: %s\ngoarch: %s\npkg: github.com/callbackd/callbackd/bench\n", runtime.GOOS, runtime.GOARCH)
	fmt.Printf("# %d CPUs shared by load, daemon, sinks and receiver; %d-byte bodies; fsync on; %v a load\n", runtime.NumCPU(), len(body), duration)
	for range rounds {
		for _, connections := range []int{64, 256} {
			bare, err := benchBare(ctx, connections, duration)
			if err != nil {
				return fmt.Errorf("bare handler: %w", err)
			}
			for _, kind := range []string{"file", "webhook"} {
				if err := benchDaemon(ctx, bin, kind, connections, duration, bare); err != nil {
					return fmt.Errorf("accept→%s: %w", kind, err)
				}
			}
		}
		if err := benchDeliver(ctx); err != nil {
			return fmt.Errorf("deliver: %w", err)
		}
	}
	return nil
}

// serveBare is the reference: a handler that reads the body and answers.
func serveBare(ctx context.Context) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ln.Addr())
	server := &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, max(0, min(r.ContentLength, 1<<20)))
		for n := 0; n < len(b); {
			k, err := r.Body.Read(b[n:])
			n += k
			if err != nil && n < len(b) {
				return
			}
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write([]byte(`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`))
	})}
	_ = server.Serve(ln) // until it is killed
}

func benchBare(ctx context.Context, connections int, duration time.Duration) (perSecond float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, "bare-handler")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var address string
	if _, err := fmt.Fscanln(stdout, &address); err != nil {
		return 0, err
	}
	r, err := load(ctx, address, connections, duration)
	if err != nil {
		return 0, err
	}
	cpu := cpuSeconds(cmd.Process.Pid)
	r.print("BareHandler", connections, fmt.Sprintf("%8.2f cpu-s", cpu))
	return r.perSecond(), nil
}

// benchDaemon posts to a daemon with one sink and waits until all is delivered.
func benchDaemon(ctx context.Context, bin, kind string, connections int, duration time.Duration, bare float64) (err error) {
	dir, err := os.MkdirTemp("", "callbackd-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	received, settings, closeReceiver, err := receiverFor(ctx, kind, dir)
	if err != nil {
		return err
	}
	defer closeReceiver()
	d, err := startDaemon(ctx, bin, dir, kind, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	began := time.Now()
	r, err := load(ctx, d.address, connections, duration)
	if err != nil {
		return err
	}
	atEnd, err := received()
	if err != nil {
		return err
	}
	all := atEnd
	for deadline := time.Now().Add(drainPatience); all < r.answered && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		if all, err = received(); err != nil {
			return err
		}
	}
	took := time.Since(began)
	cpu, rss := d.usage()
	r.print("Accept"+map[string]string{"file": "ToFile", "webhook": "ToWebhook"}[kind], connections,
		fmt.Sprintf("%9.0f delivered/s %6.2f of-bare %8.0f behind %8.2f cpu-s %6.0f MB", float64(all)/took.Seconds(), float64(all)/took.Seconds()/bare, float64(max(0, r.answered-atEnd)), cpu, rss))
	if all > r.answered {
		return fmt.Errorf("%d callbacks were answered, but %d arrived: duplicates hide losses", r.answered, all)
	}
	if all < r.answered {
		return fmt.Errorf("lost: %d callbacks were answered, %d arrived", r.answered, all)
	}
	return nil
}
