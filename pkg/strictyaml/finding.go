package strictyaml

import (
	"strconv"

	"go.yaml.in/yaml/v3"
)

// finding is an error whose field is not known yet: the path of a node is
// looked up once for all of them, so that values carry no path.
type finding struct {
	at     *yaml.Node
	key    string // of a mapping at, when the key itself is what is wrong
	line   int
	detail string
}

func (d *Document) report(f finding) {
	if len(d.found) <= maxErrors {
		d.found = append(d.found, f)
	}
}

// Err returns what was found wrong so far as Errors in the order of lines,
// or nil.
func (d *Document) Err() error {
	if len(d.found) == 0 {
		return nil
	}
	found := d.found
	if len(found) > maxErrors {
		found = found[:maxErrors]
	}
	wanted := map[*yaml.Node]bool{}
	for _, f := range found {
		wanted[f.at] = true
	}
	paths := d.paths(wanted)
	var errs Errors
	seen := map[Error]bool{} // what an alias repeats is reported once
	for _, f := range found {
		e := Error{Origin: Origin{d.name, f.line, join(paths[f.at], f.key)}, Detail: f.detail}
		if !seen[e] {
			seen[e] = true
			errs = append(errs, &e)
		}
	}
	errs.Sort()
	if len(d.found) > maxErrors {
		errs = append(errs, d.lineError(0, "too many errors, the others are not shown"))
	}
	return errs
}

func join(path, key string) string {
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}

// paths finds the wanted nodes in the document. A node that aliases make
// reachable in several ways has the path of the first.
func (d *Document) paths(wanted map[*yaml.Node]bool) map[*yaml.Node]string {
	found := map[*yaml.Node]string{}
	shared := map[*yaml.Node]bool{}
	var path []byte
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if len(found) == len(wanted) || shared[n] {
			return
		}
		if n.Anchor != "" {
			shared[n] = true
		}
		if wanted[n] {
			found[n] = string(path)
		}
		here := len(path)
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if here > 0 {
					path = append(path, '.')
				}
				path = append(path, describeKey(n.Content[i])...)
				walk(n.Content[i+1])
				path = path[:here]
			}
		case yaml.SequenceNode:
			for i, item := range n.Content {
				path = append(path, '[')
				path = strconv.AppendInt(path, int64(i), 10)
				path = append(path, ']')
				walk(item)
				path = path[:here]
			}
		}
	}
	walk(d.root)
	return found
}
