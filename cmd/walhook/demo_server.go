package main

import (
	"context"
	"net"
	"net/http"
	"time"
)

// demoServer is what listens behind a subscription, or behind several.
type demoServer struct {
	base   string // of URLs, without a slash at the end
	server *http.Server
	served chan struct{} // closed when the server has ended
}

// startDemoServer starts a server on any port of this machine's own.
func startDemoServer(ctx context.Context, handler http.Handler) (*demoServer, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &demoServer{
		base:   "http://" + l.Addr().String(),
		server: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute},
		served: make(chan struct{}),
	}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(l) // ends when the server is closed
	}()
	return s, nil
}

func (s *demoServer) stop() {
	_ = s.server.Close()
	<-s.served
}
