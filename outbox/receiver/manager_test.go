package receiver_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

// calls notes what handlers were given, in the order in which they were called.
type calls struct {
	mu   sync.Mutex
	list []string
}

func (c *calls) handler(name string, err error) receiver.Handler {
	return func(_ context.Context, e receiver.Event) error {
		c.note(name + " " + e.Type + " " + e.ID)
		return err
	}
}

func (c *calls) note(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, what)
}

func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

var errHandler = errors.New("no luck")

func TestManagerHandsEventsToAllThatMatch(t *testing.T) {
	t.Parallel()
	var c calls
	m := receiver.NewManager(nil)
	m.On("patient.created", "exact", c.handler("exact", nil))
	m.On("patient.*", "family", c.handler("family", nil))
	m.On("*", "all", c.handler("all", nil))
	for kind, want := range map[string][]string{
		"patient.created":       {"exact patient.created 1", "family patient.created 1", "all patient.created 1"},
		"patient.visit.created": {"family patient.visit.created 1", "all patient.visit.created 1"},
		"patient":               {"all patient 1"},
		"patients.created":      {"all patients.created 1"},
		"":                      {"all  1"},
	} {
		require.NoError(t, m.Handle(t.Context(), []receiver.Event{{ID: "1", Type: kind}}))
		require.ElementsMatch(t, want, c.take())
	}
	require.NoError(t, receiver.NewManager(nil).Handle(t.Context(), []receiver.Event{{ID: "1", Type: "unheard.of"}}))
}

func TestManagerRegistersWhatCanBeMeant(t *testing.T) {
	t.Parallel()
	m := receiver.NewManager(nil)
	handle := (&calls{}).handler("", nil)
	m.On("a.b", "taken", handle)
	for _, c := range [][2]string{{"", "n"}, {"a*", "n"}, {"*.a", "n"}, {"a.*.b", "n"}, {"**", "n"}, {"a.b", ""}, {"a.b", "two words"}, {"a.b", "taken"}} {
		require.Panics(t, func() { m.On(c[0], c[1], handle) }, c)
	}
}

func TestManagerIsolatesFailures(t *testing.T) {
	t.Parallel()
	var c calls
	m := receiver.NewManager(nil)
	m.On("*", "failing", c.handler("failing", errHandler))
	m.On("*", "panicking", func(context.Context, receiver.Event) error { panic("at the disco") })
	m.On("*", "vanishing", func(context.Context, receiver.Event) error { runtime.Goexit(); return nil })
	m.On("*", "fine", c.handler("fine", nil))
	err := m.Handle(t.Context(), []receiver.Event{{ID: "1", Type: "a"}, {ID: "2", Type: "b"}})
	require.ElementsMatch(t, []string{"failing a 1", "fine a 1", "failing b 2", "fine b 2"}, c.take())
	require.ErrorIs(t, err, errHandler)
	for _, says := range []string{"handler failing: no luck", "handler panicking: panic: at the disco", "manager_test.go", "handler vanishing: ended"} {
		require.ErrorContains(t, err, says)
	}
}

// A handler that hangs holds up no other handler of the event.
func TestManagerRunsHandlersAtTheSameTime(t *testing.T) {
	t.Parallel()
	m := receiver.NewManager(nil)
	met := make(chan struct{})
	m.On("*", "one", func(context.Context, receiver.Event) error { met <- struct{}{}; return nil })
	m.On("*", "two", func(context.Context, receiver.Event) error { <-met; return nil })
	require.NoError(t, m.Handle(t.Context(), []receiver.Event{{ID: "1"}}))
}

func TestManagerKeepsTheOrderOfABatch(t *testing.T) {
	t.Parallel()
	var c calls
	m := receiver.NewManager(nil)
	m.On("*", "h", c.handler("h", errHandler))
	require.Error(t, m.Handle(t.Context(), []receiver.Event{{ID: "1"}, {ID: "2"}, {ID: "3"}}))
	require.Equal(t, []string{"h  1", "h  2", "h  3"}, c.take())
}

