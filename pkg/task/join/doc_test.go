package join

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

func readDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/joining.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocReasons: docs/joining.md has a row for each reason, and no other.
func TestDocReasons(t *testing.T) {
	doc := readDoc(t)
	for heading, reasons := range map[string][]string{"## Refusals": Refusals(), "## Remarks": Remarks()} {
		_, section, _ := strings.Cut(doc, "\n"+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		var rows []string
		for line := range strings.SplitSeq(section, "\n") {
			if rest, ok := strings.CutPrefix(line, "| `"); ok {
				reason, _, _ := strings.Cut(rest, "`")
				rows = append(rows, reason)
			}
		}
		if !slices.Equal(rows, reasons) {
			t.Errorf("%s has %q, want %q", heading, rows, reasons)
		}
	}
}

// TestDocExamples: the task definitions in docs/joining.md join as it says
// below them.
func TestDocExamples(t *testing.T) {
	parts := strings.Split(readDoc(t), "```json\n")
	if len(parts) != 3 {
		t.Fatalf("%d examples", len(parts)-1)
	}
	for i, want := range []string{
		`client of prod
serves prod/orders on tcp app:8080 as orders:80 {"appProtocol":"http","healthCheck":{"path":"/healthz","protocol":"http"},"timeout":{"perRequestTimeoutSeconds":5}}
`,
		"client of prod\n",
	} {
		text, rest, _ := strings.Cut(parts[i+1], "```\n")
		var definition struct {
			Family               string
			ContainerDefinitions []struct {
				Name         string
				DockerLabels map[string]string
			}
		}
		if err := json.Unmarshal([]byte(text), &definition); err != nil {
			t.Fatalf("example %d: %s", i+1, err)
		}
		task := Task{Family: definition.Family}
		for _, c := range definition.ContainerDefinitions {
			task.Containers = append(task.Containers, Container{Name: c.Name, Labels: c.DockerLabels})
		}
		if got := show(Decode(task, Policy{})); got != want {
			t.Errorf("example %d: got\n%swant\n%s", i+1, got, want)
		}
		if strings.TrimSpace(rest) == "" {
			t.Errorf("example %d is not explained", i+1)
		}
	}
}
