package proxy

import "sync/atomic"

// Reasons of refusals that no answer could be given for.
const (
	reasonNotAdmitted = "not_admitted"   // a connection that the kernel did not leave to us
	reasonH2          = "http2_protocol" // an HTTP/2 connection that had to be ended
)

var refusalReasons = [...]string{
	reasonNoService, reasonOutOfScope, reasonNoEndpoint, reasonConnect, reasonReset, reasonMalformed, reasonTimeout,
	reasonBadRequest, reasonHeadTooLarge, reasonSlow, reasonSlowBody, reasonNeedsHTTP2, reasonNeedsHTTP1, reasonBodyFraming,
	reasonNotAdmitted, reasonNoDescriptor, reasonH2,
}

// refusals counts what connectd answered itself, or did not answer, by reason.
type refusals [len(refusalReasons)]atomic.Uint64

func (p *Proxy) refused(reason string) {
	for i, r := range refusalReasons {
		if r == reason {
			p.refusals[i].Add(1)
			return
		}
	}
}
