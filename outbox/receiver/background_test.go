package receiver_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

func ignore([]receiver.Event, error) {}

func TestBackgroundAnswersFirst(t *testing.T) {
	t.Parallel()
	leave, got := make(chan struct{}), make(chan receiver.Event, 1)
	b := receiver.NewBackground(func(_ context.Context, events []receiver.Event) error {
		<-leave
		got <- events[0]
		return nil
	}, receiver.BackgroundOptions{Failed: ignore})
	require.Equal(t, http.StatusAccepted, serve(endpoint(t).Middleware(b), request(t, "d-1", envelope1)).Code)
	require.Equal(t, http.StatusBadRequest, serve(b, request(t, "d-1", "no JSON")).Code)
	close(leave)
	require.NoError(t, b.Stop(t.Context()), "it waits for what was accepted")
	require.Equal(t, "a.b", (<-got).Type)
	require.Equal(t, http.StatusServiceUnavailable, serve(b, request(t, "d-1", envelope1)).Code)
	require.NoError(t, b.Stop(t.Context()))
}

func TestBackgroundIsBounded(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]receiver.BackgroundOptions{
		"requests": {Workers: 1, Waiting: 2},
		"bytes":    {Workers: 1, WaitingBytes: 3*len(envelope1) + 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered, leave := make(chan struct{}), make(chan struct{})
			o.Failed = ignore
			b := receiver.NewBackground(func(context.Context, []receiver.Event) error { entered <- struct{}{}; <-leave; return nil }, o)
			send := func() int { return serve(b, request(t, "d-1", envelope1)).Code }
			require.Equal(t, http.StatusAccepted, send())
			<-entered
			require.Equal(t, []int{202, 202, 503}, []int{send(), send(), send()})
			require.Equal(t, "5", serve(b, request(t, "d-1", envelope1)).Header().Get("Retry-After"))
			leave <- struct{}{}
			<-entered // the second is at work
			require.Equal(t, []int{202, 503}, []int{send(), send()})
			go func() {
				for range entered { // all others
				}
			}()
			close(leave)
			require.NoError(t, b.Stop(t.Context()))
			close(entered)
		})
	}
}

func TestBackgroundTakesOneOfAnySize(t *testing.T) {
	t.Parallel()
	b := receiver.NewBackground(func(context.Context, []receiver.Event) error { return nil }, receiver.BackgroundOptions{Failed: ignore, WaitingBytes: 1})
	require.Equal(t, http.StatusAccepted, serve(b, request(t, "d-1", envelope1)).Code)
	require.NoError(t, b.Stop(t.Context()))
}

func TestBackgroundTellsWhatFailed(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 2)
	results := []func() error{func() error { return errHandler }, func() error { panic("at the disco") }}
	b := receiver.NewBackground(func(context.Context, []receiver.Event) error {
		next := results[0]
		results = results[1:]
		return next()
	}, receiver.BackgroundOptions{Workers: 1, Failed: func(events []receiver.Event, err error) {
		require.Equal(t, "d-1", events[0].ID)
		failed <- err
	}})
	serve(b, request(t, "d-1", envelope1))
	serve(b, request(t, "d-1", envelope1))
	require.ErrorIs(t, <-failed, errHandler)
	require.ErrorContains(t, <-failed, "at the disco")
	require.NoError(t, b.Stop(t.Context()))
	require.Panics(t, func() { receiver.NewBackground(nil, receiver.BackgroundOptions{Failed: ignore}) })
	require.Panics(t, func() {
		receiver.NewBackground(func(context.Context, []receiver.Event) error { return nil }, receiver.BackgroundOptions{})
	})
}

// When the time is up the handlers are told, and what still waits is not lost without a word.
func TestBackgroundStopsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var failed []error
		calls := 0
		b := receiver.NewBackground(func(ctx context.Context, _ []receiver.Event) error {
			calls++
			<-ctx.Done()
			return ctx.Err()
		}, receiver.BackgroundOptions{Workers: 1, Failed: func(_ []receiver.Event, err error) { failed = append(failed, err) }})
		serve(b, request(t, "d-1", envelope1))
		serve(b, request(t, "d-1", envelope1))
		out := errors.New("out of time")
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := make(chan error)
		go func() { stopped <- b.Stop(ctx) }()
		synctest.Wait()
		require.Empty(t, failed)
		cancel(out)
		require.ErrorIs(t, <-stopped, out)
		require.Equal(t, []error{context.Canceled, context.Canceled}, failed)
		require.Equal(t, 1, calls, "what waited is not begun")
	})
}
