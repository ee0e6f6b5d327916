package delivery

import (
	"time"

	"github.com/google/uuid"
)

// Delivery is one event on its way to one subscription.
type Delivery struct {
	ID             uuid.UUID
	SubscriptionID uuid.UUID
	Event          *Event
	Sequence       string    // of Settings.Sequence when it was routed, as its row in the queue keeps it
	Batch          uuid.UUID // the request that it failed in together with others, which are tried again together
	Attempts       int       // finished attempts, ever
	Round          int       // finished attempts since the delivery was made or last redelivered
	Queued         bool      // a row in the queue stands for it
	Lease          time.Time // of a claimed one: when others may claim it; the zero time means none
	Again          bool      // claimed by a relay whose own lease had run out: it may still hold it
	Seq            uint64    // place among the unrecorded; 0 when it came from the queue
}

// Reason classifies a failed attempt. The set is small and bounded: it doubles as a metric label.
type Reason string

// The reasons.
const (
	ReasonNone     Reason = ""         // the attempt succeeded
	ReasonStatus   Reason = "status"   // an answer outside 200-299
	ReasonRedirect Reason = "redirect" // 300-399: redirects are not followed
	ReasonTimeout  Reason = "timeout"  // the whole attempt took too long
	ReasonConnect  Reason = "connect"  // no connection: refused, unreachable, DNS
	ReasonAddress  Reason = "address"  // the address, port or scheme is not one that requests may go to
	ReasonTLS      Reason = "tls"      // the handshake or the certificate failed
	ReasonReset    Reason = "reset"    // the connection broke before an answer
	ReasonProtocol Reason = "protocol" // the answer was not HTTP, or its headers were too large
	ReasonSettings Reason = "settings" // the subscription's settings cannot make a request
	ReasonStopped  Reason = "stopped"  // the relay stopped before the attempt ended; it does not count
)

// Outcome is what became of one attempt.
type Outcome struct {
	Reason     Reason
	Status     int    // HTTP status; 0 when there was none
	Gone       bool   // the receiver answered 410: it wants nothing more, ever
	Body       string // the first 10 KB of the response, valid UTF-8 without NUL
	Error      string // for people; empty on success
	StartedAt  time.Time
	Duration   time.Duration
	RetryAfter time.Duration // what the receiver asked for, already clamped; 0 when it asked nothing
}

// Succeeded reports whether the receiver took the delivery.
func (o *Outcome) Succeeded() bool { return o.Reason == ReasonNone }

// Counts reports whether the attempt is one: an attempt that the relay broke off itself is not.
func (o *Outcome) Counts() bool { return o.Reason != ReasonStopped }

// State is where a delivery stands.
type State int

// The states.
const (
	Delivered State = iota // a receiver answered 2xx
	Waiting                // tried again at a known time
	Dead                   // retries are exhausted
)

// Next is what follows an attempt.
type Next struct {
	State State
	At    time.Time // of the next attempt, when Waiting
}

// maxDelay bounds the doubling.
const maxDelay = 24 * time.Hour

// After decides what follows the attempt that o describes: d's counters do not include it yet. now is the
// time at which the attempt ended and jitter, from [0,1), spreads retries by up to a tenth of the delay,
// always later than the schedule, never earlier.
func After(d *Delivery, s *Settings, o *Outcome, now time.Time, jitter float64) Next {
	if o.Succeeded() {
		return Next{State: Delivered}
	}
	if !o.Counts() {
		return Next{State: Waiting, At: now}
	}
	if d.Round >= s.MaxRetries {
		return Next{State: Dead}
	}
	delay := s.RetryDelay
	for range d.Round {
		if delay *= 2; delay >= maxDelay {
			break
		}
	}
	delay = min(delay, maxDelay)
	delay += time.Duration(float64(delay) * jitter / 10)
	return Next{State: Waiting, At: now.Add(max(delay, o.RetryAfter))}
}
