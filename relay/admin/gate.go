package admin

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What a client address may fail: a handful at once, since people mistype, and then one now and then.
const (
	gateBurst    = 10
	gateInterval = 6 * time.Second
	// What is remembered is bounded, so that a flood of addresses or tokens costs no memory.
	maxAddresses = 10_000
	maxTrusted   = 1_000
)

// Gate lets principals in and slows down who guesses: failures are limited for each client address (of IPv6 for each /64,
// which is what one client has). An address that failed too often is turned away without asking the database. A token that
// was good lately is let through to the check all the same: whoever shares an address with a guesser is not locked out.
//
// One gate serves API and dashboard. It is safe for concurrent use.
type Gate struct {
	authenticate func(ctx context.Context, token string) (*Principal, error)
	now          func() time.Time
	seats        *seats

	mu      sync.Mutex
	failing *recent[netip.Prefix, *rate.Limiter] // the last that failed
	trusted *recent[[sha256.Size]byte, struct{}] // hashes of tokens that were good
}

// NewGate makes a gate.
func NewGate(s *Store) *Gate { return newGate(s.Authenticate, time.Now) }

func newGate(authenticate func(context.Context, string) (*Principal, error), now func() time.Time) *Gate {
	return &Gate{
		authenticate: authenticate, now: now, seats: newSeats(),
		failing: newRecent[netip.Prefix, *rate.Limiter](maxAddresses),
		trusted: newRecent[[sha256.Size]byte, struct{}](maxTrusted),
	}
}

// Enter authenticates a client. remote is its address (host:port, as http.Request.RemoteAddr). A client that failed too
// often gets TooMany with RetryAfter; other errors are Authenticate's. Only Unauthenticated counts as a failure.
func (g *Gate) Enter(ctx context.Context, remote, token string) (*Principal, error) {
	client, hash := clientOf(remote), sha256.Sum256([]byte(token))
	if wait := g.blocked(client, hash); wait > 0 {
		seconds := int(math.Ceil(wait.Seconds()))
		return nil, &Error{Kind: TooMany, RetryAfter: seconds,
			Message: fmt.Sprintf("too many tokens from this address were refused: try again in %d s", seconds)}
	}
	p, err := g.authenticate(ctx, token)
	g.note(client, hash, err)
	return p, err
}

// blocked returns how long a client must wait; 0: it may try.
func (g *Gate) blocked(client netip.Prefix, hash [sha256.Size]byte) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	limiter, failed := g.failing.get(client)
	if !failed {
		return 0
	}
	if _, trusted := g.trusted.get(hash); trusted {
		return 0
	}
	missing := 1 - limiter.TokensAt(g.now())
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing * float64(gateInterval))
}

// note remembers how a check ended.
func (g *Gate) note(client netip.Prefix, hash [sha256.Size]byte, err error) {
	var refused *Error
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.trusted.put(hash, struct{}{})
	case errors.As(err, &refused) && refused.Kind == Unauthenticated:
		g.trusted.remove(hash) // revoked or expired since
		limiter, known := g.failing.get(client)
		if !known {
			limiter = rate.NewLimiter(rate.Every(gateInterval), gateBurst)
		}
		limiter.AllowN(g.now(), 1)
		g.failing.put(client, limiter)
	}
}

// clientOf is what failures are counted by. Addresses that cannot be read (a Unix socket's) count as one.
func clientOf(remote string) netip.Prefix {
	addr, err := netip.ParseAddr(remote)
	if host, portErr := netip.ParseAddrPort(remote); portErr == nil {
		addr, err = host.Addr(), nil
	}
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // fits every address
	return prefix
}

// recent is a map of bounded size: the entry that was put in longest ago is forgotten for a new one.
type recent[K comparable, V any] struct {
	most    int
	order   *list.List // of *recentEntry, the latest first
	entries map[K]*list.Element
}

type recentEntry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](most int) *recent[K, V] {
	return &recent[K, V]{most: most, order: list.New(), entries: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(key K) (value V, found bool) {
	element, found := r.entries[key]
	if !found {
		return value, false
	}
	return element.Value.(*recentEntry[K, V]).value, true
}

func (r *recent[K, V]) put(key K, value V) {
	if element, found := r.entries[key]; found {
		element.Value.(*recentEntry[K, V]).value = value
		r.order.MoveToFront(element)
		return
	}
	r.entries[key] = r.order.PushFront(&recentEntry[K, V]{key, value})
	if len(r.entries) > r.most {
		r.remove(r.order.Back().Value.(*recentEntry[K, V]).key)
	}
}

func (r *recent[K, V]) remove(key K) {
	if element, found := r.entries[key]; found {
		r.order.Remove(element)
		delete(r.entries, key)
	}
}
