package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

func startRules() []Rule {
	return []Rule{
		{
			ID: "handshake", gate: true, check: checkHandshake,
			Text:   "Started by the daemon, the plugin prints the handshake of go-plugin, version 1 of the sink protocol over gRPC, as its first line and in time.",
			Advice: "Print nothing to standard output before the handshake, and do nothing slow before it. docs/plugin-protocol.md tells what the line consists of; a plugin without mutual TLS is checked with --plain.",
		},
		{
			ID: "by-hand", check: checkByHand,
			Text:   "Started by hand, without the cookie in its environment, the program says what it is and exits with a status that is not 0.",
			Advice: "Look at CALLBACKD_SINK first: where it is not \"callbackd.sink.v1\", print that this is a sink plugin of callbackd, and exit with 1 or 2.",
		},
		{
			ID: "describe", gate: true, check: checkDescribe,
			Text:   "Describe answers quickly with a name and a version.",
			Advice: "Answer Describe from what is known when the plugin is built: connect to nothing and read no files for it.",
		},
		{
			ID: "schema", gate: true, check: checkSchema,
			Text:   "The schema is sound: names, kinds, defaults and bounds are such that a configuration can be checked against it.",
			Advice: "See the rules at Schema and its parts in sink.proto.",
		},
		{
			ID: "describe-again", check: checkDescribeAgain,
			Text:   "Describe says the same each time, also in the next process, and changes nothing.",
			Advice: "Leave out of the description what differs from call to call, from process to process and from machine to machine: the daemon checks the configuration against it.",
		},
	}
}

func checkHandshake(ctx context.Context, s *suite) error {
	_, err := s.start(ctx)
	return err
}

func checkByHand(ctx context.Context, s *suite) error {
	call, cancel := s.call(ctx)
	defer cancel()
	cmd := exec.CommandContext(call, s.opts.Command[0], s.opts.Command[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, s.opts.Env...)
	cmd.WaitDelay = time.Second
	alone(cmd)
	printed := &bounded{room: 64 << 10}
	cmd.Stdout, cmd.Stderr = printed, printed
	const expected = "it says what it is and exits with a status that is not 0"
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case call.Err() != nil:
		return wrong(expected, "it still runs after %s", s.opts.Timeout)
	case err == nil:
		return wrong(expected, "it exits with status 0")
	case !errors.As(err, &exit):
		return wrong(expected, "it cannot be run: %s", err)
	case !exit.Exited():
		return wrong(expected, "it is ended by a signal: %s", exit)
	case len(bytes.TrimSpace(printed.Bytes())) == 0:
		return wrong(expected, "it exits with status %d and prints nothing", exit.ExitCode())
	}
	return nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	bytes.Buffer
	room int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.room)
	b.room -= n
	b.Buffer.Write(p[:n])
	return len(p), nil
}

func checkDescribe(ctx context.Context, s *suite) error {
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	about, err := c.describe(ctx)
	switch {
	case err != nil:
		return err
	case !schema.ValidName(about.GetName()):
		return wrong("a name that a sink type may have: a letter or _, then at most 62 letters, digits, _ and -", "the name is %q", cut(about.GetName()))
	case strings.TrimSpace(about.GetVersion()) == "":
		return wrong("a version of the plugin's own, such as \"1.2.0\"", "the version is empty")
	}
	return nil
}

func checkSchema(ctx context.Context, s *suite) error {
	_, err := s.description(ctx)
	return err
}

func checkDescribeAgain(ctx context.Context, s *suite) error {
	before, err := s.traces()
	if err != nil {
		return err
	}
	var first *sinkpb.DescribeResponse
	for process := range 2 {
		c, err := s.start(ctx)
		if err != nil {
			return err
		}
		for call := range 2 {
			about, err := c.describe(ctx)
			if err != nil {
				return err
			}
			if first == nil {
				first = about
			}
			if !proto.Equal(first, about) {
				return wrong("the same description each time", "answer %d of process %d differs from the first one: %s", call+1, process+1, difference(first, about))
			}
		}
		c.conn.Stop(ctx, false)
	}
	return s.noTraces(before, "Describe")
}

func (c *session) describe(ctx context.Context) (*sinkpb.DescribeResponse, error) {
	call, cancel := c.suite.call(ctx)
	defer cancel()
	about, err := c.rpc.Describe(call, &sinkpb.DescribeRequest{DaemonVersion: c.suite.opts.DaemonVersion})
	if err != nil {
		return nil, c.explain("Describe", err)
	}
	return about, nil
}

func difference(a, b *sinkpb.DescribeResponse) string {
	switch {
	case a.GetName() != b.GetName():
		return fmt.Sprintf("the name was %q and is %q", cut(a.GetName()), cut(b.GetName()))
	case a.GetVersion() != b.GetVersion():
		return fmt.Sprintf("the version was %q and is %q", cut(a.GetVersion()), cut(b.GetVersion()))
	case a.GetDoc() != b.GetDoc():
		return "the doc is another one"
	case !proto.Equal(a.GetSchema(), b.GetSchema()):
		return "the schema is another one"
	}
	return "the capabilities are others"
}

// traces are what a sink may have left outside its process.
type traces struct {
	files    map[string]string
	requests int
}

const maxTraces = 10_000

func (s *suite) traces() (traces, error) {
	out := traces{files: map[string]string{}}
	if s.opts.Receiver != nil {
		out.requests = s.opts.Receiver.counts().seen
	}
	if s.opts.Dir == "" {
		return out, nil
	}
	err := filepath.WalkDir(s.opts.Dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if len(out.files) == maxTraces {
			return filepath.SkipAll
		}
		info, err := entry.Info()
		if err == nil && !entry.IsDir() {
			out.files[path] = fmt.Sprint(info.Size(), info.ModTime(), info.Mode())
		} else if err == nil {
			out.files[path] = "folder"
		}
		return nil // a file that is gone by now is no trace
	})
	if err != nil {
		return traces{}, fmt.Errorf("looking for traces: %w", err)
	}
	return out, nil
}

// noTraces tells what has changed since before.
func (s *suite) noTraces(before traces, during string) error {
	after, err := s.traces()
	if err != nil {
		return err
	}
	expected := during + " has no side effects"
	if after.requests > before.requests {
		return wrong(expected, "the receiver had %d requests during it", after.requests-before.requests)
	}
	if maps.Equal(before.files, after.files) {
		return nil
	}
	for path, now := range after.files {
		if was, ok := before.files[path]; !ok {
			return wrong(expected, "%s was made during it", path)
		} else if was != now {
			return wrong(expected, "%s was changed during it", path)
		}
	}
	return wrong(expected, "files were removed during it")
}
