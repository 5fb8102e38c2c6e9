package install

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	policyFile = "scripts/iam-policy.json"
	sdk        = "github.com/aws/aws-sdk-go-v2/service/"
)

// planned are actions whose code is on its way: they may be allowed without
// being called. An entry whose call is there is an error.
var planned = map[string]string{}

// dependent are actions that AWS itself takes with our permissions, and for
// which of our calls: Cloud Map writes Route 53's records and health checks
// for instances of services that have some (Cloud Map Developer Guide, API
// permissions reference).
var dependent = map[string][]string{
	"route53:GetHealthCheck":           {"servicediscovery:RegisterInstance", "servicediscovery:DeregisterInstance"},
	"route53:CreateHealthCheck":        {"servicediscovery:RegisterInstance"},
	"route53:UpdateHealthCheck":        {"servicediscovery:RegisterInstance", "servicediscovery:DeregisterInstance"},
	"route53:DeleteHealthCheck":        {"servicediscovery:DeregisterInstance"},
	"route53:ChangeResourceRecordSets": {"servicediscovery:RegisterInstance", "servicediscovery:DeregisterInstance"},
}

type statement struct {
	Sid, Effect      string
	Action, Resource any
	Condition        map[string]map[string]any
}

// list is a policy's value as a list: one alone needs none there.
func list(v any) (all []string) {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	for _, v := range v.([]any) {
		all = append(all, v.(string))
	}
	return all
}

