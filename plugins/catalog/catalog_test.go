package catalog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

func description() *host.Description {
	text := schema.Type{Kind: schema.KindString}
	return &host.Description{
		Name: "mine", Version: "1.2.3", Doc: "Does things.\nMany.",
		Schema: schema.Schema{
			Attributes: []schema.Attribute{
				{Name: "a", Type: schema.Type{Kind: schema.KindMap, Element: &text}, Default: schema.Object{"k": "v"}, Doc: "d"},
				{Name: "t", Type: text, PerEvent: true, Escape: []schema.Replacement{{From: "<", To: "&lt;"}}, OneOf: []string{"a", "b"}},
				{Name: "w", Type: schema.Type{Kind: schema.KindDuration}, Default: time.Minute},
				{Name: "j", Type: schema.Type{Kind: schema.KindAny}, Default: schema.JSON(`[1]`)},
			},
			Blocks: []schema.Block{{Name: "b", Repeated: true, MinItems: 1, MaxItems: 2, Schema: schema.Schema{
				Attributes: []schema.Attribute{{Name: "s", Type: schema.Type{Kind: schema.KindSize}, Required: true, Sensitive: true}},
			}}},
		},
		Capabilities: host.Capabilities{MaxInFlight: 1 << 16, MaxBatchEvents: 3, MaxCalls: 2, Linger: time.Second},
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyOf(t *testing.T, command ...string) Key {
	t.Helper()
	key, err := KeyOf(command)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestPutAndGet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache", "schemas")
	c := New(dir)
	key := keyOf(t, write(t, "program", "one"))
	if _, err := c.Get(key); !errors.Is(err, ErrUnknown) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // the second one takes the place of the first
		if err := c.Put(key, description()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Get(key)
	if err != nil || !reflect.DeepEqual(got, description()) {
		t.Errorf("got %+v, %v", got, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Dir(dir): 0o700 | os.ModeDir, filepath.Join(dir, key.name()): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := c.Get(keyOf(t, write(t, "program", "two"))); !errors.Is(err, ErrUnknown) {
		t.Errorf("another program: %v", err)
	}
}

func TestKey(t *testing.T) {
	program, script := write(t, "python", "an interpreter"), write(t, "sink.py", "version 1")
	first := keyOf(t, program, script, "--fast")
	if again := keyOf(t, program, script, "--fast"); again.name() != first.name() || again.Program() != first.Program() {
		t.Error("the key of the same plugin is another one")
	}
	if moved := keyOf(t, write(t, "python3", "an interpreter"), script, "--fast"); moved.name() != first.name() {
		t.Error("the program is the same one elsewhere")
	}
	if first.Program() != fmt.Sprintf("%x", sha256.Sum256([]byte("an interpreter"))) {
		t.Errorf("the pin is %s", first.Program())
	}
	for name, other := range map[string]Key{
		"argument": keyOf(t, program, script, "--slow"), "fewer": keyOf(t, program, script), "order": keyOf(t, program, "--fast", script),
		"run together": keyOf(t, program, script+"--fast"), "program": keyOf(t, write(t, "python", "another"), script, "--fast"),
		"folder": keyOf(t, program, filepath.Dir(script), "--fast"),
	} {
		if other.name() == first.name() {
			t.Errorf("%s makes no difference", name)
		}
	}
	if !first.Current() {
		t.Error("nothing has changed")
	}
	if err := os.WriteFile(script, []byte("version 2!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if first.Current() || keyOf(t, program, script, "--fast").name() == first.name() {
		t.Error("the script has changed")
	}
	for name, command := range map[string][]string{"none": nil, "missing": {"/nowhere/x"}, "folder": {t.TempDir()}, "device": {"/dev/zero"}} {
		if _, err := KeyOf(command); err == nil {
			t.Errorf("%s has a key", name)
		}
	}
}

// What somebody else put into the folder is refused, and told.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	c := New(dir)
	key := keyOf(t, write(t, "program", "one"))
	if err := c.Put(key, description()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, key.name())
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(string(good))
	flipped[len(flipped)-1] ^= 1
	for name, content := range map[string]string{
		"empty": "", "short": string(good[:20]), "cut": string(good[:len(good)-1]), "longer": string(good) + "x", "flipped": string(flipped),
		"other version": strings.Replace(string(good), "schema 1 ", "schema 2 ", 1), "large": strings.Repeat("x", maxEntry+1),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := c.Get(key); d != nil || err == nil || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
		if err := c.Put(key, description()); err != nil {
			t.Errorf("%s: it is not written anew: %v", name, err)
		}
		if _, err := c.Get(key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nothing outside of the folder is read, nor what never ends.
	for name, target := range map[string]string{"link out": write(t, "x", string(good)), "device": "/dev/zero"} {
		if err := errors.Join(os.Remove(path), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		if d, err := c.Get(key); d != nil || err == nil {
			t.Errorf("%s: %v", name, d)
		}
	}
	if err := errors.Join(c.Put(key, description()), os.Chmod(dir, 0o777)); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if d, err := c.Get(key); d != nil || err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("a folder that others may write to: %v, %v", d, err)
	}
}

func TestNoFolder(t *testing.T) {
	key := keyOf(t, write(t, "program", "one"))
	relative := Default(func(string) (string, bool) { return "relative", true })
	for name, c := range map[string]*Catalog{"relative": relative, "not to be made": New("/dev/null/x"), "a file": New(write(t, "f", ""))} {
		if err := c.Put(key, description()); err == nil {
			t.Errorf("%s: it is kept", name)
		}
		if d, err := c.Get(key); d != nil || err == nil {
			t.Errorf("%s: %v", name, d)
		}
	}
	if got := Default(func(string) (string, bool) { return "/c", true }).Dir(); got != "/c/schemas" {
		t.Errorf("the folder is %q", got)
	}
}

func TestBounded(t *testing.T) {
	dir := t.TempDir()
	c := New(dir)
	old := time.Now().Add(-2 * maxWriting)
	touch := func(name string, at time.Time) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	touch(writing+"old", old)
	touch(writing+"new", time.Now())
	touch("of somebody else", old)
	for i := range maxFiles + 20 {
		touch(fmt.Sprintf("%064x%s", i, suffix), time.Now().Add(time.Hour+time.Duration(i)*time.Second))
	}
	key := keyOf(t, write(t, "program", "one"))
	if err := c.Put(key, description()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != maxFiles+2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	for name, want := range map[string]bool{
		key.name(): true, writing + "old": false, writing + "new": true, "of somebody else": true,
		fmt.Sprintf("%064x%s", 20, suffix): false, fmt.Sprintf("%064x%s", 21, suffix): true,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v", name, !want)
		}
	}
	large := filepath.Join(dir, fmt.Sprintf("%064x%s", 300, suffix))
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, maxBytes)); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(key, description()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(large); err == nil {
		t.Error("it takes more room than it may")
	}
}

func TestTogether(t *testing.T) {
	c := New(t.TempDir())
	key := keyOf(t, write(t, "program", "one"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if err := c.Put(key, description()); err != nil {
					t.Error(err)
				}
				if _, err := c.Get(key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
