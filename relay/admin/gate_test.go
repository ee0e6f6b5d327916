package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// doorkeeper knows one good token, and counts how often it was asked.
type doorkeeper struct {
	asked atomic.Int64
	down  atomic.Bool
	gone  atomic.Bool
}

var errDown = errors.New("connection refused")

func (k *doorkeeper) authenticate(_ context.Context, token string) (*Principal, error) {
	k.asked.Add(1)
	if k.down.Load() {
		return nil, errDown
	}
	if token == "good" && !k.gone.Load() {
		return &Principal{Name: "good"}, nil
	}
	return nil, errUnknownToken()
}

// newTestGate makes a gate whose time stands still until the returned clock is set forward.
func newTestGate() (*Gate, *doorkeeper, *time.Time) {
	k, now := &doorkeeper{}, time.Unix(1_800_000_000, 0)
	return newGate(k.authenticate, func() time.Time { return now }), k, &now
}

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// Ten guesses, then one every six seconds; who waits for as long as is said gets in.
func TestGateLimitsFailures(t *testing.T) {
	t.Parallel()
	g, k, now := newTestGate()
	for range gateBurst {
		_, err := g.Enter(t.Context(), "192.0.2.1:1000", "bad")
		require.Equal(t, Unauthenticated, kindOf(err))
	}
	_, err := g.Enter(t.Context(), "192.0.2.1:2000", "good")
	require.Equal(t, TooMany, kindOf(err), "no token of this address was good before")
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, 6, e.RetryAfter)
	require.NotContains(t, err.Error(), "good")
	require.EqualValues(t, gateBurst, k.asked.Load(), "the database is not asked")

	*now = now.Add(time.Duration(e.RetryAfter) * time.Second)
	_, err = g.Enter(t.Context(), "192.0.2.1:2000", "bad")
	require.Equal(t, Unauthenticated, kindOf(err))
	_, err = g.Enter(t.Context(), "192.0.2.1:2000", "bad")
	require.Equal(t, TooMany, kindOf(err), "one guess was allowed")
	*now = now.Add(6 * time.Second)
	_, err = g.Enter(t.Context(), "192.0.2.1:2000", "good")
	require.NoError(t, err)
	for range 100 {
		_, err = g.Enter(t.Context(), "192.0.2.2:1", "good")
		require.NoError(t, err, "who succeeds is not limited, nor is another address")
	}
}

// A stranger behind the same proxy locks nobody out whose token was good lately; a revoked token is a guess like any other.
func TestGateTrustsTokensThatWereGood(t *testing.T) {
	t.Parallel()
	g, k, _ := newTestGate()
	_, err := g.Enter(t.Context(), "192.0.2.1:1", "good")
	require.NoError(t, err)
	for range 2 * gateBurst {
		_, _ = g.Enter(t.Context(), "192.0.2.1:1", "bad")
	}
	p, err := g.Enter(t.Context(), "192.0.2.1:1", "good")
	require.NoError(t, err)
	require.Equal(t, "good", p.Name)

	k.gone.Store(true)
	_, err = g.Enter(t.Context(), "192.0.2.1:1", "good")
	require.Equal(t, Unauthenticated, kindOf(err))
	_, err = g.Enter(t.Context(), "192.0.2.1:1", "good")
	require.Equal(t, TooMany, kindOf(err))
}

// A database that is down is nobody's guess.
func TestGateCountsOnlyRefusedTokens(t *testing.T) {
	t.Parallel()
	g, k, _ := newTestGate()
	k.down.Store(true)
	for range 3 * gateBurst {
		_, err := g.Enter(t.Context(), "192.0.2.1:1", "good")
		require.ErrorIs(t, err, errDown)
	}
	k.down.Store(false)
	_, err := g.Enter(t.Context(), "192.0.2.1:1", "good")
	require.NoError(t, err)
}

func TestGateCountsByClient(t *testing.T) {
	t.Parallel()
	for remote, client := range map[string]string{
		"192.0.2.1:443":                    "192.0.2.1/32",
		"192.0.2.1":                        "192.0.2.1/32",
		"[::ffff:192.0.2.1]:443":           "192.0.2.1/32",
		"[2001:db8:1:2:aaaa::1]:443":       "2001:db8:1:2::/64",
		"[2001:db8:1:2:bbbb::1%eth0]:8080": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":                  "2001:db8:1:3::/64",
	} {
		require.Equal(t, netip.MustParsePrefix(client), clientOf(remote), remote)
	}
	for _, remote := range []string{"", "@", "host:80", "1.2.3.4.5:1", "\x00"} {
		require.Equal(t, netip.Prefix{}, clientOf(remote), "%q", remote)
	}
}

// A flood of addresses and tokens is forgotten again.
func TestGateForgets(t *testing.T) {
	t.Parallel()
	g := newGate(func(_ context.Context, token string) (*Principal, error) {
		if token[0] == 'g' {
			return &Principal{}, nil
		}
		return nil, errUnknownToken()
	}, time.Now)
	for i := range maxAddresses + 500 {
		_, _ = g.Enter(t.Context(), fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff), "bad")
		_, _ = g.Enter(t.Context(), "192.0.2.1:1", fmt.Sprint("good", i))
	}
	require.Len(t, g.failing.entries, maxAddresses)
	require.Equal(t, maxAddresses, g.failing.order.Len())
	require.Len(t, g.trusted.entries, maxTrusted)
	require.Equal(t, maxTrusted, g.trusted.order.Len())
	_, kept := g.failing.get(clientOf("[2001:db8::1]:1"))
	require.False(t, kept, "the first to fail is forgotten")
}

func TestGateAtOnce(t *testing.T) {
	t.Parallel()
	g, _, _ := newTestGate()
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for n := range 200 {
				_, _ = g.Enter(t.Context(), fmt.Sprintf("192.0.2.%d:1", n%50), []string{"good", "bad"}[i%2])
			}
		})
	}
	clients.Wait()
	_, err := g.Enter(t.Context(), "192.0.2.1:1", "good")
	require.NoError(t, err)
}
