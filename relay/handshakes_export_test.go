package relay

import (
	"context"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// The limits of handshakes.
const (
	HandshakesAtATime = handshakesAtATime
	HandshakeTimeout  = handshakeTimeout
)

// Handshakes asks receivers for their agreement.
type Handshakes struct{ h *handshakes }

// NewHandshakes returns those that ask in that way.
func NewHandshakes(ask func(context.Context, *delivery.Settings) (webhook.Verified, error)) Handshakes {
	return Handshakes{newHandshakes(ask, func() {})}
}

// Run performs handshakes until ctx ends.
func (h Handshakes) Run(ctx context.Context) { h.h.run(ctx) }

// Note takes a subscription's newest settings.
func (h Handshakes) Note(s *delivery.Settings) { h.h.note(s) }

// Forget drops a subscription.
func (h Handshakes) Forget(id uuid.UUID) { h.h.forget(id) }

// Keep drops all subscriptions but those.
func (h Handshakes) Keep(ids map[uuid.UUID]bool) { h.h.keep(ids) }

// Results returns how many handshakes ended since it was last called.
func (h Handshakes) Results() int { return len(h.h.take()) }
