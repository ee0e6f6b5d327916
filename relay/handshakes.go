package relay

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// Handshakes at a time, how long one may take whatever the subscription's own timeout, and how long one that failed
// rests: it is tried again after the first pause, which doubles.
const (
	handshakesAtATime     = 16
	handshakeTimeout      = 10 * time.Second
	handshakePauseFirst   = 10 * time.Second
	handshakePauseLongest = time.Hour
)

// handshakes are the subscriptions whose receivers have not agreed yet to get anything. Receivers that hang hold
// back nobody for long: a handshake has little time, and a place that is free goes to the tenant that has the
// fewest under way, of these to the subscription that was tried least.
type handshakes struct {
	ask    func(context.Context, *delivery.Settings) (webhook.Verified, error)
	ended  func()        // wakes who takes the results
	wanted chan struct{} // of capacity 1: there is something new to do, or room to do it

	mu       sync.Mutex
	of       map[uuid.UUID]*handshake
	underWay map[string]int // of each tenant that has some
	running  int
	results  []agreement
}

func newHandshakes(ask func(context.Context, *delivery.Settings) (webhook.Verified, error), ended func()) *handshakes {
	return &handshakes{ask: ask, ended: ended, wanted: make(chan struct{}, 1),
		of: map[uuid.UUID]*handshake{}, underWay: map[string]int{}}
}

// handshake is one that is to be tried.
type handshake struct {
	settings *delivery.Settings
	at       time.Time
	pause    time.Duration // after the next failure
}

// agreement is what came of a handshake, for the claimer to write down.
type agreement struct {
	id       uuid.UUID
	revision int64
	verified webhook.Verified
	err      error
}

// note takes a subscription's newest settings. A handshake that they need is tried at once, unless it is known of.
func (h *handshakes) note(s *delivery.Settings) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.Unverified || !s.Active || s.Invalid != "" {
		delete(h.of, s.SubscriptionID)
		return
	}
	if known := h.of[s.SubscriptionID]; known != nil && known.settings.Revision >= s.Revision {
		return
	}
	h.of[s.SubscriptionID] = &handshake{settings: s, at: time.Now(), pause: handshakePauseFirst}
	h.wake()
}

// forget drops a subscription that is gone: its receiver is not asked any more.
func (h *handshakes) forget(id uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, id)
}

// keep forgets all subscriptions but those.
func (h *handshakes) keep(ids map[uuid.UUID]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.of {
		if !ids[id] {
			delete(h.of, id)
		}
	}
}

func (h *handshakes) wake() {
	select {
	case h.wanted <- struct{}{}:
	default:
	}
}

// run performs handshakes until ctx ends, and waits for those that are under way then.
func (h *handshakes) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for ctx.Err() == nil {
		k, next := h.due(time.Now())
		if k != nil {
			all.Go(func() { h.perform(ctx, k) })
			continue
		}
		t := time.NewTimer(time.Until(next))
		select {
		case <-h.wanted:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// due begins a handshake that is to be tried now and for which there is room. Without one it says when to look again,
// unless wanted says so before.
func (h *handshakes) due(now time.Time) (chosen *handshake, next time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next = now.Add(handshakePauseLongest)
	if h.running == handshakesAtATime {
		return nil, next // the end of one says when
	}
	for _, k := range h.of {
		switch {
		case k.at.After(now):
			if k.at.Before(next) {
				next = k.at
			}
		case chosen == nil || h.before(k, chosen):
			chosen = k
		}
	}
	if chosen != nil {
		h.running++
		h.underWay[chosen.settings.Tenant]++
		chosen.at = now.Add(handshakePauseLongest) // its end says when
	}
	return chosen, next
}

// before reports whether a goes ahead of b. An hour's pause is the most that there is, so the time decides then.
func (h *handshakes) before(a, b *handshake) bool {
	if x, y := h.underWay[a.settings.Tenant], h.underWay[b.settings.Tenant]; x != y {
		return x < y
	}
	if a.pause != b.pause {
		return a.pause < b.pause
	}
	return a.at.Before(b.at)
}

// perform is one handshake. What ends because ctx does is no result.
func (h *handshakes) perform(ctx context.Context, k *handshake) {
	hasty := *k.settings
	hasty.Timeout = min(hasty.Timeout, handshakeTimeout)
	verified, err := h.ask(ctx, &hasty)
	h.mu.Lock()
	if ctx.Err() == nil {
		h.results = append(h.results, agreement{hasty.SubscriptionID, hasty.Revision, verified, err})
	}
	k.at, k.pause = time.Now().Add(k.pause), min(2*k.pause, handshakePauseLongest)
	if err == nil && h.of[hasty.SubscriptionID] == k {
		delete(h.of, hasty.SubscriptionID)
	}
	h.running--
	if h.underWay[hasty.Tenant]--; h.underWay[hasty.Tenant] == 0 {
		delete(h.underWay, hasty.Tenant)
	}
	h.wake()
	h.mu.Unlock()
	h.ended()
}

func (h *handshakes) take() []agreement {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.results
	h.results = nil
	return all
}

// back keeps what could not be written down for the next try.
func (h *handshakes) back(rest []agreement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.results = append(rest, h.results...)
}
