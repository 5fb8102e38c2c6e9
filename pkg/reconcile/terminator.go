package reconcile

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// terminateInterval is how often connections to doomed endpoints are looked
// for while there are some: a connect that chose such an endpoint just before
// it was doomed shows up a moment later.
const terminateInterval = 200 * time.Millisecond

// Terminator ends connections to the endpoints that a plan has doomed.
type Terminator struct {
	Log    *slog.Logger
	Active func(lb.EndpointID) uint32
	// Terminate ends all connections to the endpoints and returns how many.
	Terminate func([]lb.EndpointID) (ended int, err error)

	latest chan *plan.Desired
	failed string // the last error, logged when it changes; owned by Run
}

// NewTerminator returns one that Run runs.
func NewTerminator(t Terminator) *Terminator {
	t.latest = make(chan *plan.Desired, 1)
	return &t
}

// Publish hands it the plan in force. One goroutine may call it; it does not
// wait.
func (t *Terminator) Publish(d *plan.Desired) {
	select {
	case <-t.latest: // of no interest any more
	default:
	}
	t.latest <- d
}

// Run ends connections until ctx does.
func (t *Terminator) Run(ctx context.Context) error {
	var doomed []lb.EndpointID
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-t.latest:
			if slices.Equal(doomed, d.Terminate) {
				continue // a plan each 10 ms must not mean a round each 10 ms
			}
			doomed = d.Terminate
		case <-timer.C:
		}
		if len(doomed) > 0 {
			t.round(doomed)
			timer.Reset(terminateInterval)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (t *Terminator) round(doomed []lb.EndpointID) {
	var busy []lb.EndpointID
	for _, id := range doomed {
		if t.Active(id) > 0 {
			busy = append(busy, id)
		}
	}
	if len(busy) == 0 {
		return
	}
	ended, err := t.Terminate(busy)
	if failed := errorText(err); failed != t.failed {
		t.failed = failed
		if err != nil {
			t.Log.Error("terminate connections, will try again", "endpoints", len(busy), "error", err)
		}
	}
	if ended > 0 {
		t.Log.Info("terminated connections", "endpoints", len(busy), "connections", ended)
	}
}
