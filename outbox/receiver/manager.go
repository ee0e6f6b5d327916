package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
)

// Handler handles one event. An error, or a panic, makes the delivery come again.
type Handler func(ctx context.Context, e Event) error

// Manager hands events to the handlers that were registered for their type, to all of them, each on its own. It
// is an http.Handler to be put behind an Endpoint. Register everything before it is used.
type Manager struct {
	// Parse reads a request: the function Parse when nil. Set it to insist on one format.
	Parse func(header http.Header, body []byte) ([]Event, error)

	// Failed is told what went wrong with a request beside the answer that the sender gets; may be nil.
	Failed func(*http.Request, error)

	seen     Seen
	handlers []registered
	wrappers []func(Handler) Handler
}

type registered struct {
	pattern, name string
	handle        Handler
}

// NewManager makes a manager without handlers. seen remembers which handler has handled which event, so that a
// delivery that comes again runs only those that failed; with nil all run again.
func NewManager(seen Seen) *Manager { return &Manager{seen: seen} }

// On registers a handler for an event type: exactly that one, or patient.* for all that begin with "patient.", or
// * for all. The name tells handlers apart in the store and in errors, so it is kept when the code changes.
// It panics on a pattern or a name that cannot be meant: a star elsewhere, a name that is empty, has a space or
// is taken.
func (m *Manager) On(pattern, name string, handle Handler) {
	if prefix, family := strings.CutSuffix(pattern, "*"); pattern == "" || strings.Contains(prefix, "*") ||
		family && prefix != "" && !strings.HasSuffix(prefix, ".") {
		panic(fmt.Sprintf("receiver: event type %q: write patient.created, patient.* or *", pattern))
	}
	if name == "" || strings.ContainsAny(name, " \x00") {
		panic(fmt.Sprintf("receiver: handler name %q: use one without spaces", name))
	}
	if slices.ContainsFunc(m.handlers, func(r registered) bool { return r.name == name }) {
		panic(fmt.Sprintf("receiver: there are two handlers named %q", name))
	}
	m.handlers = append(m.handlers, registered{pattern, name, handle})
}

// Use puts a middleware around every handler; the first one is the outermost.
func (m *Manager) Use(middleware func(Handler) Handler) { m.wrappers = append(m.wrappers, middleware) }

// Handle hands each event to its handlers, in the order of events; the handlers of one event run at the same
// time. Whatever happens to one, all others run. The error joins those of all; an event without a handler is
// none. A handler that is at work on the same delivery already counts as failed, since nobody knows how it ends.
func (m *Manager) Handle(ctx context.Context, events []Event) error {
	var all []error
	for _, e := range events {
		var group sync.WaitGroup
		errs := make([]error, len(m.handlers))
		for i, r := range m.handlers {
			if r.matches(e.Type) {
				group.Go(func() { errs[i] = m.once(ctx, r, e) })
			}
		}
		group.Wait()
		all = append(all, errs...)
	}
	return errors.Join(all...)
}

func (r registered) matches(kind string) bool {
	prefix, family := strings.CutSuffix(r.pattern, "*")
	return r.pattern == kind || family && strings.HasPrefix(kind, prefix)
}

// ClaimID is the id under which a Manager claims an event for one of its handlers, for Postgres.Mark; empty when
// the event has no id.
func ClaimID(e Event, handler string) string {
	if e.ID == "" {
		return ""
	}
	return bounded(handler + " " + e.ID)
}

// once runs a handler unless it has handled the event before.
func (m *Manager) once(ctx context.Context, r registered, e Event) error {
	id := ClaimID(e, r.name)
	if m.seen == nil || id == "" {
		return m.run(ctx, r, e)
	}
	claim, err := m.seen.Claim(ctx, id)
	if errors.Is(err, ErrHandled) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("handler %s: %w", r.name, err)
	}
	err = m.run(ctx, r, e)
	return errors.Join(err, settle(ctx, claim, err == nil))
}

func (m *Manager) run(ctx context.Context, r registered, e Event) error {
	handle := r.handle
	for _, wrap := range slices.Backward(m.wrappers) {
		handle = wrap(handle)
	}
	if err := protected(func() error { return handle(ctx, e) }); err != nil {
		return fmt.Errorf("handler %s: %w", r.name, err)
	}
	return nil
}

// protected makes errors of panics. f runs in a goroutine of its own: one that ends it (runtime.Goexit) must not
// pass for one that succeeded, or keep what its caller has still to do from being done.
func protected(f func() error) error {
	err := errors.New("ended its goroutine without a result")
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		err = f()
	}()
	<-done
	return err
}

// ServeHTTP reads the request and handles its events. It answers 200 when all handlers succeeded, 400 when the
// request cannot be read, 409 when a handler is at work on the same delivery already, and 500 when one failed, so
// that the delivery comes again. What went wrong goes to Failed and not to the sender.
func (m *Manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events, _, err := readEvents(r, m.Parse)
	if err != nil {
		m.failed(r, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := m.Handle(r.Context(), events); {
	case errors.Is(err, ErrInProgress):
		m.failed(r, err)
		http.Error(w, "this delivery is being handled: try again later", http.StatusConflict)
	case err != nil:
		m.failed(r, err)
		http.Error(w, "not everything was handled: send it again", http.StatusInternalServerError)
	}
}

func (m *Manager) failed(r *http.Request, err error) {
	if m.Failed != nil {
		m.Failed(r, err)
	}
}

// readEvents parses a request's body, which an Endpoint has bounded, and returns its size in bytes as well.
func readEvents(r *http.Request, parse func(http.Header, []byte) ([]Event, error)) ([]Event, int, error) {
	body := Body(r)
	if body == nil {
		var err error
		if body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, DefaultMaxBody)); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	if parse == nil {
		parse = Parse
	}
	events, err := parse(r.Header, body)
	return events, len(body), err
}
