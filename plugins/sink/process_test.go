package sink

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// actAs names the environment variable that turns the test binary into a plugin.
const actAs = "SINK_TEST_ACT_AS"

type processConfig struct {
	Dir   Path   `hcl:"dir" doc:"where to leave traces"`
	Token Secret `hcl:"token,optional" doc:"a secret"`
	Mode  string `hcl:"mode" default:"fast" oneof:"fast|slow" doc:"how to work"`
	Route []struct {
		To string `hcl:"to" doc:"where to"`
	} `hcl:"route,block" doc:"a way"`
}

// runAsPlugin is the main of the test binary as a plugin.
func runAsPlugin() bool {
	switch os.Getenv(actAs) {
	case "":
		return false
	case "sink":
		Serve(Info{Name: "traces", Version: "1.2.3", Doc: "Leaves traces.", MaxInFlight: 4}, openProcess)
		_ = os.WriteFile(os.Getenv("SINK_TEST_RETURNED"), nil, 0o600)
	case "bad":
		Serve(Info{Name: "bad"}, func(context.Context, struct{ Missing int }) (Sink, error) { return nil, nil })
	}
	return true
}

func openProcess(_ context.Context, cfg processConfig) (Sink, error) {
	if cfg.Token.Reveal() == "wrong" {
		return nil, Invalid("token", "the token is wrong", "get another")
	}
	leave := func(name string) error { return os.WriteFile(filepath.Join(string(cfg.Dir), name), nil, 0o600) }
	return &funcSink{
		deliver: func(ctx context.Context, ev Event) error {
			switch ev.Type {
			case "noise":
				for range 5000 {
					fmt.Println(strings.Repeat("noise ", 20))
				}
				log.Print("by package log")
				slog.Warn("by slog", "token", cfg.Token, "@message", "mine", "msg", "mine too", slog.Group("g", "level", 7))
			case "panic":
				panic("kaboom")
			case "start":
				offspring := exec.CommandContext(context.Background(), "/bin/sleep", "600")
				if err := offspring.Start(); err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(string(cfg.Dir), "offspring"), fmt.Append(nil, offspring.Process.Pid), 0o600)
			case "hang":
				_ = leave("hanging")
				<-ctx.Done()
				return ctx.Err()
			}
			return leave(ev.DeliveryID)
		},
		close: func(context.Context) error { return leave("closed") },
	}, nil
}

// clientPlugin is the host's side.
type clientPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

func (clientPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return errors.New("not here") }

func (clientPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return sinkpb.NewSinkServiceClient(conn), nil
}

type process struct {
	sinkpb.SinkServiceClient
	client *plugin.Client
	cmd    *exec.Cmd
	parent *os.File // its closing is the daemon's end
	stderr *syncBuffer
	dir    string
}

// startProcess starts the test binary as a plugin; change changes how.
func startProcess(t *testing.T, change ...func(*exec.Cmd)) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{parent: writer, stderr: &syncBuffer{}, dir: t.TempDir()}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), actAs+"=sink", wire.ParentFDEnv+"=3", "SINK_TEST_RETURNED="+filepath.Join(p.dir, "returned"))
	p.cmd.ExtraFiles = []*os.File{reader}
	for _, c := range change {
		c(p.cmd)
	}
	p.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: wire.ProtocolVersion, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		Plugins:          plugin.PluginSet{wire.PluginName: clientPlugin{}},
		Cmd:              p.cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		Stderr:           p.stderr,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
	})
	t.Cleanup(func() {
		p.client.Kill()
		_ = writer.Close()
	})
	line, err := p.client.Client()
	_ = reader.Close()
	if err != nil {
		t.Fatal(err)
	}
	dispensed, err := line.Dispense(wire.PluginName)
	if err != nil {
		t.Fatal(err)
	}
	p.SinkServiceClient = dispensed.(sinkpb.SinkServiceClient)
	return p
}

func (p *process) has(name string) bool {
	_, err := os.Stat(filepath.Join(p.dir, name))
	return err == nil
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in 30 s", what)
		}
	}
}

