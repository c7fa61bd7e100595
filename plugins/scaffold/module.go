package scaffold

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// module is callbackd's own.
const module = "github.com/callbackd/callbackd"

// release matches versions that can have been published, and not what is made up
// between two of them: v1.2.3-4-gabcdef, or one with changes of its own.
var (
	release  = regexp.MustCompile(`^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$`)
	made     = regexp.MustCompile(`-[0-9]+-g[0-9a-f]+$|-dirty$`)
	language = regexp.MustCompile(`^go(1\.[0-9]+)`)
)

// published returns the version if it can have been published.
func published(version string) string {
	if !release.MatchString(version) || made.MatchString(version) {
		return ""
	}
	return version
}

// addModule adds go.mod, and go.sum where the checkout has it.
func (o Options) addModule(files map[string][]byte) error {
	if o.SDK != "" {
		return o.addCheckout(files)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "module callbackd-sink-%s\n", o.Name)
	if m := language.FindStringSubmatch(runtime.Version()); m != nil {
		fmt.Fprintf(&b, "\ngo %s\n", m[1])
	}
	if version := published(o.Version); version != "" {
		fmt.Fprintf(&b, "\nrequire %s %s\n", module, version)
	}
	files["go.mod"] = []byte(b.String())
	return nil
}

// addCheckout takes over what the checkout requires, so that everything is built
// from what it was built from, without a network.
func (o Options) addCheckout(files map[string][]byte) error {
	dir, err := filepath.Abs(o.SDK)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return fmt.Errorf("the checkout of callbackd: %w", err)
	}
	rest, err := requirements(content)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, "go.mod"), err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return fmt.Errorf("the checkout of callbackd: %w", err)
	}
	if strings.ContainsAny(dir, " \t\"'`()[]{},;") {
		dir = strconv.Quote(dir)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "module callbackd-sink-%s\n\n", o.Name)
	fmt.Fprintf(&b, "require %s v0.0.0\n\nreplace %s => %s\n\n", module, module, dir)
	b.WriteString("// What the checkout requires; go mod tidy keeps what this sink needs of it.\n\n")
	b.Write(rest)
	files["go.mod"], files["go.sum"] = b.Bytes(), sums
	return nil
}

var errRelative = errors.New("it replaces a module by a folder beside it, which is nowhere else")

// requirements is a go.mod without its module line.
func requirements(content []byte) ([]byte, error) {
	var out bytes.Buffer
	ours := false
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		line := lines.Text()
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "module" {
			ours = fields[1] == module
			continue
		}
		if strings.Contains(line, "=> .") {
			return nil, errRelative
		}
		out.WriteString(line + "\n")
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if !ours {
		return nil, fmt.Errorf("it is not of the module %s", module)
	}
	return bytes.TrimLeft(out.Bytes(), "\n"), nil
}
