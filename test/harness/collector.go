package harness

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Request is what a collector received. Nothing in it is shared with the server, so it may be kept.
type Request struct {
	At     time.Time // when its last byte had arrived
	Method string
	Host   string
	Path   string
	Query  string // without the question mark
	Header http.Header
	Body   []byte // nil when bodies are discarded
}

// ID is the delivery's id, X-Webhook-ID.
func (r *Request) ID() string { return r.Header.Get("X-Webhook-ID") }

// Response says how a collector answers. The zero Response is an empty 200.
type Response struct {
	Status int // 0 means 200
	Header http.Header
	Body   []byte
	// Delay holds the answer back until the channel is closed, the client has gone or the test ends.
	Delay <-chan struct{}
	// Reset answers nothing: the connection is reset, after the whole request was read.
	Reset bool
	// Endless repeats Body (or an x) until the client closes the connection or the test ends.
	Endless bool
}

// Collector is a webhook receiver. It records every request and answers 200 unless told otherwise. Its
// methods may be called from any goroutine, but Wait and Quiet, which end the test when they fail, only from
// the test's own.
type Collector struct {
	t       testing.TB
	url     string
	discard bool

	answering sync.Mutex // held while answer runs: one call at a time, and outside of mu

	mu       sync.Mutex
	requests []Request
	script   []Response
	answer   func(Request) Response
	waiters  []waiter
}

// waiter is told when n requests have arrived.
type waiter struct {
	n       int
	arrived chan struct{}
}

// CollectorOption changes a collector as it is made.
type CollectorOption func(*collectorOptions)

type collectorOptions struct {
	address string
	discard bool
}

// DiscardBodies leaves the bodies out of the recorded requests: a benchmark receives gigabytes of them.
func DiscardBodies() CollectorOption { return func(o *collectorOptions) { o.discard = true } }

// ListenOn makes the collector listen on an address of the form 127.0.0.1:port instead of a free port: for
// a receiver that was not there yet when its first delivery came.
func ListenOn(address string) CollectorOption {
	return func(o *collectorOptions) { o.address = address }
}

// NewCollector starts a collector on a loopback port. It ends with the test, breaking off what is under way.
func NewCollector(t testing.TB, options ...CollectorOption) *Collector {
	t.Helper()
	o := collectorOptions{address: "127.0.0.1:0"}
	for _, option := range options {
		option(&o)
	}
	listener, err := net.Listen("tcp", o.address)
	require.NoError(t, err)
	c := &Collector{t: t, url: "http://" + listener.Addr().String(), discard: o.discard}
	t.Cleanup(c.serve(listener))
	return c
}

// serve answers on the listener until stop is called, which returns when every connection has been closed.
func (c *Collector) serve(listener net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var connections sync.WaitGroup
	server := &http.Server{
		Handler:     http.HandlerFunc(c.handle),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew: // still on Serve's goroutine, so that none is missed below
				connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				connections.Done()
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with http.ErrServerClosed
	}()
	return func() {
		cancel()
		_ = server.Close()
		<-served
		_ = server.Close() // for a connection that was accepted during the first one
		connections.Wait()
	}
}

func (c *Collector) handle(w http.ResponseWriter, r *http.Request) {
	request, err := c.read(r)
	if err != nil {
		panic(http.ErrAbortHandler) // the client broke off, so this was no request
	}
	response := c.record(request)
	if response.Delay != nil {
		select {
		case <-response.Delay:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // net/http's way to close without an answer; returning means 200
		}
	}
	if response.Reset {
		reset(w)
		return
	}
	response.write(w)
}

func (c *Collector) read(r *http.Request) (Request, error) {
	request := Request{Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header}
	var err error
	if c.discard {
		_, err = io.Copy(io.Discard, r.Body)
	} else {
		request.Body, err = io.ReadAll(r.Body)
	}
	request.At = time.Now()
	return request, err
}

// record keeps the request, tells those who wait for it, and decides the answer.
func (c *Collector) record(request Request) Response {
	response, answer := c.append(request)
	if answer == nil {
		return response
	}
	c.answering.Lock()
	defer c.answering.Unlock()
	return answer(request)
}

func (c *Collector) append(request Request) (Response, func(Request) Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, request)
	if len(c.waiters) > 0 {
		c.waiters = slices.DeleteFunc(c.waiters, func(w waiter) bool {
			if w.n > len(c.requests) {
				return false
			}
			close(w.arrived)
			return true
		})
	}
	if len(c.script) > 0 {
		response := c.script[0]
		c.script = c.script[1:]
		return response, nil
	}
	return Response{}, c.answer
}

// reset closes the connection so that the kernel sends RST: it does for a linger time of zero.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the client was faster
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// write sends the response. Errors mean that the client has gone.
func (r *Response) write(w http.ResponseWriter) {
	for name, values := range r.Header {
		w.Header()[name] = values
	}
	if r.Status != 0 {
		w.WriteHeader(r.Status)
	}
	if !r.Endless {
		_, _ = w.Write(r.Body)
		return
	}
	piece := r.Body
	if len(piece) == 0 {
		piece = []byte("x")
	}
	for piece = bytes.Repeat(piece, 1+32*1024/len(piece)); ; {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// URL is where to send webhooks: http://127.0.0.1:port, without a path. Any path under it will do.
func (c *Collector) URL() string { return c.url }

// Script adds responses, used in order, one a request. After the last of them Answer's function decides
// again, or else it is 200 for ever.
func (c *Collector) Script(responses ...Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.script = append(c.script, responses...)
}

// Answer makes f decide every answer that no script does; nil brings 200 back. f is called with one request
// at a time, after it was recorded. To keep a client waiting it returns a Delay instead of blocking, which
// would keep them all waiting.
func (c *Collector) Answer(f func(Request) Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

// Requests returns the requests that have arrived, in order of arrival.
func (c *Collector) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Count returns how many requests have arrived.
func (c *Collector) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

// ByID groups the requests by X-Webhook-ID, each group in order of arrival: the attempts of a delivery.
func (c *Collector) ByID() map[string][]Request {
	groups := make(map[string][]Request)
	for _, request := range c.Requests() {
		groups[request.ID()] = append(groups[request.ID()], request)
	}
	return groups
}

// Wait blocks until n requests have arrived since the collector was made and returns all that have by then.
// When they do not come within the given time, the test fails.
func (c *Collector) Wait(n int, within time.Duration) []Request {
	c.t.Helper()
	if !happens(c.reach(n), within) {
		if came := c.Count(); came < n {
			c.t.Fatalf("%d of %d requests arrived within %s", came, n, within)
		}
	}
	return c.Requests()
}

// Quiet blocks for d. When a request arrives in this time, the test fails.
func (c *Collector) Quiet(d time.Duration) {
	c.t.Helper()
	before := c.Count()
	if happens(c.reach(before+1), d) {
		r := c.Requests()[before]
		c.t.Fatalf("%s %s (X-Webhook-ID %q, attempt %q) arrived, and nothing should have: %s",
			r.Method, r.Path, r.ID(), r.Header.Get("X-Webhook-Attempt"), r.Body)
	}
}

// reach returns a channel that is closed when n requests have arrived.
func (c *Collector) reach(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := waiter{n: n, arrived: make(chan struct{})}
	if n <= len(c.requests) {
		close(w.arrived)
	} else {
		c.waiters = append(c.waiters, w)
	}
	return w.arrived
}

// happens reports whether the event comes before the time is over.
func happens(event <-chan struct{}, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-event:
		return true
	case <-timer.C:
		return false
	}
}
