package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// sample is one metric of one scrape. It stands in for prometheus's const
// metrics, which make and sort their labels anew for every scrape.
type sample struct {
	family *family
	labels []*dto.LabelPair // sorted, shared between scrapes
	value  float64
	// Histograms only.
	bounds []float64
	counts []uint64
}

func (m *sample) Desc() *prometheus.Desc { return m.family.desc }

func (m *sample) Write(out *dto.Metric) error {
	out.Label = m.labels
	switch m.family.kind {
	case gauge:
		out.Gauge = &dto.Gauge{Value: &m.value}
	case counter:
		out.Counter = &dto.Counter{Value: &m.value}
	case histogram:
		out.Histogram = m.histogram()
	}
	return nil
}

func (m *sample) histogram() *dto.Histogram {
	n := len(m.bounds)
	cumulative := make([]uint64, n+1)
	buckets := make([]dto.Bucket, n)
	refs := make([]*dto.Bucket, n)
	var total uint64
	for i, c := range m.counts {
		total += c
		cumulative[i] = total
	}
	for i := range n {
		buckets[i].UpperBound = &m.bounds[i]
		buckets[i].CumulativeCount = &cumulative[i]
		refs[i] = &buckets[i]
	}
	return &dto.Histogram{SampleCount: &cumulative[n], SampleSum: &m.value, Bucket: refs}
}

// scrape gathers samples. They are sent when all are there, because they are
// sent by address.
type scrape struct{ samples []sample }

func (s *scrape) add(f *family, value float64, labels []*dto.LabelPair) {
	s.samples = append(s.samples, sample{family: f, value: value, labels: labels})
}

// addHistogram adds counts, not cumulative, that are not written to before
// the scrape has been encoded.
func (s *scrape) addHistogram(f *family, bounds []float64, counts []uint64, micros uint64, labels []*dto.LabelPair) {
	s.samples = append(s.samples, sample{
		family: f, value: float64(micros) / 1e6, labels: labels, bounds: bounds, counts: counts,
	})
}

func (s *scrape) send(ch chan<- prometheus.Metric) {
	for i := range s.samples {
		ch <- &s.samples[i]
	}
}

// pairs makes labels of names and values in turn; names must be sorted.
func pairs(namesAndValues ...string) []*dto.LabelPair {
	out := make([]*dto.LabelPair, len(namesAndValues)/2)
	for i := range out {
		value := strings.ToValidUTF8(namesAndValues[2*i+1], "?")
		out[i] = &dto.LabelPair{Name: &namesAndValues[2*i], Value: &value}
	}
	return out
}
