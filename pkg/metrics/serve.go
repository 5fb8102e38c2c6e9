package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// shutdownTime is what requests in flight may take to end: longer than a
// scrape of the most series over a slow link, shorter than ECS's stop timeout.
const shutdownTime = 5 * time.Second

// Serve listens on a TCP address "host:port" and serves Handler until ctx
// ends, then lets requests in flight end. It returns nil after ctx ended and
// an error when it cannot listen or go on.
func (e *Exporter) Serve(ctx context.Context, listen string) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // plain TCP is all a scrape needs
	ln, err := config.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	e.src.Log.Info("serving metrics", "address", ln.Addr().String()) // the port may have been 0
	return e.serve(ctx, ln)
}

func (e *Exporter) serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           e.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      scrapeTimeout + 20*time.Second, // the body after the wait for it
		IdleTimeout:       2 * time.Minute,                // longer than the usual scrape interval
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(e.src.Log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	// ctx has ended already: the grace needs one of its own.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
