package docs_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/sinktest/contract"
)

// The marks around the table of the contract's rules.
const (
	rulesPage  = "plugin-protocol.md"
	rulesBegin = "<!-- rules: make generate writes them, from the contract suite -->\n"
	rulesEnd   = "<!-- end of rules -->\n"
)

// The rules on the page are those that are checked.
func TestRulesOfTheContract(t *testing.T) {
	var made strings.Builder
	made.WriteString("\n| rule | what holds |\n| --- | --- |\n")
	for _, rule := range contract.Rules() {
		fmt.Fprintf(&made, "| `%s` | %s |\n", rule.ID, strings.ReplaceAll(rule.Text, "|", `\|`))
	}
	made.WriteString("\n")
	text := read(t, "docs/"+rulesPage)
	before, rest, begins := strings.Cut(text, rulesBegin)
	old, after, ends := strings.Cut(rest, rulesEnd)
	switch {
	case !begins || !ends:
		t.Errorf("docs/%s lacks the lines\n%s%s", rulesPage, rulesBegin, rulesEnd)
	case *update:
		if err := os.WriteFile(rulesPage, []byte(before+rulesBegin+made.String()+rulesEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
	case old != made.String():
		t.Errorf("docs/%s is not up to date: run make generate. It should have\n%s", rulesPage, &made)
	}
}
