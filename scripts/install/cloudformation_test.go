package install

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const templateFile = "scripts/cloudformation.yaml"

// object is a mapping of JSON or of an evaluated template.
type object = map[string]any

// stack is a template with parameters, whose functions are evaluated as
// CloudFormation does: !Ref, !GetAtt, !Sub, !If, !Equals, !Join. Others are
// errors, and so is a name that is nowhere.
type stack struct {
	doc        map[string]yaml.Node // top-level parts
	parameters map[string]any
	conditions map[string]*yaml.Node
	resources  map[string]*yaml.Node
	errs       []string
}

// noValue is what !Ref AWS::NoValue gives: the value's place is gone.
type noValue struct{}

var pseudo = map[string]string{"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": "123456789012"}

// attributes are those of the template's resources that !GetAtt may ask for.
var attributes = map[string][]string{"AWS::IAM::Role": {"Arn", "RoleId"}, "AWS::ECS::Service": {"Name", "ServiceArn"}, "AWS::Logs::LogGroup": {"Arn"}}

func newStack(t *testing.T, text string, given map[string]any) *stack {
	t.Helper()
	s := &stack{parameters: map[string]any{}}
	if err := yaml.Unmarshal([]byte(text), &s.doc); err != nil {
		t.Fatal(err)
	}
	s.conditions, s.resources = s.part(t, "Conditions"), s.part(t, "Resources")
	for name, n := range s.part(t, "Parameters") {
		var p struct {
			Default       *string  `yaml:"Default"`
			AllowedValues []string `yaml:"AllowedValues"`
		}
		if err := n.Decode(&p); err != nil {
			t.Fatal(err)
		}
		v, ok := given[name]
		switch {
		case ok && p.AllowedValues != nil && !slices.Contains(p.AllowedValues, v.(string)):
			t.Errorf("parameter %s cannot be %v", name, v)
		case !ok && p.Default != nil:
			v = *p.Default
		case !ok:
			t.Errorf("parameter %s has no default and is not given", name)
		}
		s.parameters[name] = v
	}
	return s
}

func (s *stack) part(t *testing.T, name string) map[string]*yaml.Node {
	t.Helper()
	n := s.doc[name]
	all := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		all[n.Content[i].Value] = n.Content[i+1]
	}
	if len(all) == 0 {
		t.Fatalf("no %s", name)
	}
	return all
}

func (s *stack) errorf(n *yaml.Node, format string, args ...any) any {
	s.errs = append(s.errs, fmt.Sprintf("line %d: ", n.Line)+fmt.Sprintf(format, args...))
	return nil
}

func (s *stack) ref(n *yaml.Node, name string) any {
	if v, ok := s.parameters[name]; ok {
		return v
	}
	if v, ok := pseudo[name]; ok {
		return v
	}
	if name == "AWS::NoValue" {
		return noValue{}
	}
	if s.resources[name] != nil {
		return "ref:" + name
	}
	return s.errorf(n, "!Ref %s is nothing", name)
}

func (s *stack) getAtt(n *yaml.Node, of string) any {
	name, attribute, _ := strings.Cut(of, ".")
	r := s.resources[name]
	if r == nil {
		return s.errorf(n, "!GetAtt %s: no such resource", of)
	}
	var head struct {
		Type string `yaml:"Type"`
	}
	if err := r.Decode(&head); err != nil || !slices.Contains(attributes[head.Type], attribute) {
		return s.errorf(n, "!GetAtt %s: %s has no such attribute (%v)", of, head.Type, err)
	}
	return "att:" + of
}

func (s *stack) sub(n *yaml.Node) any {
	text, own := n.Value, object{}
	if n.Kind == yaml.SequenceNode {
		text = n.Content[0].Value
		own = s.value(n.Content[1]).(object)
	}
	return regexp.MustCompile(`\$\{([^}]+)\}`).ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-1]
		v, ok := own[name]
		if !ok {
			if strings.Contains(name, ".") {
				v = s.getAtt(n, name)
			} else {
				v = s.ref(n, name)
			}
		}
		return fmt.Sprint(v)
	})
}

func (s *stack) condition(n *yaml.Node, name string) bool {
	c := s.conditions[name]
	if c == nil {
		s.errorf(n, "no condition %s", name)
		return false
	}
	v, _ := s.value(c).(bool)
	return v
}

