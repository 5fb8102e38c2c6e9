package strictyaml

import "go.yaml.in/yaml/v3"

// resolver replaces alias nodes by the nodes they stand for, so that the rest
// of the package sees none, and counts what they expand to.
type resolver struct {
	doc *Document
	// size is how many nodes an anchored node expands to; 0 while it is
	// being walked, which is how an anchor inside itself shows.
	size map[*yaml.Node]int
	// written counts the nodes that are not aliases.
	written int
}

func (d *Document) resolveAliases() *Error {
	r := &resolver{doc: d, size: map[*yaml.Node]int{}}
	size, err := r.walk(&d.root)
	if err != nil {
		return err
	}
	if size-r.written > maxAliased {
		return d.lineError(0, "aliases expand too far")
	}
	return nil
}

// walk resolves the tree at *slot and returns how many nodes it expands to,
// at most a little over the bound.
func (r *resolver) walk(slot **yaml.Node) (int, *Error) {
	n := *slot
	if n.Kind == yaml.AliasNode {
		size := r.size[n.Alias]
		if size == 0 {
			return 0, r.doc.lineError(n.Line, "anchor &"+n.Value+" contains itself")
		}
		*slot = n.Alias
		return size, nil
	}
	r.written++
	if n.Anchor != "" {
		r.size[n] = 0
	}
	size := 1
	for i := range n.Content {
		s, err := r.walk(&n.Content[i])
		if err != nil {
			return 0, err
		}
		// Sums of sums would overflow within 64 doublings.
		size = min(size+s, r.written+2*maxAliased)
	}
	if n.Anchor != "" {
		r.size[n] = size
	}
	return size, nil
}
