package ui

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// run does what is due until no page is open.
func (h *hub) run(ctx context.Context) {
	for {
		do, wait := h.next(ctx, time.Now())
		if do != nil {
			do()
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-h.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next chooses what to do now, or else how long to wait. A hub without pages waits for ever, which its context ends.
func (h *hub) next(ctx context.Context, now time.Time) (do func(), wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait = time.Hour
	if ctx.Err() != nil {
		return nil, wait
	}
	for token, s := range h.sessions {
		if !s.due.After(now) {
			s.due = now.Add(recheck)
			return func() { h.checkSession(ctx, token, s) }, 0
		}
		wait = min(wait, s.due.Sub(now))
	}
	t := h.choose(now)
	if t == nil {
		return nil, wait
	}
	if later := max(t.due.Sub(now), h.last.Add(h.rest).Sub(now)); later > 0 {
		return nil, min(wait, later)
	}
	h.last, h.first, h.turns[t.key.audience()] = now, !t.looked, now
	t.looked, t.due = true, now.Add(lookEvery)
	look := t.pages[0].look
	return func() { h.lookAt(ctx, t, look) }, 0
}

// choose finds the topic whose turn it is: of those of the tenant that waits longest, the one that does so. A new one need
// not wait until all others had theirs, but every other look is theirs.
func (h *hub) choose(now time.Time) *topic {
	var old, fresh *topic
	for _, t := range h.topics {
		switch {
		case !t.looked && (fresh == nil || h.sooner(t, fresh, now)):
			fresh = t
		case t.looked && (old == nil || h.sooner(t, old, now)):
			old = t
		}
	}
	switch {
	case fresh == nil:
		return old
	case old == nil || old.due.After(now) || !h.first:
		return fresh
	}
	return old
}

// sooner reports whether the turn of one topic comes before another's.
func (h *hub) sooner(a, b *topic, now time.Time) bool {
	before, after := h.turns[a.key.audience()], h.turns[b.key.audience()]
	if a.due.After(now) || b.due.After(now) || before.Equal(after) {
		return a.due.Before(b.due)
	}
	return before.Before(after)
}

func (h *hub) lookAt(ctx context.Context, t *topic, look func(context.Context) ([]message, error)) {
	limited, cancel := context.WithTimeoutCause(ctx, lookWithin, fmt.Errorf("it took longer than %s", lookWithin))
	defer cancel()
	begun := time.Now()
	latest, err := safely(limited, look)
	took := time.Since(begun)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rest = lookSpacing
	if ctx.Err() != nil || len(t.pages) == 0 { // nobody waits for it any more
		return
	}
	if err != nil {
		h.failed(t, err)
		return
	}
	h.rest = min(max(lookSpacing, lookRests*took), lookBackoff) // one that fails waits for itself alone
	h.recovered(t)
	if !slices.Equal(latest, t.latest) {
		t.latest = latest
		t.tell()
	}
}

// tell wakes the pages of a topic.
func (t *topic) tell() {
	for _, p := range t.pages {
		signal(p.news)
	}
}

// failed makes a topic wait longer. The log hears of the first that fails and, in recovered, of the last that does no more.
func (h *hub) failed(t *topic, err error) {
	if t.failures == 0 {
		if h.failing++; h.failing == 1 {
			h.log.Warn().Err(err).Str("topic", t.key.name).Msg("live updates of the dashboard fail; trying again")
		}
	}
	if t.failures++; t.failures == 1 {
		t.tell()
	}
	t.due = time.Now().Add(min(lookEvery<<min(t.failures, 10), lookBackoff))
}

func (h *hub) recovered(t *topic) {
	if t.failures == 0 {
		return
	}
	t.failures = 0
	t.tell()
	if h.failing--; h.failing == 0 {
		h.log.Info().Msg("live updates of the dashboard work again")
	}
}

// safely makes a panic of a page an error: it would end the relay.
func safely(ctx context.Context, look func(context.Context) ([]message, error)) (m []message, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("render: panic of %T", p)
		}
	}()
	return look(ctx)
}

// checkSession ends the pages of a token that is valid no longer. While that cannot be found out they go on.
func (h *hub) checkSession(ctx context.Context, token string, s *session) {
	limited, cancel := context.WithTimeoutCause(ctx, lookWithin, fmt.Errorf("it took longer than %s", lookWithin))
	defer cancel()
	var refused *admin.Error
	if err := h.check(limited, token); !errors.As(err, &refused) || refused.Kind != admin.Unauthenticated {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range s.pages {
		close(p.ended)
	}
	s.pages = nil
	if h.sessions[token] == s {
		delete(h.sessions, token)
	}
}