func (s *stack) value(n *yaml.Node) any {
	switch n.Tag {
	case "!Ref":
		return s.ref(n, n.Value)
	case "!GetAtt":
		return s.getAtt(n, n.Value)
	case "!Sub":
		return s.sub(n)
	case "!Equals":
		return reflect.DeepEqual(s.value(n.Content[0]), s.value(n.Content[1]))
	case "!If":
		yes, no := s.value(n.Content[1]), s.value(n.Content[2]) // both are checked
		if s.condition(n, n.Content[0].Value) {
			return yes
		}
		return no
	case "!Join":
		var parts []string
		for _, v := range s.value(n.Content[1]).([]any) {
			parts = append(parts, fmt.Sprint(v))
		}
		return strings.Join(parts, n.Content[0].Value)
	}
	switch {
	case strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		return s.errorf(n, "function %s is not known here", n.Tag)
	case n.Kind == yaml.MappingNode:
		m := object{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if v := s.value(n.Content[i+1]); v != (noValue{}) {
				m[n.Content[i].Value] = v
			}
		}
		return m
	case n.Kind == yaml.SequenceNode:
		l := []any{}
		for _, c := range n.Content {
			if v := s.value(c); v != (noValue{}) {
				l = append(l, v)
			}
		}
		return l
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return s.errorf(n, "%s", err)
	}
	return v
}

// resource is a resource's properties with all functions evaluated.
func (s *stack) resource(t *testing.T, name string) object {
	t.Helper()
	if s.resources[name] == nil {
		t.Fatalf("the template has no %s", name)
	}
	return s.value(s.resources[name]).(object)["Properties"].(object)
}

var usual = map[string]any{"Cluster": "prod", "Image": "connectd:1", "Namespaces": []any{"shop", "tools"}}

