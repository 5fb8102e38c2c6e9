package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// collector implements prometheus.Collector over a state.
type collector struct {
	families *families

	mu    sync.Mutex
	state *state
	size  int // samples of the last scrape
}

func newCollector(src *Sources) *collector {
	return &collector{families: newFamilies(), state: newState(src)}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families.all {
		ch <- f.desc
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.scrape().send(ch)
}

func (c *collector) scrape() *scrape {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &scrape{samples: make([]sample, 0, c.size+c.size/8+256)}
	c.state.update()
	c.state.emit(c.families, out)
	c.state.emitNode(c.families, out)
	c.size = len(out.samples)
	return out
}
