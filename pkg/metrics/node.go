package metrics

import (
	"runtime"
	"time"

	"connectd/pkg/plan"
)

// emitNode adds what belongs to no service.
func (s *state) emitNode(f *families, out *scrape) {
	src := s.src
	if src.Kernel.Read != nil {
		s.emitKernel(f, out)
	}
	if src.HTTP.Read != nil {
		s.emitForwarder(f, out)
	}
	emitReasons(f.terminated, "reason", src.Terminated, out)
	emitReasons(f.dns, "outcome", src.DNS, out)
	emitReasons(f.events, "kind", src.Events, out)
	emitReasons(f.taskProbs, "reason", src.TaskProblems, out)
	emitFlag(f.off, src.Off, out)
	emitFlag(f.dockerUp, src.DockerUp, out)
	if s.desired != nil {
		s.emitDesired(f, out, s.desired)
	}
	if src.Reconcile != nil {
		emitReconcile(f, out, src.Reconcile())
	}
	if src.Catalog != nil {
		c := src.Catalog()
		out.add(f.catalogFiles, float64(c.Files), nil)
		out.add(f.catalogFailing, float64(c.Failing), nil)
		emitReload(f.catalogReload, f.catalogSuccess, f.catalogOK, c.Reload, out)
	}
	if src.Config != nil {
		emitReload(f.configReload, f.configSuccess, f.configOK, src.Config(), out)
	}
	if src.CloudWatch != nil {
		emitCloudWatch(f, out, src.CloudWatch())
	}
	if src.Instance != nil {
		emitInstance(f, out, src.Instance())
	}
	if src.Registry != nil {
		emitRegistry(f, out, src.Registry())
	}
	if src.AWS != nil {
		emitCalls(f, out, src.AWS())
	}
	if src.Heartbeat != nil {
		out.add(f.heartbeat, unixSeconds(src.Heartbeat()), nil)
	}
	out.add(f.build, 1, pairs("goversion", runtime.Version(), "revision", src.Build.Revision, "version", src.Build.Version))
}

func (s *state) emitKernel(f *families, out *scrape) {
	k := &s.kernel
	for _, c := range k.Outcomes {
		out.add(f.outcomes, float64(c.Value), pairs("reason", c.Reason))
	}
	out.add(f.eventsLost, float64(k.EventsLost), nil)
	out.add(f.kernelErrs, float64(s.readErrs), nil)
	for _, m := range k.Maps {
		l := pairs("map", m.Name)
		out.add(f.mapEntries, float64(m.Entries), l)
		out.add(f.mapBytes, float64(m.Bytes), l)
		if m.MaxEntries > 0 {
			out.add(f.mapMax, float64(m.MaxEntries), l)
			out.add(f.mapFill, float64(m.Entries)/float64(m.MaxEntries), l)
		}
	}
}

func (s *state) emitDesired(f *families, out *scrape, d *plan.Desired) {
	emitKinds(f.desired, out, len(d.Services), s.numEndpoints, len(d.Tasks))
	out.add(f.problems, float64(len(d.Problems)), nil)
	out.add(f.planRevision, float64(d.Revision), nil)
}

func emitKinds(f *family, out *scrape, services, endpoints, tasks int) {
	out.add(f, float64(services), pairs("kind", "service"))
	out.add(f, float64(endpoints), pairs("kind", "endpoint"))
	out.add(f, float64(tasks), pairs("kind", "task"))
}

func emitReconcile(f *families, out *scrape, r Reconcile) {
	emitKinds(f.programmed, out, r.Services, r.Endpoints, r.Tasks)
	out.add(f.revision, float64(r.Revision), nil)
	out.add(f.lag, r.Lag.Seconds(), nil)
	counts := appendCounts(nil, r.Passes.Counts, len(DurationBounds)+1)
	out.addHistogram(f.passes, DurationBounds, counts, r.Passes.SumMicroseconds, nil)
	out.add(f.passErrors, float64(r.Errors), nil)
	out.add(f.lastPass, unixSeconds(r.LastSuccess), nil)
}

func emitReload(last, success, ok *family, r Reload, out *scrape) {
	out.add(last, unixSeconds(r.Last), nil)
	out.add(success, unixSeconds(r.LastSuccess), nil)
	value := 0.0
	if r.OK {
		value = 1
	}
	out.add(ok, value, nil)
}

func emitReasons(f *family, label string, read func() []Counter, out *scrape) {
	if read == nil {
		return
	}
	for _, c := range read() {
		out.add(f, float64(c.Value), pairs(label, c.Reason))
	}
}

// emitFlag adds 0 or 1.
func emitFlag(f *family, read func() bool, out *scrape) {
	if read == nil {
		return
	}
	value := 0.0
	if read() {
		value = 1
	}
	out.add(f, value, nil)
}

// unixSeconds is 0 for the zero time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
