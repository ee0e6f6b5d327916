package admin

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// One tenant whose clients do not take their answers leaves the others their seats, and has no more of the memory.
func TestSeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil, time.Now)
		full := func(p *Principal) {
			began := time.Now()
			_, err := g.Seat(t.Context(), p)
			var refused *Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, []any{TooMany, 5}, []any{refused.Kind, refused.RetryAfter})
			require.Equal(t, longestInLine, time.Since(began))
		}
		var leaves []func()
		for range seatsOfAll / seatsOfOne {
			tenant := uuid.NewString()
			for range seatsOfOne {
				leave, err := g.Seat(t.Context(), &Principal{Tenant: &tenant, TokenID: uuid.New()})
				require.NoError(t, err)
				leaves = append(leaves, leave)
			}
			full(&Principal{Tenant: &tenant, TokenID: uuid.New()})
		}
		full(&Principal{})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := g.Seat(gone, &Principal{})
		require.ErrorIs(t, err, context.Canceled)

		later := time.AfterFunc(time.Second, leaves[0])
		defer later.Stop()
		leave, err := g.Seat(t.Context(), &Principal{})
		require.NoError(t, err, "one becomes free")
		for _, leave := range append(leaves[1:], leave) {
			leave()
		}
		require.Empty(t, g.seats.own)
		require.True(t, g.seats.all.TryAcquire(seatsOfAll))
	})
}
