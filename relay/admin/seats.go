package admin

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// How many answers may be under way at once. Each takes tens of megabytes at most, until its client has taken it: without a
// bound, clients that read slowly would have the relay's memory.
const (
	seatsOfOne    = 8 // tenant, or token of all tenants
	seatsOfAll    = 32
	longestInLine = 10 * time.Second
)

// seats are what requests that look at something take, each in its turn.
type seats struct {
	all *semaphore.Weighted

	mu  sync.Mutex
	own map[string]*ownSeats // of those who have one or are in line
}

type ownSeats struct {
	*semaphore.Weighted
	users int
}

func newSeats() *seats {
	return &seats{all: semaphore.NewWeighted(seatsOfAll), own: map[string]*ownSeats{}}
}

// Seat waits until a principal may be answered, which leave ends: when its client has taken the answer. One that has too many
// answers under way gets TooMany after some seconds, and so does everybody when all together have. API and dashboard share
// the seats.
func (g *Gate) Seat(ctx context.Context, p *Principal) (leave func(), err error) {
	return g.seats.take(ctx, p)
}

func (s *seats) take(ctx context.Context, p *Principal) (leave func(), err error) {
	limited, cancel := context.WithTimeout(ctx, longestInLine)
	defer cancel()
	name := seatsName(p)
	own := s.join(name)
	if own.Acquire(limited, 1) != nil {
		s.leave(name, own)
		return nil, crowded(ctx, "too many answers for this token or its tenant are under way: take them, then ask again")
	}
	if s.all.Acquire(limited, 1) != nil {
		own.Release(1)
		s.leave(name, own)
		return nil, crowded(ctx, "too many answers are under way: try again")
	}
	return func() {
		s.all.Release(1)
		own.Release(1)
		s.leave(name, own)
	}, nil
}

// crowded is why there is no seat, unless the client has gone meanwhile.
func crowded(ctx context.Context, message string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	const later = 5 // seconds
	return &Error{Kind: TooMany, RetryAfter: later, Message: message}
}

// seatsName is whom seats belong to: tokens of one tenant share theirs.
func seatsName(p *Principal) string {
	if p.Everywhere() {
		return "token " + p.TokenID.String()
	}
	return "tenant " + *p.Tenant
}

func (s *seats) join(name string) *ownSeats {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.own[name]
	if own == nil {
		own = &ownSeats{Weighted: semaphore.NewWeighted(seatsOfOne)}
		s.own[name] = own
	}
	own.users++
	return own
}

func (s *seats) leave(name string, own *ownSeats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(s.own, name)
	}
}
