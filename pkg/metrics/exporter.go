package metrics

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxScrapes is for two Prometheus servers and a person.
	maxScrapes = 3
	// scrapeTimeout is Prometheus's own default: later nobody waits.
	scrapeTimeout = 10 * time.Second
)

// Exporter serves /metrics, /livez and /readyz.
type Exporter struct {
	src       Sources
	registry  *prometheus.Registry
	collector *collector
	handler   http.Handler
}

// New returns an Exporter of src with a registry of its own.
func New(src Sources) *Exporter {
	if src.Log == nil {
		src.Log = slog.New(slog.DiscardHandler)
	}
	e := &Exporter{src: src, registry: prometheus.NewRegistry()}
	e.collector = newCollector(&e.src)
	e.registry.MustRegister(
		e.collector,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(src.Log.Handler(), slog.LevelWarn),
		// One bad sample must not hide all the others; it is counted.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            e.registry,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	}))
	mux.HandleFunc("GET /livez", e.livez)
	mux.HandleFunc("GET /readyz", e.readyz)
	e.handler = mux
	return e
}

// Handler serves the three paths; the methods are GET and HEAD.
func (e *Exporter) Handler() http.Handler { return e.handler }

func (e *Exporter) livez(w http.ResponseWriter, _ *http.Request) {
	if e.src.Live != nil {
		if err := e.src.Live(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	w.Write([]byte("ok\n"))
}

func (e *Exporter) readyz(w http.ResponseWriter, _ *http.Request) {
	if e.src.Ready != nil {
		if missing := e.src.Ready(); len(missing) > 0 {
			http.Error(w, strings.Join(missing, "\n"), http.StatusServiceUnavailable)
			return
		}
	}
	w.Write([]byte("ok\n"))
}
