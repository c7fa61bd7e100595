package docs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	tutorialPage = "docs/writing-a-sink.md"
	tutorialSink = "docs/examples/sink-syslog"
	// tutorialHome is the reader's home on the page.
	tutorialHome = "/home/me"
	// tutorialPatience is how long one command may take, and a line may be awaited: a
	// machine that has built nothing yet needs more than a minute for a sink.
	tutorialPatience = 4 * time.Minute
)

// block is a fenced block of the page. What it is follows from the line before it:
//
//	… `FILE`:       the whole content of a file
//	… from `FILE`:  an excerpt of that file, as it is then
//
// and from its language: console is what is typed behind "$ ", and what comes of it.
// "console 2" is a terminal of its own, in which a program goes on running: later
// blocks show what it printed since, and ^C. "…" in a line of its own stands for any
// lines. sh is what prepares the machine, which this test does in its own way.
type block struct {
	line     int
	language string
	terminal string
	file     string
	excerpt  bool
	text     string
}

var fileLine = regexp.MustCompile("(from )?`([A-Za-z0-9_./-]+)`:$")

func tutorialBlocks(t *testing.T) []block {
	t.Helper()
	var out []block
	var current *block
	before := ""
	for i, line := range strings.Split(read(t, tutorialPage), "\n") {
		switch {
		case current == nil && strings.HasPrefix(line, "```"):
			language, terminal, _ := strings.Cut(strings.TrimPrefix(line, "```"), " ")
			current = &block{line: i + 1, language: language, terminal: terminal}
			if m := fileLine.FindStringSubmatch(before); m != nil {
				current.file, current.excerpt = m[2], m[1] != ""
			}
		case current != nil && line == "```":
			out = append(out, *current)
			current, before = nil, ""
		case current != nil:
			current.text += line + "\n"
		case line != "":
			before = line
		}
	}
	if current != nil {
		t.Fatalf("%s: the block at line %d does not end", tutorialPage, current.line)
	}
	if len(out) < 20 {
		t.Fatalf("only %d blocks were found in %s", len(out), tutorialPage)
	}
	return out
}

// TestTutorialSink: the finished sink is what the tutorial ends with.
func TestTutorialSink(t *testing.T) {
	t.Parallel()
	final := map[string]string{}
	for _, b := range tutorialBlocks(t) {
		if b.file != "" && !b.excerpt && b.file != "pinned.hcl" { // that holds the sum of one build
			final[b.file] = b.text
		}
	}
	found := 0
	err := fs.WalkDir(os.DirFS(filepath.Join(root, tutorialSink)), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, ok := final[name]
		switch {
		case name == ".gitignore": // stays as plugin new writes it
			ignored, err := os.ReadFile(filepath.Join(root, "plugins/scaffold/go/.gitignore.tmpl"))
			if err != nil {
				return err
			}
			text = strings.ReplaceAll(string(ignored), "{{.Name}}", "syslog")
		case !ok:
			if !ignoredThere(name) {
				t.Errorf("%s/%s is not in the tutorial", tutorialSink, name)
			}
			return nil
		}
		found++
		if text != read(t, tutorialSink+"/"+name) {
			t.Errorf("%s/%s is not what the tutorial ends with", tutorialSink, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(final)+1 {
		t.Errorf("%d files of the tutorial are in %s, it has %d and .gitignore", found, tutorialSink, len(final))
	}
}

// ignoredThere tells whether a file is one that git ignores, from trying the sink.
func ignoredThere(name string) bool {
	return name == "callbackd-sink-syslog" || strings.HasPrefix(name, "data/")
}

// TestTutorial does what the page says, from its first line to its last, and
// compares what comes of it.
func TestTutorial(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	for _, b := range tutorialBlocks(t) {
		if t.Failed() {
			return // what follows builds on it
		}
		where := fmt.Sprintf("%s:%d", tutorialPage, b.line)
		t.Log(where, b.language, b.terminal, b.file)
		switch {
		case b.language == "console" && b.terminal == "":
			r.shell(where, b.text)
		case b.language == "console":
			r.watch(where, b.terminal, b.text)
		case b.excerpt:
			if got := r.readFile(b.file); !strings.Contains(r.plain(got), r.plain(b.text)) {
				t.Errorf("%s: this is not in %s:\n%s", where, b.file, got)
			}
		case b.file != "":
			r.writeFile(b.file, b.text)
		case b.language == "sh" || b.language == "hcl" || b.language == "text": // hcl: core/config reads it
		default:
			t.Errorf("%s: a block of %s that is neither a file nor a command", where, b.language)
		}
	}
}

// reader is somebody who does what the page says.
type reader struct {
	t         *testing.T
	home      string
	dir       string // where the shell is
	env       []string
	ports     *strings.Replacer // the page's for those that are free here
	back      *strings.Replacer
	sums      map[string]string // checksums on the page, and what they are here
	terminals map[string]*terminal
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, home: t.TempDir(), sums: map[string]string{}, terminals: map[string]*terminal{}}
	r.dir = r.home
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(checkout, filepath.Join(r.home, "callbackd")); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(r.home, "bin")
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !regexp.MustCompile(`^(MAKE.*|MFLAGS|NAME|VERSION|GOFLAGS|CALLBACKD_.*|IN_SECRET|PATH)$`).MatchString(name) {
			r.env = append(r.env, v)
		}
	}
	r.env = append(r.env, "PATH="+bin+":"+os.Getenv("PATH"), "GOPROXY=off", "GOWORK=off", "GOFLAGS=-mod=readonly",
		"CALLBACKD_CACHE_DIR="+filepath.Join(r.home, "cache"), "no_proxy=127.0.0.1")
	build := [][2]string{{"callbackd", "../cmd/callbackd"}}
	if _, err := exec.LookPath("curl"); err != nil {
		build = append(build, [2]string{"curl", "./testdata/curl"})
	}
	for _, b := range build {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, b[0]), b[1]).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", b[0], err, out)
		}
	}
	there, here := []string{}, []string{}
	for _, port := range []string{":5140", ":8080", ":8081"} {
		free := freePort(t, here)
		there, here = append(there, port, free), append(here, free, port)
	}
	r.ports, r.back = strings.NewReplacer(there...), strings.NewReplacer(here...)
	t.Cleanup(func() {
		for _, term := range r.terminals {
			term.end()
		}
	})
	return r
}

