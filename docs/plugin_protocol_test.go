package docs_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/callbackd/callbackd/plugins/host"
)

const protocolPage = "docs/plugin-protocol.md"

// TestPluginProtocolFacts: the page names the limits, times and names that the
// code has. Who changes one of these lines has to look at the page.
func TestPluginProtocolFacts(t *testing.T) {
	t.Parallel()
	page := strings.Join(strings.Fields(read(t, protocolPage)), " ")
	for _, fact := range []struct{ file, code, page string }{
		{"plugins/internal/wire/wire.go", `CookieKey       = "CALLBACKD_SINK"`, "| `CALLBACKD_SINK` | `callbackd.sink.v1`, the cookie."},
		{"plugins/internal/wire/wire.go", `CookieValue     = "callbackd.sink.v1"`, "`callbackd.sink.v1`, the cookie"},
		{"plugins/internal/wire/wire.go", `ParentFDEnv = "CALLBACKD_SINK_PARENT_FD"`, "| `CALLBACKD_SINK_PARENT_FD` | the number of the parent pipe's descriptor: `3` |"},
		{"plugins/internal/wire/wire.go", `LogLevelEnv = "CALLBACKD_SINK_LOG_LEVEL"`, "| `CALLBACKD_SINK_LOG_LEVEL` | the lowest level"},
		{"plugins/internal/wire/wire.go", `ProtocolVersion = 1`, "| 2 | `1`, the version of the sink protocol"},
		{"plugins/internal/wire/wire.go", `MaxMessageBytes = 64 << 20`, "Both ends take messages of 64 MiB"},
		{"plugins/internal/wire/wire.go", `maxDiagnostics = 100`, "100 are taken, errors first; of a text, 4 KiB."},
		{"plugins/internal/wire/wire.go", `maxTextBytes   = 4 << 10`, "of a text, 4 KiB."},
		{"plugins/schema/check.go", `MaxDepth = 8`, "8 levels deep"},
		{"plugins/schema/check.go", `MaxSettings = 1000`, "At most 1000 attributes and blocks"},
		{"plugins/schema/check.go", `MaxDocBytes = 16 << 10`, "with 16 KiB of doc each"},
		{"plugins/schema/check.go", `MaxTextBytes = 1 << 20`, "1 MiB of text in all"},
		{"plugins/schema/check.go", `MaxOneOf = 1000`, "1000 values in `one_of`"},
		{"plugins/schema/check.go", `MaxEscape = 256`, "256 in `escape`"},
		{"plugins/host/handshake.go", `coreProtocol = 1`, "| 1 | `1`, the version of go-plugin's handshake |"},
		{"plugins/host/handshake.go", `maxSocketPath = 107`, "the absolute path of the socket, at most 107 bytes"},
		{"plugins/host/handshake.go", `as its first line, which is not a plugin's handshake`, "`printed \"…\" as its first line, which is not a plugin's handshake`"},
		{"plugins/host/handshake.go", `has no TLS certificate in its handshake`, "`has no TLS certificate in its handshake`"},
		{"plugins/host/launch.go", `did not accept the daemon's connection`, "`did not accept the daemon's connection`"},
		{"plugins/host/launch.go", `shutdownTimeout = 2 * time.Second`, "2 s to end, then SIGTERM"},
		{"plugins/host/launch.go", `termGrace = time.Second`, "then SIGTERM, 1 s more, then SIGKILL"},
		{"plugins/host/child.go", `maxHandshake = 16 << 10`, "of at most 16 KiB"},
		{"plugins/host/options.go", `setDefault(&o.StartTimeout, 10*time.Second)`, "| handshake and connection | 10 s |"},
		{"plugins/host/options.go", `setDefault(&o.DescribeTimeout, 10*time.Second)`, "| `Describe` | 10 s |"},
		{"plugins/host/options.go", `setDefault(&o.ConfigureTimeout, 30*time.Second)`, "| `Configure` | 30 s |"},
		{"plugins/host/options.go", `setDefault(&o.CheckInterval, 10*time.Second)`, "| `Check` | 5 s, every 10 s |"},
		{"plugins/host/options.go", `setDefault(&o.CheckTimeout, 5*time.Second)`, "| `Check` | 5 s, every 10 s |"},
		{"plugins/host/options.go", `setDefault(&o.CheckMisses, 3)`, "after 3 in a row without an answer"},
		{"plugins/host/process_linux.go", `pluginNice = 10`, "on Linux 10 steps nicer than the daemon"},
		{"plugins/host/options.go", `setDefault(&o.MetricsInterval, 5*time.Second)`, "| `Metrics` | 2 s, every 5 s, first 5 s after the start |"},
		{"plugins/host/metrics.go", `metricsTimeout = 2 * time.Second`, "| `Metrics` | 2 s, every 5 s, first 5 s after the start |"},
		{"plugins/host/options.go", `setDefault(&o.CloseGrace, 10*time.Second)`, "| `Close` | 10 s"},
		{"core/sinks.go", `mostCloseGrace = 10 * time.Second`, "| `Close` | 10 s, less with a shorter `shutdown_grace` |"},
		{"plugins/host/options.go", `setDefault(&o.DeliverAllowance, time.Second)`, "for that long and 1 s more"},
		{"plugins/host/options.go", `setDefault(&o.MinBackoff, 100*time.Millisecond)`, "It is started again after 100 ms"},
		{"plugins/host/options.go", `setDefault(&o.MaxBackoff, time.Minute)`, "up to 1 min"},
		{"plugins/host/options.go", `setDefault(&o.HealthyAfter, time.Minute)`, "after a minute in which it ran well"},
		{"plugins/host/deliver.go", `DefaultTimeout = 30 * time.Second`, "by default 30 s"},
		{"plugins/host/calls.go", `maxAnswer = 4 << 20`, "other than `Deliver` may have 4 MiB"},
		{"plugins/host/calls.go", `maxInFlight    = 1 << 16`, "(`max_in_flight`, at most 65536)"},
		{"plugins/host/calls.go", `maxBatchEvents = 1 << 13`, "(`max_batch_events`, at most 8192)"},
		{"plugins/host/calls.go", `maxCalls       = 1 << 10`, "(`max_calls`, at most 1024)"},
		{"plugins/host/calls.go", `maxLinger      = time.Minute`, "(`linger`, at most 1 min)"},
		{"core/sinks.go", `defaultMaxInFlight    = 256`, "256 deliveries in flight"},
		{"core/sinks.go", `defaultMaxBatchEvents = 256`, "256 in a batch"},
		{"core/sinks.go", `defaultMaxBatchBytes  = 4 << 20`, "(4 MiB by default)"},
		{"core/sinks.go", `mostBatchBytes        = 32 << 20`, "has at most 32 MiB, and so have those of a batch"},
		{"plugins/host/text.go", `MaxMessageLen = 4 << 10`, "4 KiB of it are kept"},
		{"plugins/host/logline.go", `MaxLogMessageLen = 4 << 10`, "the text, of which 4 KiB are kept"},
		{"plugins/host/logline.go", `maxLogFields     = 32`, "at most 32 fields"},
		{"plugins/host/logline.go", `maxLogValueLen   = 1 << 10`, "1 KiB of each"},
		{"plugins/host/pluginlog.go", `maxRawLine = 16 << 10`, "Of a line 16 KiB are read."},
		{"plugins/host/pluginlog.go", `LogLinesPerSecond = 100`, "100 lines a second are shown"},
		{"plugins/host/pluginlog.go", `LogLinesBurst     = 500`, "500 at once"},
	} {
		if !strings.Contains(read(t, fact.file), fact.code) {
			t.Errorf("%s does not have %q any more: correct %s, then this line", fact.file, fact.code, protocolPage)
		}
		if !strings.Contains(page, fact.page) {
			t.Errorf("%s does not say %q, although %s has %q", protocolPage, fact.page, fact.file, fact.code)
		}
	}
}

