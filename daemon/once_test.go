package daemon

import (
	"context"
	"testing"

	"connectd/pkg/reconcile"
)

// TestOncePlanned: a part that reads what the kernel has kept does not begin
// while it is not known whose that is.
func TestOncePlanned(t *testing.T) {
	d := &daemon{loop: reconcile.New(reconcile.Params{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- d.oncePlanned(func(context.Context) error {
			t.Error("it began before the first plan")
			return nil
		})(ctx)
	}()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