// freePort finds one of four digits, so that what points at columns is the same.
func freePort(t *testing.T, but []string) string {
	t.Helper()
	for range 100 {
		port := fmt.Sprintf(":%d", 2000+rand.IntN(8000))
		if l, err := net.Listen("tcp", "127.0.0.1"+port); err == nil {
			_ = l.Close()
			if !slices.Contains(but, port) {
				return port
			}
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (r *reader) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

func (r *reader) readFile(name string) string {
	r.t.Helper()
	content, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(content)
}

func (r *reader) writeFile(name, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o750); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(r.here(text)), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// here is what is typed on this machine for what the page shows.
func (r *reader) here(text string) string {
	for shown, sum := range r.sums {
		text = strings.ReplaceAll(text, shown, sum)
	}
	return r.ports.Replace(text)
}

var (
	sumPattern = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	// What is different each time.
	various = []struct {
		pattern *regexp.Regexp
		shown   string
	}{
		{sumPattern, "SUM"},
		{regexp.MustCompile(`\b01[0-9A-HJKMNP-TV-Z]{24}`), "ULID"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
		{regexp.MustCompile(`(TIME) \S+ (callbackd -)`), "$1 HOST $2"},
		{regexp.MustCompile(`\bpid[= ]\d+`), "PID"},
		{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s)\b`), "DURATION"},
		{regexp.MustCompile(`\b\d+ B\b`), "BYTES"},
		{regexp.MustCompile(`127\.0\.0\.1:\d+->`), "PEER->"},
		{regexp.MustCompile(`(?m)^callbackd \S+(, up| takes)`), "callbackd VERSION$1"},
		{regexp.MustCompile(` {2,}`), "  "},
		{regexp.MustCompile(`(?m) +$`), ""},
	}
)

// plain is a text without what is different each time.
func (r *reader) plain(text string) string {
	text = r.back.Replace(strings.ReplaceAll(text, r.home, tutorialHome))
	for _, v := range various {
		text = v.pattern.ReplaceAllString(text, v.shown)
	}
	return text
}

// shell runs the commands of a block, one after the other.
func (r *reader) shell(where, text string) {
	r.t.Helper()
	if !strings.HasPrefix(text, "$ ") {
		r.t.Errorf("%s: there is no command", where)
		return
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(text, "$ "), "\n$ ") {
		command, want, _ := strings.Cut(part, "\n")
		for strings.HasSuffix(command, "\\") { // goes on in the next line
			var more string
			more, want, _ = strings.Cut(want, "\n")
			command = strings.TrimSuffix(command, "\\") + strings.TrimLeft(more, " ")
		}
		if folder, ok := strings.CutPrefix(command, "cd "); ok {
			r.dir = r.path(folder)
			continue
		}
		// What tells how things are is asked until they are so.
		asks := regexp.MustCompile(`^(callbackd status|curl -s )`).MatchString(command)
		until := time.Now().Add(15 * time.Second)
		got, err := r.run(command)
		for asks && !r.same(want, got) && time.Now().Before(until) {
			time.Sleep(100 * time.Millisecond)
			got, err = r.run(command)
		}
		refused := regexp.MustCompile(`(?m)^error: `).MatchString(want)
		if !r.same(want, got) || (err != nil) != refused {
			r.t.Errorf("%s: $ %s\n%s%v\n\nthe page has:\n%s", where, command, r.back.Replace(got), err, want)
			return
		}
		r.learn(want, got)
	}
}

func (r *reader) run(command string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), tutorialPatience)
	defer cancel()
	cmd := r.command(ctx, command)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *reader) command(ctx context.Context, command string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", r.here(command))
	cmd.Dir, cmd.Env = r.dir, r.env
	return cmd
}

// learn notes what checksums on the page are here.
func (r *reader) learn(want, got string) {
	shown, sums := sumPattern.FindAllString(want, -1), sumPattern.FindAllString(got, -1)
	for i, s := range shown {
		if i < len(sums) {
			r.sums[s] = sums[i]
		}
	}
}

// same compares an output with the page, where a line "…" stands for any lines.
func (r *reader) same(want, got string) bool {
	return matches(outputLines(r.plain(want)), outputLines(r.plain(got)))
}

func outputLines(text string) []string {
	if text = strings.Trim(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func matches(want, got []string) bool {
	for i, line := range want {
		if line == "…" {
			for j := i; j <= len(got); j++ {
				if matches(want[i+1:], got[j:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) || got[i] != line {
			return false
		}
	}
	return len(want) == len(got)
}

// terminal is one in which a program goes on running.
type terminal struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program and its output have ended

	mu    sync.Mutex
	lines []string // that were not compared yet
}

// end ends the program and what it started.
func (term *terminal) end() {
	select {
	case <-term.done: // its number may belong to somebody else by now
		return
	default:
	}
	_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL) // there may be nothing left
	<-term.done
}

// take takes the next line; false: there is none, and will be none when over.
func (term *terminal) take() (line string, ok, over bool) {
	select {
	case <-term.done:
		over = true
	default:
	}
	term.mu.Lock()
	defer term.mu.Unlock()
	if len(term.lines) == 0 {
		return "", false, over
	}
	line, term.lines = term.lines[0], term.lines[1:]
	return line, true, false
}

// watch does what a block of another terminal says.
func (r *reader) watch(where, name, text string) {
	r.t.Helper()
	skip := false
	for want := range strings.Lines(text) {
		want = strings.TrimSuffix(want, "\n")
		command, starts := strings.CutPrefix(want, "$ ")
		switch {
		case starts:
			if term := r.terminals[name]; term != nil {
				term.end()
			}
			r.terminals[name] = r.start(command)
		case want == "…":
			skip = true
		case want == "^C":
			term := r.terminals[name]
			if err := syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT); err != nil {
				r.t.Errorf("%s: %v", where, err)
			}
			select {
			case <-term.done:
			case <-time.After(tutorialPatience):
				r.t.Errorf("%s: the program does not end", where)
			}
			skip = false
		default:
			if seen, ok := r.await(r.terminals[name], want, skip); !ok {
				r.t.Errorf("%s: in terminal %s there is\n%s\nand not\n%s", where, name, r.back.Replace(seen), want)
				return
			}
			skip = false
		}
	}
	if skip { // the rest does not matter
		for ok := true; ok; _, ok, _ = r.terminals[name].take() {
		}
	}
}

// start starts a program in a terminal.
func (r *reader) start(command string) *terminal {
	r.t.Helper()
	// The guard ends the process group when this test is gone, however it went: what
	// "go run" has started does not end with it.
	const guard = `(trap "" INT; read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & `
	cmd := r.command(r.t.Context(), guard+"exec 3<&-; "+command)
	alive, hold, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{alive} // descriptor 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, out, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := errors.Join(cmd.Start(), out.Close(), alive.Close()); err != nil {
		r.t.Fatal(err)
	}
	term := &terminal{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(term.done)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			term.mu.Lock()
			term.lines = append(term.lines, lines.Text())
			term.mu.Unlock()
		}
		_ = in.Close()
		_ = hold.Close() // the guard ends
		_ = cmd.Wait()   // ended by a signal
	}()
	return term
}

// await takes lines until one is as wanted. Others before it are wrong, unless they
// are skipped.
func (r *reader) await(term *terminal, want string, skip bool) (seen string, ok bool) {
	var all bytes.Buffer
	until := time.Now().Add(tutorialPatience)
	for time.Now().Before(until) {
		line, ok, over := term.take()
		switch {
		case ok && r.plain(line) == r.plain(want):
			return "", true
		case ok:
			all.WriteString(line + "\n")
			if !skip {
				return all.String(), false
			}
		case over:
			return all.String() + "(it has ended)", false
		default:
			time.Sleep(20 * time.Millisecond)
		}
	}
	return all.String(), false
}
