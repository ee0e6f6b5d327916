package receiver

import (
	"context"
	"net/http"
	"sync"
)

// BackgroundOptions may be left empty, but for Failed.
type BackgroundOptions struct {
	// Failed is told of the events whose handling failed, or that were still waiting when Stop ran out of time.
	// It is required: nobody else hears of them, because the sender was told that all is well. Store them.
	Failed func(events []Event, err error)

	// Workers is how many requests are handled at the same time: 8 when zero.
	Workers int

	// Waiting is how many requests may wait, 1000 when zero, and WaitingBytes how large their bodies may be
	// together, with those at work: 64 MB when zero. One request is always taken.
	Waiting      int
	WaitingBytes int

	// Parse reads a request: the function Parse when nil.
	Parse func(header http.Header, body []byte) ([]Event, error)
}

// Background answers 202 as soon as a request is read, and handles its events afterwards: for handlers that take
// longer than the sender waits. It is an http.Handler to be put behind an Endpoint. When too much waits it
// answers 503 with a Retry-After, and the delivery comes again.
//
// Its price: what was answered 202 is not sent again. A crash loses what waits, and a failure is Failed's to
// keep. Where that is too much, write the event to a table of your own, answer, and work from there.
type Background struct {
	options BackgroundOptions
	handle  func(context.Context, []Event) error
	ctx     context.Context // of the handlers
	cancel  context.CancelFunc
	queue   chan accepted
	workers sync.WaitGroup

	mu      sync.Mutex
	bytes   int // of what waits or is at work
	stopped bool
}

// accepted is a request that was answered.
type accepted struct {
	events []Event
	size   int
}

// NewBackground starts the workers, which Stop ends. handle is a Manager's Handle, or a function of your own. It
// panics without a handle or Failed.
func NewBackground(handle func(context.Context, []Event) error, o BackgroundOptions) *Background {
	if handle == nil || o.Failed == nil {
		panic("receiver: NewBackground needs a handle, and Failed for what it cannot handle")
	}
	for option, otherwise := range map[*int]int{&o.Workers: 8, &o.Waiting: 1000, &o.WaitingBytes: 64 << 20} {
		if *option <= 0 {
			*option = otherwise
		}
	}
	b := &Background{options: o, handle: handle, queue: make(chan accepted, o.Waiting)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for range o.Workers {
		b.workers.Go(b.work)
	}
	return b
}

// ServeHTTP answers 202, 503 when too much waits or Stop was called, or 400 for what cannot be read.
func (b *Background) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events, size, err := readEvents(r, b.options.Parse)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case !b.take(accepted{events, size}):
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too much is waiting: try again later", http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (b *Background) take(a accepted) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || b.bytes > 0 && b.bytes+a.size > b.options.WaitingBytes {
		return false
	}
	select {
	case b.queue <- a:
		b.bytes += a.size
		return true
	default:
		return false
	}
}

// work handles what was accepted until there is nothing more to come.
func (b *Background) work() {
	for a := range b.queue {
		err := b.ctx.Err()
		if err == nil {
			err = protected(func() error { return b.handle(b.ctx, a.events) })
		}
		if err != nil {
			b.options.Failed(a.events, err)
		}
		b.mu.Lock()
		b.bytes -= a.size
		b.mu.Unlock()
	}
}

// Stop accepts nothing more and waits until everything that was accepted is handled. When ctx ends before, the
// handlers' context is cancelled, what still waits goes to Failed, and Stop returns ctx's error once the
// handlers have returned. Stop the HTTP server first. It may be called again.
func (b *Background) Stop(ctx context.Context) error {
	b.mu.Lock()
	if !b.stopped {
		b.stopped = true
		close(b.queue)
	}
	b.mu.Unlock()
	broken := context.AfterFunc(ctx, b.cancel)
	b.workers.Wait()
	if !broken() {
		return context.Cause(ctx)
	}
	b.cancel()
	return nil
}
