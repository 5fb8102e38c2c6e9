package join

import (
	"slices"
	"strings"

	"connectd/pkg/settings"
)

// namespace returns the name of the namespace that ref, a name or an ARN,
// refers to; "" refers to the cluster's default. Where it returns "" it has
// said why, or what must be looked up.
func (d *decoder) namespace(field, ref string) string {
	if ref == "" {
		ref = d.task.DefaultNamespace
	}
	if ref == "" {
		if d.task.DefaultKnown {
			d.problem(field, NoNamespace, "names none, and the cluster has no default")
		} else {
			d.NeedsNamespace = Default
		}
		return ""
	}
	name := ref
	if strings.HasPrefix(ref, "arn:") {
		if name = d.byARN(field, ref); name == "" {
			return ""
		}
	}
	if wrong := settings.CheckNamespace(name); wrong != "" {
		d.problem(field, InvalidField, "%s %s", quote(name), wrong)
		return ""
	}
	if !d.policy.mayJoin(name) {
		d.problem(field, NamespaceNotAllowed, "%s may not be joined on this node (ecs.namespaces)", quote(name))
		return ""
	}
	return name
}

func (d *decoder) byARN(field, arn string) string {
	if !namespaceARN(arn) {
		d.problem(field, InvalidField, "%s is no ARN of a namespace", quote(arn))
		return ""
	}
	name, ok := "", false
	if d.task.NamespaceName != nil {
		name, ok = d.task.NamespaceName(arn)
	}
	switch {
	case !ok:
		d.NeedsNamespace = arn
		return ""
	case name == "":
		d.problem(field, UnknownNamespace, "%s names no namespace", quote(arn))
	}
	return name
}

// namespaceARN reports whether s has the form
// arn:PARTITION:servicediscovery:REGION:ACCOUNT:namespace/ID.
func namespaceARN(s string) bool {
	const longest = 256 // characters; those of today have about 80
	parts := strings.Split(s, ":")
	if len(parts) != 6 || len(s) > longest || slices.Contains(parts, "") {
		return false
	}
	id, ok := strings.CutPrefix(parts[5], "namespace/")
	return ok && id != "" && parts[2] == "servicediscovery" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
