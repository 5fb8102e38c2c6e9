package cloudmap

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"connectd/pkg/lb"
)

// The index of a namespace is a service of its own, one instance for each
// node, and says what that node has registered: a node that polls the index's
// revision learns with one call whether anything changed, and from its
// instances which services. It also is the directory of aliases.
const (
	indexName   = "index" // after the prefix; further shards are index-a, index-b, ...
	indexPrefix = "cd--"  // where services have none
	// shardFull is the number of entries at which nodes begin the next
	// shard. Between it and the 1,000 that a service can have is room for
	// nodes that decide at the same time.
	shardFull = 800
	maxShards = 16

	attrVersion  = "connectd.index" // version of the entry's format
	attrInstance = "connectd.instance"
	attrMore     = "connectd.more"
	indexVersion = "1"
	listKey      = "s" // s0, s1, ...: the node's services
	maxLists     = 4   // 4,096 of the 5,000 characters

	// weightsID begins the id of instances in the index that no node wrote
	// but somebody who moves traffic: discoveryName -> connectd's percent.
	weightsID = "weights"
)

// indexService is the name of a shard of the index.
func indexService(prefix string, n int) string {
	name := cmp.Or(prefix, indexPrefix) + indexName
	if n > 0 {
		name += "-" + string(rune('a'+n-1))
	}
	return name
}

// isIndex says whether a discoveryName, or what follows the prefix, is that of
// an index.
func isIndex(name string) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(name, indexPrefix), indexName)
	return ok && (rest == "" || len(rest) == 2 && rest[0] == '-')
}

// served is what a node has registered of one service. The two numbers are
// compared with the instances that DiscoverInstances shows, so that a reader
// knows whether an answer is as new as the index.
type served struct {
	Sequence uint64 // the highest of the node's instances
	Count    int    // of the node's instances
	Aliases  []lb.ClientAlias
}

func (s served) same(o served) bool { return s.Sequence == o.Sequence && s.Count == o.Count }

// indexEntry is what one node says in the index.
type indexEntry struct {
	Node     string
	Instance string            // ARN of its ECS container instance
	Services map[string]served // by discoveryName
	More     uint64            // sequence of the node's latest change; 0 if all its services are listed
	raw      map[string]string // what it was decoded from
}

// encode returns the entry as attributes. Services changed last come first.
// More stands for those that find no room: whoever reads services that are not
// listed looks at them all when it grows.
func (e *indexEntry) encode() map[string]string {
	attrs := map[string]string{attrVersion: indexVersion}
	if e.Instance != "" {
		attrs[attrInstance] = e.Instance
	}
	names := make([]string, 0, len(e.Services))
	for name := range e.Services {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Services[b].Sequence, e.Services[a].Sequence), cmp.Compare(a, b))
	})
	var lists []string
	for _, name := range names {
		item := e.Services[name].encode(name)
		last := len(lists) - 1
		switch {
		case len(item) > maxValue || last == maxLists-1 && len(lists[last])+1+len(item) > maxValue:
			attrs[attrMore] = strconv.FormatUint(e.More, 36)
		case last < 0 || len(lists[last])+1+len(item) > maxValue:
			lists = append(lists, item)
		default:
			lists[last] += ";" + item
		}
	}
	for i, list := range lists {
		attrs[listKey+strconv.Itoa(i)] = list
	}
	return attrs
}

func (s served) encode(name string) string {
	item := name + "=" + strconv.FormatUint(s.Sequence, 36) + "." + strconv.Itoa(s.Count)
	if len(s.Aliases) > 0 {
		item += "!" + formatAliases(s.Aliases, "@")
	}
	return item
}

// decodeIndex is the inverse of encode. Any part that does not parse is an
// error: half an entry would look like services that have gone.
func decodeIndex(node string, attrs map[string]string) (*indexEntry, error) {
	if v := attrs[attrVersion]; v != indexVersion {
		return nil, fmt.Errorf("decode index entry: version %q", v)
	}
	e := &indexEntry{Node: node, Instance: attrs[attrInstance], Services: map[string]served{}, raw: attrs}
	if text, ok := attrs[attrMore]; ok {
		n, err := strconv.ParseUint(text, 36, 64)
		if err != nil {
			return nil, fmt.Errorf("decode index entry: %s: %q is no number", attrMore, text)
		}
		e.More = n
	}
	for i := range maxLists {
		text, ok := attrs[listKey+strconv.Itoa(i)]
		if !ok {
			continue
		}
		for item := range strings.SplitSeq(text, ";") {
			name, s, err := decodeServed(item)
			if err != nil {
				return nil, err
			}
			e.Services[name] = s
		}
	}
	return e, nil
}

func decodeServed(item string) (name string, s served, err error) {
	name, rest, _ := strings.Cut(item, "=")
	numbers, aliases, _ := strings.Cut(rest, "!")
	sequence, count, _ := strings.Cut(numbers, ".")
	s.Sequence, err = strconv.ParseUint(sequence, 36, 64)
	if err == nil {
		s.Count, err = strconv.Atoi(count)
	}
	if err == nil {
		s.Aliases, err = parseAliases(aliases, "@")
	}
	if err != nil || s.Count < 0 || !checkDiscoveryName(name) {
		return "", served{}, fmt.Errorf("decode index entry: %q is no service", item)
	}
	return name, s, nil
}

// decodeWeights reads an instance whose id begins with weights. What does not
// parse is left out: it moves nothing.
func decodeWeights(attrs map[string]string, into map[string]int) {
	for name, text := range attrs {
		if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 100 && checkDiscoveryName(name) {
			into[name] = n
		}
	}
}
