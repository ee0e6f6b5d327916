package main

import (
	"context"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/ops"
)

// What a client may take up: time for the headers of a request and their size, time for the body and for the answer, and
// time between two requests. Whoever needs more says so: pages that listen for hours set a deadline with each message.
const (
	headerTimeout = 5 * time.Second
	headerBytes   = 64 << 10
	bodyTimeout   = 30 * time.Second
	answerTimeout = 2 * time.Minute
	idleTimeout   = time.Minute
)

// lastAnswers is how long a server that stops waits for answers under way.
const lastAnswers = 2 * time.Second

// front is an address, and who answers there. A nil one is none.
type front struct {
	listener net.Listener
	server   *http.Server
	leave    context.CancelFunc // ends the requests
}

// newFront binds the address of a setting. Nobody answers yet.
func (s *service) newFront(ctx context.Context, setting, address string, handler http.Handler) (*front, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: set %[1]s to another address, or stop what uses this one", setting, err)
	}
	base, leave := context.WithCancel(context.Background())
	return &front{listener, s.newServer(base, handler), leave}, nil
}

// newServer makes the server of a front, whose requests end with base.
func (s *service) newServer(base context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler: impatient(handler), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: headerBytes,
		WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    stdlog.New(s.log.With().Str("component", "http").Logger(), "", 0),
	}
}

// impatient gives bodies their time: what a handler does not read, the server does, before it answers. It is no ReadTimeout,
// which would end requests that have no body and take longer.
func impatient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // not every server has one
		}
		next.ServeHTTP(w, r)
	})
}

// newMetricsFront binds the address of metrics, if they have one of their own.
func (s *service) newMetricsFront(ctx context.Context, cfg config.Config) (*front, error) {
	if cfg.MetricsListen == "" {
		return nil, nil
	}
	return s.newFront(ctx, "metrics_listen", cfg.MetricsListen, ops.Handler(s.ready, s.metrics))
}

// address is where it listens.
func (f *front) address() net.Addr {
	if f == nil {
		return nil
	}
	return f.listener.Addr()
}

// discard gives up a front that nobody has served.
func (f *front) discard() {
	if f != nil {
		f.leave()
		_ = f.listener.Close()
	}
}

// close ends requests first, since a page that listens would hold the stop; then answers have a moment to go out.
func (f *front) close() {
	if f == nil {
		return
	}
	f.leave()
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	_ = f.server.Shutdown(ctx)
	_ = f.server.Close()
}

// addresses adds to a message where to ask.
func (s *service) addresses(e *zerolog.Event) *zerolog.Event {
	e = e.Stringer("listen", s.front.address())
	if s.metricsFront != nil {
		e = e.Stringer("metrics_listen", s.metricsFront.address())
	}
	return e
}

// pages answers on listen: health and metrics at the root, whatever path_prefix is, and everything else from the
// present engine.
func (s *service) pages() http.Handler {
	health := ops.Handler(s.ready, s.metrics)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := s.engine.Load()
		switch {
		case r.URL.Path == "/metrics" && e.cfg.Load().MetricsListen != "":
			http.NotFound(w, r)
		case r.URL.Path == "/healthz", r.URL.Path == "/readyz", r.URL.Path == "/metrics":
			health.ServeHTTP(w, r)
		default:
			s.answer(w, r, e)
		}
	})
}

// answer lets the engine's face answer, or that of its successor: a reload may have come in between.
func (s *service) answer(w http.ResponseWriter, r *http.Request, e *engine) {
	for !e.face.answer(w, r) {
		next := s.engine.Load()
		if next == e {
			unavailable(w, r)
			return
		}
		e = next
	}
}

// unavailable answers that nobody can be answered yet, or any more.
func unavailable(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "5")
	if !strings.Contains(r.URL.Path, "/api/v1/") {
		http.Error(w, "not ready: /readyz says why", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"title":"Service Unavailable","status":503,"detail":"not ready: /readyz says why"}`+"\n")
}