func with(given map[string]any, more ...string) map[string]any {
	all := map[string]any{}
	for k, v := range given {
		all[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

func containers(t *testing.T, s *stack) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, c := range s.resource(t, "TaskDefinition")["ContainerDefinitions"].([]any) {
		all[c.(object)["Name"].(string)] = c.(object)
	}
	return all
}

// containerCapabilities are the capabilities of the daemon's container.
func containerCapabilities(t *testing.T) (caps []string) {
	t.Helper()
	c := containers(t, newStack(t, read(t, templateFile), usual))["connectd"]["LinuxParameters"].(object)["Capabilities"].(object)
	if !reflect.DeepEqual(c["Drop"], []any{"ALL"}) {
		t.Errorf("the container drops %v, not ALL", c["Drop"])
	}
	for _, v := range c["Add"].([]any) {
		caps = append(caps, v.(string))
	}
	return caps
}

// TestTemplateResolves: every name that a function asks for is there, whatever
// the conditions, and every parameter, condition and resource is of use.
func TestTemplateResolves(t *testing.T) {
	text := read(t, templateFile)
	s := newStack(t, text, usual)
	for _, part := range []string{"Conditions", "Resources", "Outputs"} {
		n := s.doc[part]
		s.value(&n)
	}
	for _, err := range s.errs {
		t.Error(err)
	}
	for name := range s.parameters {
		if !regexp.MustCompile(`!Ref ` + name + `\b|\$\{` + name + `\}`).MatchString(text) {
			t.Errorf("parameter %s is not used", name)
		}
	}
	for name := range s.conditions {
		if !regexp.MustCompile(`- ` + name + `\n`).MatchString(text) {
			t.Errorf("condition %s is not used", name)
		}
	}
	for _, wrong := range []string{"!Ref Nobody", "!GetAtt TaskRole.Nothing", "!GetAtt Nobody.Arn", "!Sub a${Nobody}", "!If [Never, a, b]", "!ImportValue x"} {
		s := newStack(t, text+"  Wrong:\n    Value: "+wrong+"\n", usual)
		n := s.doc["Outputs"]
		if s.value(&n); len(s.errs) == 0 {
			t.Errorf("%s is not found out", wrong)
		}
	}
}

func TestTemplateTask(t *testing.T) {
	s := newStack(t, read(t, templateFile), usual)
	task, service := s.resource(t, "TaskDefinition"), s.resource(t, "Service")
	for _, test := range []struct {
		of        object
		key, want string
	}{
		{task, "NetworkMode", "host"},
		{task, "PidMode", "host"},
		{task, "TaskRoleArn", "att:TaskRole.Arn"},
		{task, "ExecutionRoleArn", "att:ExecutionRole.Arn"},
		{service, "SchedulingStrategy", "DAEMON"},
		{service, "Cluster", "prod"},
		{service, "TaskDefinition", "ref:TaskDefinition"},
	} {
		if test.of[test.key] != test.want {
			t.Errorf("%s is %v, not %s", test.key, test.of[test.key], test.want)
		}
	}
	if got, want := service["DeploymentConfiguration"], (object{"MaximumPercent": 100, "MinimumHealthyPercent": 0}); !reflect.DeepEqual(got, want) {
		t.Errorf("the deployment is %v", got)
	}
	daemon := containers(t, s)["connectd"]
	if daemon["Image"] != "connectd:1" || daemon["Essential"] != true || daemon["Privileged"] != nil || daemon["Memory"] != nil {
		t.Errorf("the daemon's container is %v", daemon)
	}
	if log := daemon["LogConfiguration"].(object)["Options"].(object)["awslogs-group"]; log != "ref:LogGroup" {
		t.Errorf("it logs to %v", log)
	}
}

// TestTemplateBinds: what is mounted is what docs/install.md lists, each at its
// own path, for the daemon is told the host's paths.
func TestTemplateBinds(t *testing.T) {
	s := newStack(t, read(t, templateFile), usual)
	host := map[string]string{}
	for _, v := range s.resource(t, "TaskDefinition")["Volumes"].([]any) {
		host[v.(object)["Name"].(string)] = v.(object)["Host"].(object)["SourcePath"].(string)
	}
	var binds []string
	for _, m := range containers(t, s)["connectd"]["MountPoints"].([]any) {
		at := m.(object)["ContainerPath"].(string)
		if host[m.(object)["SourceVolume"].(string)] != at {
			t.Errorf("%v is not mounted at its path of the host", m)
		}
		binds = append(binds, at)
	}
	_, docs, _ := strings.Cut(read(t, installDocs), "\n### Binds\n")
	docs, _, _ = strings.Cut(docs, "\n#")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(/[^`]+)` \\|").FindAllStringSubmatch(docs, -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(binds)
	slices.Sort(listed)
	if len(binds) < 7 || len(host) != len(binds) || !slices.Equal(binds, listed) {
		t.Errorf("mounted are %v,\nthe docs list %v", binds, listed)
	}
}

// TestTemplateConfig: the helper writes what the parameters say, and it is a
// config that the daemon takes.
func TestTemplateConfig(t *testing.T) {
	for _, test := range []struct{ config, want string }{
		{"", "ecs:\n  namespaces: [\"shop\", \"tools\"]\ncloudMap: {region: auto}\n"},
		{"ecs: {namespaces: [own]}", "ecs: {namespaces: [own]}"},
		{"host", ""},
	} {
		s := newStack(t, read(t, templateFile), with(usual, "Config", test.config))
		helper := containers(t, s)["config"]
		env := helper["Environment"].([]any)[0].(object)
		if env["Name"] != "CONFIG" || env["Value"] != test.want {
			t.Errorf("with %q the config is %q", test.config, env["Value"])
			continue
		}
		dir := t.TempDir()
		command := strings.ReplaceAll(helper["Command"].([]any)[2].(string), "/etc/connectd", dir)
		if out, code := shell(t, "sh", command, "CONFIG="+test.want); code != 0 || out != "" {
			t.Errorf("the helper ends with %d: %s", code, out)
		}
		files, _ := filepath.Glob(dir + "/*")
		if test.want == "" {
			if files != nil {
				t.Errorf("the hosts' file is overwritten: %v", files)
			}
			continue
		}
		loads(t, filepath.Join(dir, "connectd.yaml"))
	}
}

// TestTemplatePolicy: the task role is scripts/iam-policy.json to the letter;
// its optional statements depend on their parameters.
func TestTemplatePolicy(t *testing.T) {
	for _, test := range []struct{ namespaces, records string }{{"no", "no"}, {"yes", "no"}, {"no", "yes"}, {"yes", "yes"}} {
		s := newStack(t, read(t, templateFile), with(map[string]any{"Cluster": "prod", "Image": "i", "Namespaces": []any{"shop"}},
			"CreateNamespaces", test.namespaces, "DnsRecords", test.records))
		got := s.resource(t, "TaskRole")["Policies"].([]any)[0].(object)["PolicyDocument"].(object)
		text := read(t, policyFile)
		for name, value := range pseudo {
			text = strings.ReplaceAll(text, "${"+name+"}", value)
		}
		text = strings.NewReplacer("${Cluster}", "prod", "${Namespaces}", "shop", "${CloudWatchNamespace}", "ECS/Connect").Replace(text)
		var want object
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		want["Statement"] = slices.DeleteFunc(want["Statement"].([]any), func(v any) bool {
			sid := v.(object)["Sid"]
			return sid == "OptionalCreateNamespaces" && test.namespaces == "no" || sid == "OptionalDnsRecords" && test.records == "no"
		})
		if !reflect.DeepEqual(got, want) {
			g, _ := json.Marshal(got)
			w, _ := json.Marshal(want)
			t.Errorf("%+v: the template's policy is\n%s\nnot\n%s", test, g, w)
		}
	}
}
