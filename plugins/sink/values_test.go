package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretIsNotPrinted(t *testing.T) {
	secret := NewSecret("hunter2")
	type holder struct {
		Public  Secret
		private Secret
		inner   map[string]*Secret
	}
	h := holder{secret, secret, map[string]*Secret{"a": &secret}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		fmt.Fprintf(&out, verb+"\n", secret)
		fmt.Fprintf(&out, verb+"\n", h)
		fmt.Fprintf(&out, verb+"\n", &h)
		fmt.Fprintf(&out, verb+"\n", []Secret{secret})
	}
	text, err := json.Marshal(map[string]any{"a": secret, "b": h, "c": map[Secret]int{secret: 1}})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	for _, logger := range []*slog.Logger{newLogger(&out, slog.LevelDebug), slog.New(slog.NewTextHandler(&out, nil))} {
		logger.Info("x", "secret", secret, "holder", h, "list", []Secret{secret})
	}
	fmt.Fprint(&out, secret.String(), fmt.Errorf("with %v", secret))
	if strings.Contains(out.String(), "hunter") || strings.Contains(out.String(), fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("it is in %s", &out)
	}
	if secret.Reveal() != "hunter2" || NewSecret("").Reveal() != "" || NewSecret("") != (Secret{}) || secret != NewSecret("hunter2") {
		t.Error("Reveal or == is wrong")
	}
}

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	logger := newLogger(&out, slog.LevelInfo)
	logger.Debug("not shown")
	logger.With("time", 1, "@level", "fake", "a", 2).WithGroup("g").With("msg", "in").Warn("hello", "level", "x", slog.Group("", "msg", "deep"))
	logger.Error("bye", slog.Group("", "msg", "inline", "@message", "evil"), "@@timestamp", 5, "", 1)
	logger.Log(t.Context(), slog.LevelError+4, "fatal")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{
		`"@level":"warn","@message":"hello","time":1,"level":"fake","a":2,"g":{"msg":"in","level":"x","msg":"deep"}}`,
		`"@level":"error","@message":"bye","msg":"inline","message":"evil","timestamp":5,"":1}`,
		`"@level":"error","@message":"fatal"}`,
	}
	if len(lines) != len(want) {
		t.Fatalf("got %s", &out)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, `{"@timestamp":"`) || !strings.HasSuffix(line, want[i]) {
			t.Errorf("got  %s\nwant %s", line, want[i])
		}
	}
}
