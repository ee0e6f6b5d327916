package relay_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// asked notes who was asked when. Receivers whose subscription is named so hang until their time is up; no other
// agrees either, but at once.
type asked struct {
	mu      sync.Mutex
	of      map[uuid.UUID][]time.Time
	hanging int
	most    int // that hung at the same time
}

func (a *asked) Verify(ctx context.Context, s *delivery.Settings) (webhook.Verified, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[s.SubscriptionID] = append(a.of[s.SubscriptionID], time.Now())
	if s.Name == "hangs" {
		a.hanging++
		a.most = max(a.most, a.hanging)
		a.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(s.Timeout):
		}
		a.mu.Lock()
		a.hanging--
	}
	return webhook.Verified{}, errors.New("no")
}

func (a *asked) times(id uuid.UUID) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.of[id])
}

// asking runs handshakes until the test ends.
func asking(t *testing.T) (relay.Handshakes, *asked) {
	t.Helper()
	a := &asked{of: map[uuid.UUID][]time.Time{}}
	h := relay.NewHandshakes(a.Verify)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return h, a
}

func unverified(tenant, name string) *delivery.Settings {
	return &delivery.Settings{SubscriptionID: uuid.New(), Revision: 1, Tenant: tenant, Name: name, Timeout: 300 * time.Second,
		Verification: delivery.VerifySlack, Unverified: true, Active: true}
}

// A receiver that hangs costs a place for a short while, though its subscription allows an attempt 300 s.
func TestHangingHandshakesEndSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, a := asking(t)
		for range 2 * relay.HandshakesAtATime {
			h.Note(unverified("", "hangs"))
		}
		synctest.Wait()
		require.Equal(t, relay.HandshakesAtATime, a.most)
		time.Sleep(time.Second)
		last := unverified("", "answers")
		h.Note(last)
		time.Sleep(2 * relay.HandshakeTimeout) // it was the last to come
		synctest.Wait()
		require.Equal(t, relay.HandshakesAtATime, a.most)
		require.Equal(t, 1, a.times(last.SubscriptionID))
		require.Equal(t, 2*relay.HandshakesAtATime+1, h.Results())
	})
}

// One tenant's receivers hang; another's is asked as soon as a single place is free, and its new subscriptions go
// ahead of those that have failed before.
func TestHandshakesAreSharedAmongTenants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, a := asking(t)
		for range 10 * relay.HandshakesAtATime {
			h.Note(unverified("noisy", "hangs"))
		}
		synctest.Wait()
		quiet := unverified("quiet", "answers")
		h.Note(quiet)
		time.Sleep(relay.HandshakeTimeout + time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 1, a.times(quiet.SubscriptionID))

		time.Sleep(20*relay.HandshakeTimeout - time.Second) // by now all have been asked, and some again
		fresh := unverified("noisy", "answers")
		h.Note(fresh)
		time.Sleep(relay.HandshakeTimeout + time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 1, a.times(fresh.SubscriptionID))
	})
}

// What failed is tried again after a pause that doubles, and no more when the subscription is gone, inactive or
// verified.
func TestHandshakesAreRepeatedWhileTheyAreWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, a := asking(t)
		deleted, dropped, kept := unverified("", "a"), unverified("", "b"), unverified("", "c")
		inactive, agreed := unverified("", "d"), unverified("", "e")
		all := []*delivery.Settings{deleted, dropped, kept, inactive, agreed}
		for _, s := range all {
			h.Note(s)
			h.Note(s) // the same revision again is no reason to ask again
		}
		synctest.Wait()
		for _, s := range all {
			require.Equal(t, 1, a.times(s.SubscriptionID))
		}
		h.Forget(deleted.SubscriptionID)
		h.Keep(map[uuid.UUID]bool{kept.SubscriptionID: true, inactive.SubscriptionID: true, agreed.SubscriptionID: true})
		off, done := *inactive, *agreed
		off.Active, done.Unverified = false, false
		h.Note(&off)
		h.Note(&done)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, s := range all {
			if s != kept {
				require.Equal(t, 1, a.times(s.SubscriptionID))
			}
		}
		times := a.of[kept.SubscriptionID]
		require.Len(t, times, 9)
		for i, pause := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1280} {
			require.Equal(t, pause*time.Second, times[i+1].Sub(times[i]))
		}

		changed := *kept
		changed.Revision++
		h.Note(&changed)
		synctest.Wait()
		require.Equal(t, len(times)+1, a.times(kept.SubscriptionID), "another revision is asked at once")
	})
}
