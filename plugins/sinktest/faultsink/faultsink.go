// Package faultsink is a sink plugin whose faults are configuration: it panics,
// hangs, exits, floods and lies as it is told to, so that tests can show that the
// daemon survives each of it. It stands on bare go-plugin and the protocol's
// messages, because the SDK would not let it break the rules.
//
// Faults of a running sink are settings of its config block; faults before it has
// settings are environment variables, see Env. Without any it is a well-behaved
// sink that takes every delivery.
package faultsink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// The environment variables that make faults before there are settings.
const (
	// EnvStart: "exit:N" (with a last word on stderr), "silent" (never a
	// handshake), "garbage", "endless" (a first line without end), "close"
	// (standard output is closed), "version:N", "core:N", "netrpc", "no_cert",
	// "address:NETWORK|ADDRESS", "slow:DURATION", "deaf" (a handshake, and then
	// nobody accepts), "dead" (a handshake, and then an exit).
	EnvStart = "FAULTSINK_START"
	// EnvDescribe: "hang", "exit", "panic", "error", "huge", "duplicate", "kind",
	// "deep", "many", "name", "other" (a schema that differs from the usual one).
	EnvDescribe = "FAULTSINK_DESCRIBE"
	// EnvStderr: "odd" (lines that break parsers), "flood:BYTES", "line:BYTES" (one
	// line, which never ends), "secret:TEXT".
	EnvStderr = "FAULTSINK_STDERR"
	// EnvStdout: "noise:BYTES" (one line, printed past go-plugin at each Describe).
	EnvStdout = "FAULTSINK_STDOUT"
	// EnvParent: which sign of the daemon's end is heeded: "signal" (only the
	// kernel's), "pipe" (only the inherited pipe), "none"; else both.
	EnvParent = "FAULTSINK_PARENT"
	// EnvGrandchild: a file for the process id of a grandchild that sleeps for
	// ten minutes and holds the plugin's pipes; after "quiet:" of one that does not
	// hold them, after "away:" of one that has left the process group with them.
	EnvGrandchild = "FAULTSINK_GRANDCHILD"
	// EnvOnce: a file. While it does not exist the start and Describe faults
	// happen, and it is made: later starts are well-behaved.
	EnvOnce = "FAULTSINK_ONCE"
	// EnvDump: a file for the environment, the open file descriptors, and what
	// standard input is.
	EnvDump = "FAULTSINK_DUMP"
	// EnvTerm: "ignore" makes SIGTERM without effect.
	EnvTerm = "FAULTSINK_TERM"
)

// Main is the program. It does not return.
func Main() {
	breaks := os.Getenv(EnvContract)
	byHand(breaks)
	if breaks == "daemon-gone" {
		heedParent("none")
	} else {
		heedParent(os.Getenv(EnvParent))
	}
	heedTerm(os.Getenv(EnvTerm))
	if path := os.Getenv(EnvDump); path != "" {
		dump(path)
	}
	if path := os.Getenv(EnvGrandchild); path != "" {
		grandchild(path)
	}
	rawStdout, rawStderr := os.Stdout, os.Stderr // before go-plugin takes them
	start, describe := os.Getenv(EnvStart), os.Getenv(EnvDescribe)
	if path := os.Getenv(EnvOnce); path != "" && !firstTime(path) {
		start, describe = "", ""
	}
	startFault(start)

	var service sinkpb.SinkServiceServer = &server{describe: describe, rawStdout: rawStdout, rawStderr: rawStderr}
	ended, largest := func() {}, wire.MaxMessageBytes
	if breaks != "" {
		keeper := &keeper{breaks: breaks, rawStdout: rawStdout, stderr: rawStderr}
		keeper.heedTermInOrder()
		service, ended = keeper, keeper.ended
		if keeper.is("largest-body") {
			largest = 4 << 20
		}
	}
	noise(rawStderr)
	version := uint(wire.ProtocolVersion)
	if n, ok := argument(start, "version"); ok {
		version = uint(number(n))
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion: version, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue,
		},
		Plugins: plugin.PluginSet{wire.PluginName: &grpcPlugin{server: service}},
		Logger:  hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: rawStderr, JSONFormat: true}),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts,
				grpc.MaxRecvMsgSize(largest), grpc.MaxSendMsgSize(2*wire.MaxMessageBytes),
				grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(8<<20),
				grpc.ReadBufferSize(128<<10), grpc.WriteBufferSize(128<<10),
			)...)
		},
	})
	ended()
	os.Exit(0)
}

// grpcPlugin serves server over go-plugin.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	server sinkpb.SinkServiceServer
}

func (p *grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	sinkpb.RegisterSinkServiceServer(s, p.server)
	return nil
}

func (*grpcPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is the server's side")
}

// startFault does what goes wrong before the handshake, or returns.
func startFault(fault string) {
	name, arg, _ := strings.Cut(fault, ":")
	switch name {
	case "exit":
		fmt.Fprintln(os.Stderr, "faultsink: I was told to exit")
		os.Exit(number(arg))
	case "silent":
		select {}
	case "garbage":
		fmt.Println("Hello! This is not a handshake.")
		select {}
	case "endless":
		for {
			fmt.Print(strings.Repeat("x", 4096))
		}
	case "close":
		_ = os.Stdout.Close()
		select {}
	case "core":
		fmt.Printf("%s|1|unix|/nowhere|grpc|\n", arg)
		select {}
	case "netrpc":
		fmt.Println("1|1|unix|/nowhere|netrpc|")
		select {}
	case "no_cert":
		fmt.Println("1|1|unix|/nowhere|grpc|")
		select {}
	case "address":
		fmt.Printf("1|1|%s|grpc|%s\n", arg, strings.Repeat("A", 100))
		select {}
	case "slow":
		time.Sleep(duration(arg))
	case "deaf", "dead":
		unconnected(name == "dead")
	}
}

// argument returns what follows "name:" in a fault.
func argument(fault, name string) (string, bool) {
	return strings.CutPrefix(fault, name+":")
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fmt.Fprintf(os.Stderr, "faultsink: %q is not a number\n", s)
		os.Exit(99)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		fmt.Fprintf(os.Stderr, "faultsink: %q is not a duration\n", s)
		os.Exit(99)
	}
	return d
}

// firstTime tells whether the file at path did not exist, and makes it.
func firstTime(path string) bool {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	return f.Close() == nil
}
