package daemon

import (
	"slices"
	"sync"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
	"connectd/pkg/task"
)

// merged is what the catalog files, the local tasks and the registry list
// together.
type merged struct {
	merger *catalog.Merger // the loop's

	mu   sync.Mutex
	last []catalog.Clash
}

// listServices is the catalog as the loop plans it.
func (d *daemon) listServices() []*lb.Service {
	files, _ := d.catalog.Snapshot()
	listings := []catalog.Listing{{Source: "file", Services: files, Indexed: true}}
	if d.tasks.node != nil {
		listings = append(listings, catalog.Listing{Source: "tasks", Services: d.tasks.node.Services()})
	}
	if d.registry != nil {
		listed, _ := d.registry.Snapshot()
		listings = append(listings, catalog.Listing{Source: "cloudmap", Services: listed})
	}
	services, clashes := d.merged.merger.Merge(listings)
	d.merged.mu.Lock()
	before := d.merged.last
	d.merged.last = clashes
	d.merged.mu.Unlock()
	for _, c := range clashes {
		if !slices.Contains(before, c) {
			d.reportProblem(task.Problem{Task: c.Task, Field: c.Service.String(), Reason: c.Reason, Detail: c.Detail})
		}
	}
	return services
}

func (m *merged) clashes() []catalog.Clash {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}
