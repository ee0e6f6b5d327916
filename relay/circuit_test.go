package relay_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
)

// failing is a sender whose attempts all fail, and a ledger that counts them.
type failing struct{ attempts int }

func (f *failing) Send(context.Context, []*delivery.Delivery, *delivery.Settings) delivery.Outcome {
	return delivery.Outcome{Reason: delivery.ReasonConnect}
}
func (f *failing) Finished([]*delivery.Delivery, *delivery.Settings, delivery.Outcome) bool {
	f.attempts++
	return false
}
func (f *failing) Released([]*delivery.Delivery) {}

// TestCircuitThatOpensBetweenClaimAndHandover: the claimer asks a lane how much it wants, the circuit opens,
// and then the claimed deliveries arrive. The lane must go on probing.
func TestCircuitThatOpensBetweenClaimAndHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{}
		lanes := dispatch.New(t.Context(), dispatch.Options{MaxSenders: 4, Hungry: func() {}}, f, f)
		defer lanes.Stop()
		id := uuid.New()
		lanes.Set(&delivery.Settings{SubscriptionID: id, MaxInFlight: 1, Active: true})
		hand := func() bool {
			refused := lanes.Claimed([]*delivery.Delivery{{ID: uuid.New(), SubscriptionID: id, Event: &delivery.Event{}, Queued: true,
				Lease: time.Now().Add(time.Hour)}})
			synctest.Wait()
			return len(refused) == 0
		}
		for lanes.Counts().Circuits == 0 {
			require.True(t, hand())
			time.Sleep(time.Second)
		}
		for range 5 {
			hand()
		}
		for range 3 {
			time.Sleep(time.Minute)
			before := f.attempts
			want, _ := lanes.Appetite(id, time.Now())
			require.Equal(t, 1, want, "the lane wants a probe")
			require.True(t, hand())
			require.Equal(t, before+1, f.attempts, "the probe was sent")
			require.False(t, hand(), "one probe at a time")
		}
	})
}
