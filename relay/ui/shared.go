package ui

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// shared looks something up that costs much, for however many ask: once at a time, and what was found is good for all who
// ask within the time that it lasts. A failure is told to who waited for it, and not kept.
type shared[T any] struct {
	look  func(context.Context) (T, error)
	lasts time.Duration

	mu     sync.Mutex
	latest *result[T]
}

// result is of one look; what it holds may be read once done is closed.
type result[T any] struct {
	done  chan struct{}
	at    time.Time
	value T
	err   error
}

// longestLook is when a look is given up that nobody else ends.
const longestLook = 30 * time.Second

// newShared makes one whose results last so long.
func newShared[T any](lasts time.Duration, look func(context.Context) (T, error)) *shared[T] {
	return &shared[T]{look: look, lasts: lasts}
}

// get returns what was found, and when. Who asks first does the looking, for the others as well: it goes on when that one
// leaves.
func (s *shared[T]) get(ctx context.Context) (T, time.Time, error) {
	r, mine := s.join()
	if mine {
		s.run(ctx, r)
	}
	select {
	case <-r.done:
		return r.value, r.at, r.err
	case <-ctx.Done():
		var none T
		return none, time.Time{}, ctx.Err()
	}
}

// join returns the look that is under way or lasts still, or a new one that is the caller's to run.
func (s *shared[T]) join() (r *result[T], mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil && s.latest.usable(s.lasts) {
		return s.latest, false
	}
	s.latest = &result[T]{done: make(chan struct{})}
	return s.latest, true
}

func (r *result[T]) usable(lasts time.Duration) bool {
	select {
	case <-r.done:
		return r.err == nil && time.Since(r.at) < lasts
	default:
		return true
	}
}

// run looks. A panic goes on to who asked, and is a failure for those who wait.
func (s *shared[T]) run(ctx context.Context, r *result[T]) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), longestLook,
		fmt.Errorf("it took longer than %s", longestLook))
	defer cancel()
	defer close(r.done)
	r.err = errEnded
	r.value, r.err = s.look(ctx)
	r.at = time.Now()
}

var errEnded = fmt.Errorf("what was being looked up ended before its time")
