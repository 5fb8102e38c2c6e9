package metrics

// settleEndpoints books what endpoints have grown by.
func (s *state) settleEndpoints() {
	for _, svc := range s.order {
		svc.restActive = 0
	}
	s.other.restActive = 0
	for id, now := range s.kernel.Endpoints {
		e := s.endpointOf(id)
		if e == nil {
			continue
		}
		counters := now.counters()
		if counters[opened] < e.mark[opened] {
			clear(e.mark[:])
		}
		e.active = now.Active
		switch {
		case e.own:
			grow(e.mark[:], counters[:], e.shown[:])
		case e.service.own[blockTraffic]:
			grow(e.mark[:], counters[:], e.service.rest[:])
			e.service.restActive += now.Active
		default:
			grow(e.mark[:], counters[:], s.other.rest[:])
			s.other.restActive += now.Active
		}
	}
}

func (s *state) settleServices() {
	bounds := len(s.src.Kernel.Bounds)
	for id, now := range s.kernel.Services {
		svc := s.byID[id]
		if svc == nil {
			continue
		}
		v := appendCounts(s.scratch[:0], now.Failures, len(s.src.Kernel.Reasons))
		v = appendHistogram(v, now.ConnectTime, bounds+1)
		v = appendHistogram(v, now.SRTT, bounds+1)
		svc.traffic.settle(v, svc.own[blockTraffic], s.other.traffic.shown)
		s.scratch = v
	}
}

// forget drops endpoints and services of which neither the plan nor any reading
// knows.
func (s *state) forget() {
	for id, e := range s.endpoints {
		if _, ok := s.kernel.Endpoints[id]; !ok && !e.listed && !s.http.hasEndpoint(id) {
			delete(s.endpoints, id)
		}
	}
	for id, svc := range s.byID {
		if _, ok := s.kernel.Services[id]; !ok && svc.plan == nil && !s.http.hasService(id) {
			delete(s.byID, id)
		}
	}
}

func (s *state) settleProbes() {
	if s.src.Probes.Each == nil {
		return
	}
	for name, now := range s.src.Probes.Each {
		svc := s.byName[name]
		if svc == nil {
			continue
		}
		limit := limitIdle
		if svc.used {
			limit = limitService
		}
		own := s.allot(svc, blockProbe, limit)
		v := appendCounts(s.scratch[:0], now.Results, len(s.src.Probes.Results))
		v = appendHistogram(v, now.Duration, len(DurationBounds)+1)
		svc.probes.settle(v, own, s.other.probes.shown)
		s.scratch = v
	}
}

func (s *state) settleEjections() {
	if s.src.Ejections == nil {
		return
	}
	for name, n := range s.src.Ejections() {
		if svc := s.byName[name]; svc != nil {
			s.scratch = append(s.scratch[:0], n)
			svc.ejected.settle(s.scratch, svc.own[blockState], s.other.ejected.shown)
		}
	}
}