func TestProcessLife(t *testing.T) {
	p := startProcess(t)
	about, err := p.Describe(t.Context(), &sinkpb.DescribeRequest{DaemonVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if about.GetName() != "traces" || about.GetVersion() != "1.2.3" || about.GetDoc() != "Leaves traces." || about.GetCapabilities().GetMaxInFlight() != 4 {
		t.Error(about)
	}
	if s, err := wire.SchemaFromProto(about.GetSchema()); err != nil || len(s.Attributes) != 3 || len(s.Blocks) != 1 {
		t.Errorf("%v, %v", s, err)
	}

	settings, _ := wire.ObjectToProto(schema.Object{"dir": p.dir, "token": "wrong", "mode": "fast"})
	res, err := p.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: testRef, Settings: settings})
	if err != nil || len(res.GetDiagnostics()) != 1 || res.GetDiagnostics()[0].GetPath()[0].GetName() != "token" {
		t.Fatalf("%v, %v", res, err)
	}
	configure(t, p, schema.Object{"dir": p.dir, "token": "hunter2", "mode": "fast"})

	results := deliverAll(t, p, request(10*time.Second, deliveries("a", "noise", "panic", "b")))
	if results["panic"].GetOutcome() != sinkpb.Outcome_OUTCOME_RETRY || !p.has("a") || !p.has("b") || !p.has("noise") {
		t.Error(results)
	}
	if _, err := p.Close(t.Context(), &sinkpb.CloseRequest{Sink: testRef}); err != nil || !p.has("closed") {
		t.Errorf("Close: %v", err)
	}
	p.client.Kill()
	if !p.client.Exited() || !p.has("returned") {
		t.Error("Serve did not return")
	}
	checkLog(t, p.stderr.String())
}

// checkLog tells what is wrong with the lines that a host reads on the plugin's
// standard error.
func checkLog(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "hunter2") {
		t.Error("the secret is in the log")
	}
	messages := make(map[string]map[string]any)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		var line map[string]any
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Errorf("%v: %s", err, lines.Text())
			continue
		}
		stamp, _ := line["@timestamp"].(string)
		if _, err := time.Parse(timestampFormat, stamp); err != nil {
			t.Error(err)
		}
		message, _ := line["@message"].(string)
		messages[message] = line
	}
	if line := messages["by package log"]; line["@level"] != "info" {
		t.Errorf("package log: %v", line)
	}
	if line := messages["by slog"]; line["@level"] != "warn" || line["token"] != "(sensitive)" || line["message"] != "mine" ||
		line["msg"] != "mine too" || line["g"].(map[string]any)["level"] != 7.0 {
		t.Errorf("slog: %v", line)
	}
	if line := messages["the sink panicked"]; line["@level"] != "error" || line["panic"] != "kaboom" || !strings.Contains(line["stack"].(string), "openProcess") {
		t.Errorf("panic: %v", line)
	}
}

func TestProcessEndsWithItsDaemon(t *testing.T) {
	ends := map[string]func(p *process) error{"daemon gone": func(p *process) error { return p.parent.Close() }}
	if runtime.GOOS != "windows" {
		ends["SIGTERM"] = func(p *process) error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t)
			configure(t, p, schema.Object{"dir": p.dir})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := p.Deliver(ctx, request(time.Hour, deliveries("hang")))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the delivery is in work", func() bool { return p.has("hanging") })
			if err := p.cmd.Process.Signal(os.Interrupt); err != nil { // is ignored
				t.Error(err)
			}
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			// The delivery in work gets its end and its result, then the sink is closed.
			if res, err := stream.Recv(); err != nil || res.GetResults()[0].GetOutcome() != sinkpb.Outcome_OUTCOME_RETRY {
				t.Errorf("%v, %v", res, err)
			}
			eventually(t, "the process ends", p.client.Exited)
			if !p.has("closed") || !p.has("returned") {
				t.Errorf("closed %v, returned %v", p.has("closed"), p.has("returned"))
			}
		})
	}
}

func TestStartedByHand(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, as string
		args     []string
		code     int
		stdout   string
		stderr   []string
	}{
		{"alone", "sink", nil, 2, "", []string{"traces 1.2.3: a sink plugin of callbackd", "Leaves traces.", "callbackd-sink-traces", "dir", "path, required", "Where to leave traces.", `text, default "fast"`, `One of: "fast", "slow".`, "route { … }", "any number of blocks"}},
		{"version", "sink", []string{"--version"}, 0, "traces 1.2.3\n", nil},
		{"bad struct", "bad", nil, 1, "", []string{"the sink plugin bad is not built right: ", `struct { Missing int }.Missing: the tag hcl:"NAME" is missing`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(exe, test.args...)
			cmd.Env = append(os.Environ(), actAs+"="+test.as)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if stdout.String() != test.stdout || (len(test.stderr) == 0) != (stderr.Len() == 0) {
				t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
			}
			for _, part := range test.stderr {
				if !strings.Contains(stderr.String(), part) {
					t.Errorf("%q is not in %s", part, &stderr)
				}
			}
		})
	}
}

// TestDependencies keeps the SDK small: what a sink links it pays for.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
		for _, bad := range []string{"callbackd/core", "callbackd/sinks", "callbackd/plugins/host", "spf13/cobra", "cockroachdb/", "hashicorp/hcl", "prometheus/", "go-cty"} {
			if strings.Contains(path, bad) {
				t.Errorf("the SDK imports %s", path)
			}
		}
	}
}