func statements(t *testing.T) []statement {
	t.Helper()
	var p struct {
		Version   string
		Statement []statement
	}
	d := json.NewDecoder(strings.NewReader(read(t, policyFile)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Version != "2012-10-17" {
		t.Errorf("version %s", p.Version)
	}
	return p.Statement
}

// calls are the API calls that a Go file makes, as IAM names them, by the
// inputs it fills: each call of the SDK takes one, &ecs.DescribeTasksInput{}.
func calls(t *testing.T, name string, src any) (found []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	services := map[string]string{} // by the name they have in this file
	for _, im := range f.Imports {
		p, err := strconv.Unquote(im.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		service, ok := strings.CutPrefix(p, sdk)
		if !ok || strings.Contains(service, "/") {
			continue
		}
		as := path.Base(p)
		if im.Name != nil {
			as = im.Name.Name
		}
		if as == "." || as == "_" {
			t.Errorf("%s: import %s by a name, for this test to see its calls", name, p)
		}
		services[as] = service
	}
	note := func(typ ast.Expr) {
		sel, ok := typ.(*ast.SelectorExpr)
		if !ok {
			return
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || services[pkg.Name] == "" {
			return
		}
		if call, ok := strings.CutSuffix(sel.Sel.Name, "Input"); ok {
			found = append(found, services[pkg.Name]+":"+call)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			note(n.Type)
		case *ast.CallExpr: // new(ecs.DescribeTasksInput)
			if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "new" && len(n.Args) == 1 {
				note(n.Args[0])
			}
		case *ast.ValueSpec: // var in ecs.DescribeTasksInput
			note(n.Type)
		}
		return true
	})
	return found
}

// called are all calls of the program, and a file that makes each.
func called(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	files := 0
	for _, dir := range []string{"cmd", "daemon", "pkg"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "testutil"):
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go"):
				return nil
			}
			files++
			for _, call := range calls(t, p, nil) {
				all[call] = p
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Fatalf("only %d files are there", files)
	}
	return all
}

// TestPolicyIsEnoughAndLeast: what the code calls is allowed, and nothing else.
func TestPolicyIsEnoughAndLeast(t *testing.T) {
	called := called(t)
	allowed := map[string]string{}
	for _, s := range statements(t) {
		for _, action := range list(s.Action) {
			if allowed[action] != "" {
				t.Errorf("%s is allowed by %s and by %s", action, allowed[action], s.Sid)
			}
			allowed[action] = s.Sid
		}
	}
	for _, call := range slices.Sorted(maps.Keys(called)) {
		if allowed[call] == "" {
			t.Errorf("%s calls %s, which the policy does not allow", called[call], call)
		}
		if planned[call] != "" {
			t.Errorf("%s calls %s: take it off planned", called[call], call)
		}
	}
	for _, action := range slices.Sorted(maps.Keys(allowed)) {
		needs := dependent[action]
		if strings.Contains(action, "*") {
			t.Errorf("%s allows more than one action", action)
		}
		if needs == nil && called[action] == "" && planned[action] == "" {
			t.Errorf("nobody calls %s, which %s allows", action, allowed[action])
		}
		for _, call := range needs {
			if called[call] == "" && planned[call] == "" {
				t.Errorf("nobody calls %s, for which %s would be needed", call, action)
			}
		}
	}
	for _, action := range slices.Concat(slices.Collect(maps.Keys(planned)), slices.Collect(maps.Keys(dependent))) {
		if allowed[action] == "" {
			t.Errorf("%s is in a table here and not in the policy", action)
		}
	}
}

// TestPolicyConditions: writing is bounded wherever AWS has a condition key or
// a resource for it (Service Authorization Reference). What has none is listed.
func TestPolicyConditions(t *testing.T) {
	bound := map[string]string{
		"ecs:PutAttributes":                          "ecs:cluster",
		"ecs:DeleteAttributes":                       "ecs:cluster",
		"servicediscovery:DiscoverInstances":         "servicediscovery:NamespaceName",
		"servicediscovery:DiscoverInstancesRevision": "servicediscovery:NamespaceName",
		"servicediscovery:CreateService":             "servicediscovery:NamespaceArn",
		"servicediscovery:RegisterInstance":          "servicediscovery:ServiceArn",
		"servicediscovery:DeregisterInstance":        "servicediscovery:ServiceArn",
		"cloudwatch:PutMetricData":                   "cloudwatch:namespace",
	}
	unbound := []string{"ecs:DescribeTaskDefinition", "ecs:ListServicesByNamespace", "servicediscovery:ListNamespaces",
		"servicediscovery:ListServices", "servicediscovery:CreateHttpNamespace"}
	sids := map[string]bool{}
	for _, s := range statements(t) {
		if s.Effect != "Allow" || !regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(s.Sid) || sids[s.Sid] {
			t.Errorf("a statement is %+v", s)
		}
		sids[s.Sid] = true
		var keys []string
		for _, c := range s.Condition {
			keys = slices.AppendSeq(keys, maps.Keys(c))
		}
		all := slices.Contains(list(s.Resource), "*")
		for _, action := range list(s.Action) {
			optional := dependent[action] != nil && strings.HasPrefix(s.Sid, "Optional")
			if key := bound[action]; key != "" && !slices.Contains(keys, key) {
				t.Errorf("%s has no condition on %s", action, key)
			} else if key == "" && all && !optional && !slices.Contains(unbound, action) {
				t.Errorf("%s is allowed on everything", action)
			}
		}
	}
}

// TestCalls: the scan sees what it should, by import path, and nothing else.
func TestCalls(t *testing.T) {
	got := calls(t, "x.go", `package x
import (
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	cloudwatch "elsewhere/cloudwatch"
)
type api interface { StopTask(*ecs.StopTaskInput) *ecs.StopTaskOutput }
var in sd.ListServicesInput
func f() {
	a.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &c})
	p := ecs.NewListServicesByNamespacePaginator(a, &ecs.ListServicesByNamespaceInput{})
	r := new(sd.RegisterInstanceInput)
	_, _ = types.SomeInput{}, cloudwatch.PutMetricDataInput{}
}`)
	want := []string{"servicediscovery:ListServices", "ecs:DescribeTasks", "ecs:ListServicesByNamespace", "servicediscovery:RegisterInstance"}
	if !slices.Equal(got, want) {
		t.Errorf("the calls are %v", got)
	}
}
