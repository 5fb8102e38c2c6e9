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

// Listen takes a TCP address "host:port" for Serve.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // plain TCP is all a scrape needs
	ln, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return ln, nil
}

// Serve serves Handler on ln until ctx ends, then lets requests in flight end
// and returns nil. It closes ln.
func (e *Exporter) Serve(ctx context.Context, ln net.Listener) error {
	e.src.Log.Info("serving metrics", "address", ln.Addr().String()) // the port may have been 0
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
