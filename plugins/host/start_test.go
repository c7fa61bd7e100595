//go:build linux

package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

// TestStartFaults: what goes wrong before a plugin has settings becomes one clear
// sentence, and leaves nothing behind.
func TestStartFaults(t *testing.T) {
	tests := map[string]struct {
		start, describe string
		change          func(*Options)
		want            []string
	}{
		"exits":         {start: "exit:3", want: []string{"exited with status 3 before its handshake", "last stderr line: faultsink: I was told to exit"}},
		"silent":        {start: "silent", want: []string{"printed no handshake within 1s of its start"}},
		"garbage":       {start: "garbage", want: []string{`printed "Hello! This is not a handshake." as its first line`, "must print nothing to standard output"}},
		"endless line":  {start: "endless", want: []string{"longer than 16 KiB"}},
		"closes stdout": {start: "close", want: []string{"closed its standard output before its handshake"}},
		"wrong version": {start: "version:7", want: []string{"speaks version 7 of the sink protocol, this callbackd speaks version 1"}},
		"wrong core":    {start: "core:9", want: []string{"version 9 of go-plugin's handshake"}},
		"not gRPC":      {start: "netrpc", want: []string{"does not serve gRPC"}},
		"no TLS":        {start: "no_cert", want: []string{"no TLS certificate in its handshake"}},
		"far address":   {start: "address:tcp|192.0.2.1:80", want: []string{"not a loopback address"}},
		"odd network":   {start: "address:udp|127.0.0.1:80", want: []string{`neither "unix" nor "tcp"`}},
		"long path":     {start: "address:unix|/" + strings.Repeat("p", 200), want: []string{"more than 107 bytes"}},
		"deaf":          {start: "deaf", want: []string{"did not accept the daemon's connection within 1s"}},
		"dead at once":  {start: "dead", want: []string{"exited with status 7"}},
		"nobody there":  {start: "address:tcp|127.0.0.1:1", want: []string{"certificate"}},
		"TLS unasked": {
			start: "address:tcp|127.0.0.1:1", want: []string{"certificate that was not asked for"},
			change: func(o *Options) { o.PlainTransport = true },
		},

		"describe hangs":     {describe: "hang", want: []string{"did not answer Describe within 1s"}},
		"describe exits":     {describe: "exit", want: []string{"it exited with status 3", "I was told to exit"}},
		"describe panics":    {describe: "panic", want: []string{"it exited with status 2", "last stderr line: panic: faultsink: I was told to panic"}},
		"describe fails":     {describe: "error", want: []string{"Describe failed: faultsink: I was told to fail"}},
		"describe is huge":   {describe: "huge", want: []string{"larger than max"}},
		"duplicate names":    {describe: "duplicate", want: []string{`attribute "only": the name is used twice`}},
		"unknown kind":       {describe: "kind", want: []string{`attribute "strange"`, "kind of value that is not known"}},
		"deep schema":        {describe: "deep", want: []string{"nested deeper"}},
		"too many":           {describe: "many", want: []string{"more than 1000 attributes"}},
		"not a name":         {describe: "name", want: []string{`its name "not a name\n"`}},
		"missing file":       {change: func(o *Options) { o.Command = []string{"/no/such/plugin"} }, want: []string{"plugin plugin does not start: there is no file /no/such/plugin"}},
		"not executable":     {change: command("text", 0o600), want: []string{"may not be executed"}},
		"not a program":      {change: command("text", 0o700), want: []string{"is not a program for this machine"}},
		"lacks interpreter":  {change: command("#!/no/such/interpreter\n", 0o700), want: []string{"the interpreter or loader"}},
		"a folder":           {change: func(o *Options) { o.Command = []string{os.TempDir()} }, want: []string{"may not be executed"}},
		"a shell script":     {change: command("#!/bin/sh\necho no plugin\nexit 4\n", 0o700), want: []string{`printed "no plugin" as its first line`}},
		"script exits":       {change: command("#!/bin/sh\necho sad >&2\nexit 4\n", 0o700), want: []string{"exited with status 4 before its handshake; last stderr line: sad"}},
		"killed":             {change: command("#!/bin/sh\nkill -9 $$\n", 0o700), want: []string{"was ended by signal 9 (killed) before its handshake"}},
		"wrong pin":          {change: func(o *Options) { o.SHA256 = strings.Repeat("ab", 32) }, want: []string{"sha256 is not the pinned one", "pinned is abab"}},
		"pinned script":      {change: pinnedScript, want: []string{"a script cannot be pinned"}},
		"relative command":   {change: func(o *Options) { o.Command = []string{"plugin"} }, want: []string{"not an absolute path"}},
		"malformed pin":      {change: func(o *Options) { o.SHA256 = "abc" }, want: []string{"not 64 hexadecimal digits"}},
		"malformed variable": {change: func(o *Options) { o.Env = []string{"TOKEN"} }, want: []string{`"TOKEN" is not NAME=value`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tmp, log := shortTemp(t), &logs{}
			opts := options(t, log, faultsink.EnvStart+"="+test.start, faultsink.EnvDescribe+"="+test.describe)
			opts.StartTimeout, opts.DescribeTimeout = 10*time.Second, 10*time.Second
			if slices.Contains([]string{"silent", "deaf"}, name) {
				opts.StartTimeout = time.Second
			}
			if name == "describe hangs" {
				opts.DescribeTimeout = time.Second
			}
			if test.change != nil {
				test.change(&opts)
			}
			err := Probe(within(t, 30*time.Second), opts, func(context.Context, *Probed) error {
				t.Error("the plugin was started")
				return nil
			})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error: %v\nlacks: %s", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("not one sentence: %q", err)
			}
			nothingLeft(t, tmp)
		})
	}
}

