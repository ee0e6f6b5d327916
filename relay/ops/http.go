package ops

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Ready is what /readyz answers.
type Ready struct {
	Ready bool   `json:"ready"`
	State string `json:"state"`
	Code  string `json:"code,omitempty"` // of the problem, for programs
	Error string `json:"error,omitempty"`
	// Remedy is what mends it; Error has it as well.
	Remedy string `json:"remedy,omitempty"`
}

// Handler serves /healthz (the process is alive), /readyz (connected, slot owned or standing by; 503
// otherwise) and /metrics.
func Handler(ready func() Ready, m *Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := ready()
		w.Header().Set("Content-Type", "application/json")
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(r)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.Registry(), promhttp.HandlerOpts{}))
	return mux
}