// TestPluginEnvironment: the page lists each variable that a plugin gets, and its
// descriptors are what the page says.
func TestPluginEnvironment(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("looks at /proc")
	}
	table := ""
	for line := range strings.Lines(read(t, protocolPage)) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && regexp.MustCompile("^`[A-Za-z_]{2,}`").MatchString(name) {
			table += name + " "
		}
	}
	for what, plain := range map[string]bool{"TLS": false, "plain": true} {
		got, stdin := printedByPlugin(t, plain)
		always := []string{
			"CALLBACKD_SINK", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR", "CALLBACKD_SINK_PARENT_FD", "CALLBACKD_SINK_LOG_LEVEL",
			"PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "GOMEMLIMIT",
		}
		if !plain {
			always = append(always, "PLUGIN_CLIENT_CERT")
		}
		for name := range got {
			if name != "MINE" && !strings.Contains(table, "`"+name+"`") {
				t.Errorf("%s: a plugin gets %s, which the page does not list", what, name)
			}
		}
		for _, name := range always {
			if _, ok := got[name]; !ok || !strings.Contains(table, "`"+name+"`") {
				t.Errorf("%s: %s is not among what a plugin gets (%v), or on the page", what, name, slices.Sorted(maps.Keys(got)))
			}
		}
		if got["PLUGIN_PROTOCOL_VERSIONS"] != "1" || got["CALLBACKD_SINK_PARENT_FD"] != "3" || got["PLUGIN_MIN_PORT"] != "10000" || got["PLUGIN_MAX_PORT"] != "25000" ||
			got["CALLBACKD_SINK_LOG_LEVEL"] != "WARN" || got["MINE"] != "x" {
			t.Errorf("%s: %v", what, got)
		}
		if stdin != "/dev/null" {
			t.Errorf("%s: standard input is %q, or one of the descriptors 1 to 3 is no pipe", what, stdin)
		}
	}
}