func TestManagerRunsOnlyWhatFailedAgain(t *testing.T) {
	t.Parallel()
	var c calls
	result := errHandler
	m := receiver.NewManager(receiver.NewMemory(100, time.Hour))
	m.On("*", "fine", c.handler("fine", nil))
	m.On("*", "flaky", func(ctx context.Context, e receiver.Event) error { return c.handler("flaky", result)(ctx, e) })
	events := []receiver.Event{{ID: "1"}, {ID: "2"}}
	require.Error(t, m.Handle(t.Context(), events))
	require.Len(t, c.take(), 4)
	result = nil
	require.NoError(t, m.Handle(t.Context(), append(events, receiver.Event{ID: "3"})), "in other company")
	require.ElementsMatch(t, []string{"flaky  1", "flaky  2", "flaky  3", "fine  3"}, c.take())
	require.NoError(t, m.Handle(t.Context(), events))
	require.Empty(t, c.take())
	require.NoError(t, m.Handle(t.Context(), []receiver.Event{{}, {}}), "events without an id are no duplicates of each other")
	require.Len(t, c.take(), 4)
}

func TestManagerForgetsHandlersThatVanish(t *testing.T) {
	t.Parallel()
	store := receiver.NewMemory(100, time.Hour)
	for _, end := range []func(){func() { panic("x") }, runtime.Goexit} {
		m := receiver.NewManager(store)
		m.On("*", "h", func(context.Context, receiver.Event) error { end(); return nil })
		require.Error(t, m.Handle(t.Context(), []receiver.Event{{ID: "1"}}))
	}
	claim, err := store.Claim(t.Context(), receiver.ClaimID(receiver.Event{ID: "1"}, "h"))
	require.NoError(t, err)
	require.NoError(t, claim.Done(t.Context()))
}

func TestManagerWithoutItsStore(t *testing.T) {
	t.Parallel()
	var c calls
	m := receiver.NewManager(brokenStore{})
	m.On("*", "h", c.handler("h", nil))
	require.ErrorIs(t, m.Handle(t.Context(), []receiver.Event{{ID: "1"}}), errStore)
	require.Empty(t, c.take())
	m = receiver.NewManager(brokenStore{claims: true})
	m.On("*", "h", c.handler("h", nil))
	require.ErrorIs(t, m.Handle(t.Context(), []receiver.Event{{ID: "1"}}), errStore, "nobody knows that it was handled")
}

func TestManagerWrapsHandlers(t *testing.T) {
	t.Parallel()
	var c calls
	m := receiver.NewManager(nil)
	m.On("*", "h", c.handler("h", nil))
	for _, name := range []string{"outer", "inner"} {
		m.Use(func(next receiver.Handler) receiver.Handler {
			return func(ctx context.Context, e receiver.Event) error {
				c.note(name)
				e.Type += "!"
				return next(ctx, e)
			}
		})
	}
	require.NoError(t, m.Handle(t.Context(), []receiver.Event{{ID: "1"}}))
	require.Equal(t, []string{"outer", "inner", "h !! 1"}, c.take())
}

const envelope1 = `{"event_type":"a.b","event_data":{"n":1.50},"webhook_id":"d-1","timestamp":"2026-07-01T00:00:00.5Z","attempt":2}`

func TestManagerAnswers(t *testing.T) {
	t.Parallel()
	var failed []error
	var result error
	store := receiver.NewMemory(100, time.Hour)
	m := receiver.NewManager(store)
	m.Failed = func(_ *http.Request, err error) { failed = append(failed, err) }
	m.On("a.b", "h", func(context.Context, receiver.Event) error { return result })
	h := endpoint(t).Middleware(m)
	result = errHandler
	w := serve(h, request(t, "d-1", envelope1))
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "luck", "that is not for the sender")
	require.ErrorIs(t, failed[0], errHandler)
	result = nil
	require.Equal(t, 200, serve(h, request(t, "d-1", envelope1)).Code)

	claim, err := store.Claim(t.Context(), receiver.ClaimID(receiver.Event{ID: "d-2"}, "h"))
	require.NoError(t, err)
	other := strings.Replace(envelope1, "d-1", "d-2", 1)
	require.Equal(t, http.StatusConflict, serve(h, request(t, "d-2", other)).Code)
	require.NoError(t, claim.Release(t.Context()))

	require.Equal(t, 400, serve(h, request(t, "d-1", "no JSON")).Code)
	require.ErrorIs(t, failed[len(failed)-1], receiver.ErrFormat)
	m.Parse = func(http.Header, []byte) ([]receiver.Event, error) { return nil, errHandler }
	require.Equal(t, 400, serve(h, request(t, "d-1", envelope1)).Code, "a parser of one's own")
	m.Parse = nil
	require.Equal(t, 200, serve(m, request(t, "d-1", envelope1)).Code, "without an endpoint")
}
