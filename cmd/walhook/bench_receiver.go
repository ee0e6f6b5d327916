package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// benchReceiverCommand is the benchmark's receiver: it takes requests on one address and tells what it took on
// another, until its standard input ends.
func (a *app) benchReceiverCommand() *cobra.Command {
	return &cobra.Command{
		Use: "bench-receiver", Hidden: true, Args: usage(cobra.NoArgs), Short: "Receive for walhook bench",
		RunE: func(c *cobra.Command, _ []string) error { return a.receive(c.Context()) },
	}
}

func (a *app) receive(ctx context.Context) error {
	var lc net.ListenConfig
	hooks, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for webhooks: %w", err)
	}
	control, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for questions: %w", err)
	}
	r := &benchReceiver{}
	r.phase.Store(newBenchPhase(1, false))
	hookServer, controlServer := &http.Server{Handler: r}, &http.Server{Handler: r.control()}
	var g errgroup.Group
	g.Go(func() error { return benchServe(hookServer, hooks) })
	g.Go(func() error { return benchServe(controlServer, control) })
	if err := json.NewEncoder(a.stdout).Encode(benchAddresses{Hooks: "http://" + hooks.Addr().String() + "/hook", Control: "http://" + control.Addr().String()}); err != nil {
		return fmt.Errorf("tell the addresses: %w", err)
	}
	_, _ = io.Copy(io.Discard, a.stdin) // however it ends, the benchmark is over
	_ = hookServer.Close()
	_ = controlServer.Close()
	return g.Wait()
}

func benchServe(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// benchAddresses is the receiver's first line of output.
type benchAddresses struct{ Hooks, Control string }

// benchReceiver answers every request with 200 and nothing else.
type benchReceiver struct{ phase atomic.Pointer[benchPhase] }

// benchPhase is what the receiver expects, and what of it has come.
type benchPhase struct {
	want      int64
	timed     bool // the bodies tell when they were sent
	count     atomic.Int64
	bytes     atomic.Int64
	first     atomic.Int64 // Unix nanoseconds
	last      atomic.Int64
	latencies []time.Duration // in the order of arrival
	complete  chan struct{}
}

func newBenchPhase(want int64, timed bool) *benchPhase {
	p := &benchPhase{want: want, timed: timed, complete: make(chan struct{})}
	if timed {
		p.latencies = make([]time.Duration, want)
	}
	return p
}

// ServeHTTP takes one webhook.
func (r *benchReceiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	p := r.phase.Load()
	if !p.timed {
		n, _ := io.Copy(io.Discard, req.Body)
		p.bytes.Add(n)
		p.take(time.Now(), events(req))
		return
	}
	body, _ := io.ReadAll(req.Body)
	now := time.Now()
	if sent, ok := sentAt(body); ok {
		p.bytes.Add(int64(len(body)))
		p.takeTimed(now, now.Sub(sent))
	}
}

// events is how many a request carries.
func events(req *http.Request) int64 {
	if n, err := strconv.ParseInt(req.Header.Get("X-Webhook-Batch"), 10, 64); err == nil {
		return n
	}
	return 1
}

// take counts n events in.
func (p *benchPhase) take(now time.Time, n int64) {
	count := p.count.Add(n)
	if count == n {
		p.first.Store(now.UnixNano())
	}
	if count >= p.want && count-n < p.want {
		p.last.Store(now.UnixNano())
		close(p.complete)
	}
}

func (p *benchPhase) takeTimed(now time.Time, latency time.Duration) {
	n := p.count.Add(1)
	if n <= p.want {
		p.latencies[n-1] = latency
	}
	if n == p.want {
		p.last.Store(now.UnixNano())
		close(p.complete)
	}
}

// benchReceipts is what a phase has received.
type benchReceipts struct {
	Complete  bool
	Count     int64
	Bytes     int64
	First     int64 // Unix nanoseconds
	Last      int64
	Latencies []time.Duration
}

// span is the time from the first request to the last.
func (r benchReceipts) span() time.Duration { return time.Duration(r.Last - r.First) }

// perSecond is the rate at which requests came.
func (r benchReceipts) perSecond() float64 { return float64(r.Count) / r.span().Seconds() }

// control answers the benchmark: /expect begins a phase, /result waits for its end, but not for long.
func (r *benchReceiver) control() http.Handler {
	const patience = time.Second
	mux := http.NewServeMux()
	mux.HandleFunc("POST /expect", func(w http.ResponseWriter, req *http.Request) {
		want, err := strconv.ParseInt(req.FormValue("want"), 10, 64)
		if err != nil || want < 1 {
			http.Error(w, "want must be a positive number", http.StatusBadRequest)
			return
		}
		r.phase.Store(newBenchPhase(want, req.FormValue("timed") == "true"))
	})
	mux.HandleFunc("GET /result", func(w http.ResponseWriter, req *http.Request) {
		p, timer := r.phase.Load(), time.NewTimer(patience)
		defer timer.Stop()
		out := benchReceipts{}
		select {
		case <-p.complete:
			out.Complete, out.Latencies = true, p.latencies
		case <-timer.C:
		case <-req.Context().Done():
		}
		out.Count, out.Bytes, out.First, out.Last = p.count.Load(), p.bytes.Load(), p.first.Load(), p.last.Load()
		_ = json.NewEncoder(w).Encode(out)
	})
	return mux
}