// command makes the plugin a file with a content.
func command(content string, mode os.FileMode) func(*Options) {
	return func(o *Options) {
		path := filepath.Join(os.Getenv("TMPDIR"), "plugin")
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			panic(err)
		}
		o.Command = []string{path}
	}
}

func pinnedScript(o *Options) {
	const script = "#!/bin/sh\nexit 0\n"
	command(script, 0o700)(o)
	sum := sha256.Sum256([]byte(script))
	o.SHA256 = hex.EncodeToString(sum[:])
}

// TestSlowStart: slow is not dead.
func TestSlowStart(t *testing.T) {
	f := run(t, nil, faultsink.EnvStart+"=slow:300ms")
	f.configure(nil)
}

// TestProbe: the plugin can be asked, and is gone afterwards.
func TestProbe(t *testing.T) {
	tmp := shortTemp(t)
	opts := options(t, &logs{})
	opts.Mask = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }
	err := Probe(within(t, 20*time.Second), opts, func(ctx context.Context, p *Probed) error {
		if p.Name != "fault" {
			t.Errorf("description: %+v", p.Description)
		}
		diags, err := p.Validate(ctx, schema.Object{"on_validate": "diagnostic", "message": "not hunter2"})
		want := schema.Diagnostic{Summary: "this setting is wrong", Detail: "not ***", Path: []any{"on_configure"}}
		if err != nil || len(diags) != 1 || diags[0].Summary != want.Summary || diags[0].Detail != want.Detail || !slices.Equal(diags[0].Path, want.Path) {
			t.Errorf("%+v %v", diags, err)
		}
		diags, err = p.Validate(ctx, schema.Object{})
		if err != nil || len(diags) != 0 {
			t.Errorf("%+v %v", diags, err)
		}
		return io.ErrUnexpectedEOF
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error: %v", err)
	}
	nothingLeft(t, tmp)
}

// TestChildIsEnclosed: the plugin gets what is on the allow-list and nothing
// else.
func TestChildIsEnclosed(t *testing.T) {
	dump := filepath.Join(t.TempDir(), "dump")
	for name, value := range map[string]string{
		"AWS_SECRET_ACCESS_KEY": "leaked", "PATH": "/leaked", "HOME": "/leaked",
		"HTTPS_PROXY": "http://proxy", "no_proxy": "intern", "TZ": "UTC", "SSL_CERT_FILE": "/ca.pem",
		"CALLBACKD_SINK": "leaked",
	} {
		t.Setenv(name, value)
	}
	f := run(t, func(o *Options) {
		o.Env = append(o.Env, "EXTRA=1", "TZ=Europe/Vienna", "CALLBACKD_SINK=overridden", faultsink.EnvDump+"="+dump)
	})
	f.configure(nil)
	text, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	for _, want := range []string{
		"env HTTPS_PROXY=http://proxy\n", "env no_proxy=intern\n", "env TZ=Europe/Vienna\n", "env SSL_CERT_FILE=/ca.pem\n",
		"env EXTRA=1\n", "env CALLBACKD_SINK=callbackd.sink.v1\n", "env CALLBACKD_SINK_PARENT_FD=3\n", "fd 0 /dev/null\n", "fd 3 pipe:",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q", want)
		}
	}
	for _, unwanted := range []string{"leaked", "overridden", "env TZ=UTC"} {
		if strings.Contains(got, unwanted) {
			t.Errorf("has %q", unwanted)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestPin: what runs is the verified copy, whatever happens to the file.
func TestPin(t *testing.T) {
	tmp := shortTemp(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tmp, "callbackd-sink-pinned")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)

	t.Run("runs", func(t *testing.T) {
		f := run(t, func(o *Options) {
			o.Command = []string{path}
			o.SHA256 = strings.ToUpper(hex.EncodeToString(sum[:]))
		})
		f.configure(nil)
		if !f.State().Pinned {
			t.Error("not pinned")
		}
		running, err := os.Readlink("/proc/" + strconv.Itoa(f.State().PID) + "/exe")
		if err != nil || running == path {
			t.Errorf("the file itself runs: %s %v", running, err)
		}
	})
	t.Run("swapped after the check", func(t *testing.T) {
		pin, err := pinProgram(path, hex.EncodeToString(sum[:]), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer pin.close()
		if err := os.WriteFile(path, []byte("evil"), 0o700); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(pin.path)
		if err != nil || sha256.Sum256(got) != sum {
			t.Errorf("the copy changed: %d bytes, %v", len(got), err)
		}
		if err := os.WriteFile(pin.path, []byte("evil"), 0o700); err == nil {
			t.Error("the copy can be written to")
		}
	})
	t.Run("copy in a folder", func(t *testing.T) {
		dir := t.TempDir()
		f, finish, err := copyToDir("program", dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(program); err != nil {
			t.Fatal(err)
		}
		pin, err := finish()
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(pin.path)
		if err != nil || info.Mode().Perm() != 0o500 {
			t.Errorf("%v %v", info, err)
		}
	})
}

// TestLongTempDir: a socket's path has to fit the kernel's limit.
func TestLongTempDir(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	f := run(t, nil)
	t.Setenv("TMPDIR", long)
	f.configure(nil)
}

// TestHandshakeReader: the one line go-plugin gets, in reads of any size.
func TestHandshakeReader(t *testing.T) {
	c := &child{first: make(chan firstLine, 1), exited: make(chan struct{})}
	c.first <- firstLine{text: "1|1|unix|/x|grpc|"}
	close(c.exited)
	got, err := io.ReadAll(c.Stdout())
	if err != nil || string(got) != "1|1|unix|/x|grpc|\n" {
		t.Errorf("%q %v", got, err)
	}
}
