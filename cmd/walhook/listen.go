package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/outbox/receiver"
)

// What a request may take: the largest payload with its envelope, and the times to send it.
const (
	listenMaxBody       = outbox.MaxPayload + 64<<10
	listenHeaderTimeout = 10 * time.Second
	listenReadTimeout   = time.Minute
	listenStop          = 10 * time.Second
)

type listenOptions struct {
	addr    string
	secrets []string
	scheme  string
	status  int
	forward string
	json    bool
	count   int
	save    string
	replay  []string
}

func (a *app) listenCommand() *cobra.Command {
	var o listenOptions
	c := &cobra.Command{
		Use:   "listen",
		Short: "Receive webhooks locally, verify and print them",
		Long: "Receive webhooks on a local address, verify their signatures and print them, until interrupted. Every request\n" +
			"is answered with --status, or with what --forward-to answers: a signature that is wrong is only shown. Without\n" +
			"--forward-to a CloudEvents sender that asks for permission gets it, and Slack's challenge is answered. With\n" +
			"--json one object a line.\n\n" +
			"--save keeps each request as a file, and --replay sends such files to --forward-to instead of listening, as they\n" +
			"came: with the same headers, so that a receiver that checks timestamps may find them too old.",
		Example: "  walhook listen --secret s3cret --forward-to http://127.0.0.1:3000/webhooks\n" +
			"  walhook listen --save requests\n" +
			"  walhook listen --replay requests --forward-to http://127.0.0.1:3000/webhooks",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if len(o.replay) > 0 {
				return replayRequests(c.Context(), a.stdout, o)
			}
			l, err := newListener(a, o)
			if err != nil {
				return err
			}
			return l.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:9000", "address to receive on")
	f.StringArrayVar(&o.secrets, "secret", nil, "the subscription's secret, any of several; without one signatures are not verified (better given as WALHOOK_SECRET)")
	f.StringVar(&o.scheme, "scheme", schemeAuto, "how requests are signed: sha256, standard, standard-ed25519, github, sha1, stripe, shopify, slack, or by their headers (auto)")
	f.IntVar(&o.status, "status", http.StatusOK, "answer with this status, 200 to 599")
	f.StringVar(&o.forward, "forward-to", "", "pass each request on to this URL with all its headers, and answer what comes back")
	f.BoolVar(&o.json, "json", false, "print one JSON object a line")
	f.IntVar(&o.count, "count", 0, "end after this many requests (0: when interrupted)")
	f.StringVar(&o.save, "save", "", "keep each request as a JSON file in this directory, which is made if need be")
	f.StringArrayVar(&o.replay, "replay", nil, "send the saved requests of this file or directory to --forward-to, print the answers, and end")
	return c
}

// listener is the command's receiver.
type listener struct {
	options listenOptions
	stderr  io.Writer
	forward *forwarder // nil without --forward-to
	judge   *judge
	saver   *saver // nil without --save

	mu       sync.Mutex
	printer  *requestPrinter
	accepted int           // requests, of at most options.count
	ended    error         // why printing went wrong
	done     chan struct{} // closed when no more requests are taken
}

func newListener(a *app, o listenOptions) (*listener, error) {
	switch {
	case o.status < 200 || o.status > 599:
		return nil, fmt.Errorf("%w: --status %d is no final HTTP status: give one from 200 to 599", errUsage, o.status)
	case o.count < 0:
		return nil, fmt.Errorf("%w: --count %d is negative: give the number of requests, or 0 for no end", errUsage, o.count)
	}
	judge, err := newJudge(o.scheme, o.secrets)
	if err != nil {
		return nil, err
	}
	l := &listener{options: o, stderr: a.stderr, judge: judge, printer: newRequestPrinter(a.stdout, o.json), done: make(chan struct{})}
	if o.forward != "" {
		target, err := forwardTarget(o.forward)
		if err != nil {
			return nil, err
		}
		l.forward = newForwarder(target)
	}
	if o.save != "" {
		if l.saver, err = newSaver(o.save); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// run receives until ctx ends or enough requests have come. Requests under way are answered before it
// returns.
func (l *listener) run(ctx context.Context) error {
	if _, _, err := net.SplitHostPort(l.options.addr); err != nil {
		return fmt.Errorf("%w: --addr %s is no address: write host:port, as in 127.0.0.1:9000", errUsage, quote(l.options.addr))
	}
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.options.addr)
	if err != nil {
		return fmt.Errorf("listen for webhooks: %w", err)
	}
	server := &http.Server{
		Handler: l, ReadHeaderTimeout: listenHeaderTimeout, ReadTimeout: listenReadTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	if l.forward != nil {
		defer l.forward.close()
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(socket) }()
	_, _ = fmt.Fprintf(l.stderr, "listening on http://%s\n", socket.Addr())
	select {
	case err := <-served:
		return fmt.Errorf("receive webhooks: %w", err)
	case <-l.done: // the last requests may still be forwarded, unless somebody interrupts
		_ = server.Shutdown(ctx)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), listenStop)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close() // what still hangs has had its time
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("receive webhooks: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// ServeHTTP receives one request.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, listenMaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		_, _ = fmt.Fprintf(l.stderr, "refused a request of more than %d bytes from %s\n", large.Limit, r.RemoteAddr)
		http.Error(w, fmt.Sprintf("the body has more than %d bytes", large.Limit), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		panic(http.ErrAbortHandler) // the sender broke off: there is nobody to answer
	}
	if !l.take() {
		http.Error(w, "enough requests were received (--count)", http.StatusServiceUnavailable)
		return
	}
	received := &receivedRequest{at: time.Now(), request: r, body: body, judgement: l.judge.of(r.Header, body)}
	l.save(received)
	received.answer = l.answer(r, body)
	l.print(received)
	received.answer.write(w)
}

// answer is what --forward-to answers, or what the options and the sender's questions ask for.
func (l *listener) answer(r *http.Request, body []byte) answer {
	if l.forward != nil {
		a := l.forward.pass(r.Context(), r.Method, r.Header, body)
		if a.err != nil {
			_, _ = fmt.Fprintf(l.stderr, "FORWARDING FAILED, the sender was answered %d: %s\n", a.status, printable(a.err.Error()))
		}
		return a
	}
	if grant, asked := receiver.CloudEventsGrant(r.Header, "*"); asked && r.Method == http.MethodOptions {
		return answer{status: http.StatusOK, header: grant}
	}
	if challenge, asked := receiver.SlackChallenge(body); asked {
		plain := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}
		return answer{status: http.StatusOK, header: plain, body: []byte(challenge)}
	}
	return answer{status: l.options.status}
}

// save keeps a request if that is asked for. It goes on when that is impossible, but not silently.
func (l *listener) save(r *receivedRequest) {
	if l.saver == nil {
		return
	}
	if err := l.saver.save(r); err != nil {
		_, _ = fmt.Fprintf(l.stderr, "NOT SAVED: %s\n", printable(err.Error()))
	}
}

// take counts a request in. The last one ends the run, once it is answered.
func (l *listener) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.options.count > 0 && l.accepted == l.options.count {
		return false
	}
	l.accepted++
	if l.accepted == l.options.count {
		close(l.done)
	}
	return true
}

// print writes one request whole. When that is impossible there is nothing left to listen for.
func (l *listener) print(r *receivedRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return
	}
	if err := l.printer.print(r); err != nil {
		l.ended = fmt.Errorf("print a request: %w", err)
		if l.options.count == 0 || l.accepted < l.options.count {
			l.options.count = l.accepted
			close(l.done)
		}
	}
}