// printedByPlugin runs a plugin that prints its environment, and what standard input is,
// instead of a handshake.
func printedByPlugin(t *testing.T, plain bool) (env map[string]string, stdin string) {
	t.Helper()
	var mu sync.Mutex
	env = make(map[string]string)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := host.Connect(ctx, host.Options{
		Name:           "x",
		Command:        []string{"/bin/sh", "-c", `[ -p /dev/fd/1 ] && [ -p /dev/fd/2 ] && [ -p /dev/fd/3 ] && echo "FDS=$(readlink /proc/$$/fd/0)" >&2; tr '\n\0' ' \n' </proc/$$/environ >&2`},
		Env:            []string{"MINE=x", "PLUGIN_MIN_PORT=1"},
		MaxMemory:      1 << 30,
		PlainTransport: plain,
		Logger:         slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}, host.Observer{Printed: func(line host.Line) {
		mu.Lock()
		defer mu.Unlock()
		name, value, _ := strings.Cut(line.Text, "=")
		env[name] = value
	}})
	if err == nil || !strings.Contains(err.Error(), "before its handshake") {
		t.Fatalf("the plugin that is none: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	stdin = env["FDS"]
	delete(env, "FDS")
	return maps.Clone(env), stdin
}

// TestPluginProtocolBytes: the hex dumps are the messages in text below them.
func TestPluginProtocolBytes(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(read(t, protocolPage), "\n## A DeliverRequest, byte by byte\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := fencePattern.FindAllString(section, -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks were found, want 2 dumps with their texts", len(blocks))
	}
	for i, name := range []string{"DeliverRequest", "DeliverResponse"} {
		dump, text := unfence(blocks[2*i]), unfence(blocks[2*i+1])
		var data []byte
		for line := range strings.Lines(dump) {
			data = append(data, unhex(t, strings.ReplaceAll(line[6:min(len(line), 53)], " ", ""))...)
		}
		var again strings.Builder
		for at := 0; at < len(data); at += 16 {
			row := data[at:min(at+16, len(data))]
			shown := strings.Map(func(r rune) rune {
				if r < ' ' || r > '~' {
					return '.'
				}
				return r
			}, latin1(row))
			fmt.Fprintf(&again, "%04x  %-47x  %s\n", at, spaced(row), shown)
		}
		if again.String() != dump {
			t.Errorf("%s: the dump is not written as it should be:\n%s", name, again.String())
		}
		got := newMessage(t, name)
		want := got.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(data, got); err != nil {
			t.Fatal(err)
		}
		if err := prototext.Unmarshal([]byte(text), want); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s: the bytes are\n%v\nthe text is\n%v", name, got, want)
		}
	}
}

func unfence(block string) string {
	_, block, _ = strings.Cut(block, "\n")
	return strings.TrimSuffix(block, "```")
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// latin1 is one character for each byte.
func latin1(data []byte) string {
	out := make([]rune, len(data))
	for i, b := range data {
		out[i] = rune(b)
	}
	return string(out)
}

// spaced prints as hex with spaces, in the width that is asked for.
type spaced []byte

// Format implements fmt.Formatter.
func (s spaced) Format(state fmt.State, _ rune) {
	width, _ := state.Width()
	_, _ = fmt.Fprintf(state, "%-*s", width, fmt.Sprintf("% x", []byte(s)))
}

// newMessage makes a message of the protocol from its published definition.
func newMessage(t *testing.T, name string) proto.Message {
	t.Helper()
	data, err := os.ReadFile("../plugins/proto/baseline.binpb")
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := files.FindDescriptorByName(protoreflect.FullName("callbackd.sink.v1." + name))
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(descriptor.(protoreflect.MessageDescriptor))
}
