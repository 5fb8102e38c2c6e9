package control

import (
	"cmp"
	"slices"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

// maxListed bounds how many names or addresses an error lists.
const maxListed = 5

// find returns the service that a user means by "namespace/discoveryName", or
// by a discoveryName that only one namespace has.
func find(known []lb.ServiceName, arg string) (lb.ServiceName, error) {
	namespace, bare, full := strings.Cut(arg, "/")
	if !full {
		bare = arg
	}
	var found []string
	var match lb.ServiceName
	for _, n := range known {
		if n.DiscoveryName == bare && (!full || n.Namespace == namespace) {
			match = n
			found = append(found, n.String())
		}
	}
	switch len(found) {
	case 1:
		return match, nil
	case 0:
		return match, refuse(CodeNotFound, "no service %s%s", arg, suggest(known, bare))
	}
	return match, refuse(CodeAmbiguous, "service %s is ambiguous: say %s", arg, list(found, " or "))
}

// suggest names the services whose discoveryName is nearest to a mistyped one:
// up to a third of its letters differ, or it is a part of theirs.
func suggest(known []lb.ServiceName, bare string) string {
	if len(known) == 0 {
		return ": the catalog has none"
	}
	type candidate struct {
		name     string
		distance int
	}
	var near []candidate
	for _, n := range known {
		d := strictyaml.Distance(bare, n.DiscoveryName)
		part := len(bare) >= 3 && strings.Contains(n.DiscoveryName, bare)
		if part || d <= max(1, len(bare)/3) {
			near = append(near, candidate{n.String(), d})
		}
	}
	if len(near) == 0 {
		return "; connectd services lists them"
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(a.distance-b.distance, cmp.Compare(a.name, b.name))
	})
	names := make([]string, len(near))
	for i, c := range near {
		names[i] = c.name
	}
	return "; did you mean " + list(names, " or ") + "?"
}

// list joins the first few words, the last two by last.
func list(words []string, last string) string {
	if len(words) > maxListed {
		return strings.Join(words[:maxListed], ", ") + ", ..."
	}
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	end := len(words) - 1
	return strings.Join(words[:end], ", ") + last + words[end]
}
