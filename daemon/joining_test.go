package daemon

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectd/pkg/catalog"
	"connectd/pkg/task"
	"connectd/pkg/task/join"
)

// TestJoiningNamesEveryReason: docs/joining.md, to which status sends people,
// has a row for what is no label's fault too, and for nothing else.
func TestJoiningNamesEveryReason(t *testing.T) {
	text, err := os.ReadFile("../docs/joining.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "## Beyond the labels\n")
	if !ok {
		t.Fatal("no section on what is beyond the labels")
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)`").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	want := slices.DeleteFunc(append(task.Reasons(), catalog.ClashReasons()...), func(r string) bool { return slices.Contains(join.Reasons(), r) })
	slices.Sort(documented)
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		t.Errorf("documented are %v, want %v", documented, want)
	}
}
