package schema_test

import (
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/schema"
)

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"0B": 0, "512B": 512, "1KiB": 1024, "10MiB": 10 << 20, "1.5 GiB": 3 << 29, "2TiB": 2 << 40,
		"1kB": 1000, "1KB": 1000, "2MB": 2e6, "3GB": 3e9, "4TB": 4e12, "2PiB": 2 << 50, "1PB": 1e15, "0.5KiB": 512,
		"9223372036854775807B": 1<<63 - 1,
	}
	for text, want := range good {
		if got, err := schema.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	bad := []string{
		"", "10", "MiB", "10mib", "10M", "-1B", "+1B", "1e3B", "0x10B", "1/2KiB", ".5KiB", "1.KiB", "1.2.3KiB",
		"1  KiB", "1\tKiB", "10 EiB", "9223372036854775808B", "9007199254740993TiB", "0.3KiB", strings.Repeat("9", 1000) + "B",
	}
	for _, text := range bad {
		if got, err := schema.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d; want an error", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"10MiB", "1.5 GiB", "0B", "-1B", "1e9B"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if size, err := schema.ParseSize(text); err == nil && size < 0 {
			t.Errorf("ParseSize(%q) = %d", text, size)
		}
	})
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 1: "1B", 1000: "1000B", 1024: "1KiB", 1536: "1536B", 10 << 20: "10MiB", 3 << 50: "3PiB", 1 << 60: "1024PiB", 1<<63 - 1: "9223372036854775807B",
	} {
		got := schema.FormatSize(n)
		if back, err := schema.ParseSize(got); got != want || back != n || err != nil {
			t.Errorf("FormatSize(%d) = %q, want %q; read again %d, %v", n, got, want, back, err)
		}
	}
}
