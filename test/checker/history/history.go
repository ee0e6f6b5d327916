// Package history is what the checker writes down about a run: what was written, what the WAL holds, what the
// receivers got, what was broken when, and what the relay's tables said. It is data only; package judge makes
// a verdict of it. Nothing here knows the relay's code.
package history

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// LSN is a position in the WAL, in bytes.
type LSN uint64

// String is Postgres's notation.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText writes Postgres's notation.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads Postgres's notation.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	*l = parsed
	return err
}

// ParseLSN reads Postgres's notation, such as 16/B374D848.
func ParseLSN(text string) (LSN, error) {
	var high, low uint32
	if _, err := fmt.Sscanf(text, "%X/%X", &high, &low); err != nil {
		return 0, fmt.Errorf("LSN %q: %w", text, err)
	}
	return LSN(uint64(high)<<32 | uint64(low)), nil
}

// Tx is a committed transaction as the WAL has it, reduced to what concerns the outbox.
type Tx struct {
	LSN         LSN       `json:"lsn"` // where its commit record ends
	XID         uint32    `json:"xid"`
	CommittedAt time.Time `json:"committed_at"` // the server's clock, microseconds
	SeenAt      time.Time `json:"seen_at"`      // when the checker read it
	Items       []Item    `json:"items,omitempty"`
}

// Item is one row (or message) of a transaction, in the order written. Exactly one field is set.
type Item struct {
	Event        *Event        `json:"event,omitempty"`
	Subscription *Subscription `json:"subscription,omitempty"` // inserted, or as an update left it
	Deleted      *uuid.UUID    `json:"deleted,omitempty"`      // the subscription that was deleted
}

// Event is a row of outbox.events, or what outbox.emit wrote.
type Event struct {
	ID      uuid.UUID       `json:"id"`
	Type    string          `json:"type"`
	Tenant  string          `json:"tenant"`
	Key     string          `json:"key,omitempty"` // empty: null
	Payload json.RawMessage `json:"payload"`       // an object; its "n" is the number the workload gave it
	Emitted bool            `json:"emitted,omitempty"`
	// CreatedAt is when its transaction began, by the server's clock.
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// Number is the payload's "n": unique over a run and never used twice, not even after a rollback. -1 when
// there is none.
func (e *Event) Number() int64 { return Number(e.Payload) }

// Number reads "n" of a payload; -1 when there is none.
func Number(payload []byte) int64 {
	var p struct {
		N *int64 `json:"n"`
	}
	if json.Unmarshal(payload, &p) != nil || p.N == nil {
		return -1
	}
	return *p.N
}

// Subscription is a row of outbox.subscriptions, reduced to what decides who gets what how.
type Subscription struct {
	ID         uuid.UUID       `json:"id"`
	Tenant     string          `json:"tenant"`
	URL        string          `json:"url"`
	EventTypes []string        `json:"event_types"`
	Filters    json.RawMessage `json:"filters"`
	Secret     string          `json:"secret,omitempty"` // empty: unsigned
	// PreviousSecret signs as well until PreviousExpires; a zero time is never.
	PreviousSecret  string    `json:"previous_secret,omitempty"`
	PreviousExpires time.Time `json:"previous_expires,omitzero"`
	Signature       string    `json:"signature"`  // the scheme
	Format          string    `json:"format"`     // envelope or raw
	BatchSize       int       `json:"batch_size"` // more than 1: requests are arrays
	Ordering        string    `json:"ordering"`   // none, key or strict
	MaxRetries      int       `json:"max_retries"`
	RetryDelayMS    int       `json:"retry_delay_ms"`
	TimeoutMS       int       `json:"timeout_ms"`
	Active          bool      `json:"active"`
	// ChangedAt is when the transaction began that made it so, by the server's clock.
	ChangedAt time.Time `json:"changed_at,omitzero"`
}

// Outcome is what a writer knows of its transaction.
type Outcome string

// The outcomes. The WAL decides what became of an unknown one.
const (
	Committed  Outcome = "committed"
	RolledBack Outcome = "rolled back"
	Unknown    Outcome = "unknown" // COMMIT was sent and no reply came
)

// Write is one transaction of the workload.
type Write struct {
	At       time.Time `json:"at"` // of the outcome
	Outcome  Outcome   `json:"outcome"`
	Kept     []int64   `json:"kept,omitempty"`   // numbers of the events that should be there if it committed
	Undone   []int64   `json:"undone,omitempty"` // numbers of those whose savepoint was rolled back
	Prepared bool      `json:"prepared,omitempty"`
}

// Receipt is one request that arrived at a receiver and had its whole body read. It was on disk before the
// receiver answered. That of a batch holds several deliveries: its Delivery, Type and Attempt are those of the whole.
type Receipt struct {
	Seq          int64     `json:"seq"` // in the order of arrival, from 1
	Subscription uuid.UUID `json:"subscription"`
	Path         string    `json:"path"`            // of the URL
	Delivery     string    `json:"delivery"`        // X-Webhook-ID
	Type         string    `json:"type"`            // X-Webhook-Event
	Attempt      int       `json:"attempt"`         // X-Webhook-Attempt; 0 when it is no number
	Batch        string    `json:"batch,omitempty"` // X-Webhook-Batch: the number of elements of the body, which is an array
	// Signature is what the headers of all schemes say that sign requests, by canonical name.
	Signature  map[string]string `json:"signature,omitempty"`
	Body       []byte            `json:"body"`
	ArrivedAt  time.Time         `json:"arrived_at"`
	AnsweredAt time.Time         `json:"answered_at"` // when the answer was written, or the connection broken
	Behaviour  string            `json:"behaviour"`   // what the receiver was told to do
	Status     int               `json:"status"`      // written in full to the connection; 0 when it was not
}

// Fault is something that was broken on purpose, from Begin to End.
type Fault struct {
	Class    string    `json:"class"`
	Point    string    `json:"point,omitempty"` // of a kill at a named point
	PID      int       `json:"pid,omitempty"`   // of the relay that it hit
	Begin    time.Time `json:"begin"`
	End      time.Time `json:"end"`
	InFlight int       `json:"in_flight"` // deliveries that were committed and not answered with 2xx when it struck
	Detail   string    `json:"detail,omitempty"`
	// Deliveries are those that an operator sent again, by class redeliver or replay.
	Deliveries []uuid.UUID `json:"deliveries,omitempty"`
	// Subscription and Events are what a replay was asked for: Events[i] is that of Deliveries[i].
	Subscription uuid.UUID   `json:"subscription,omitzero"`
	Events       []uuid.UUID `json:"events,omitempty"`
}

// Snapshot is what the tables held at a moment when no relay was running.
type Snapshot struct {
	At        time.Time `json:"at"`
	Confirmed LSN       `json:"confirmed"` // checkpoint: the end of the last transaction recorded whole
	Slot      LSN       `json:"slot"`      // confirmed_flush_lsn
	Delivered []Row     `json:"delivered"` // with a recorded success; only those new since the last snapshot
	Pending   []Row     `json:"pending"`
	Dead      []Row     `json:"dead"`
	Stranded  []Row     `json:"stranded,omitempty"` // held behind an earlier delivery of their sequence, of which there is none
}

// Row is a delivery as a table holds it.
type Row struct {
	ID           uuid.UUID `json:"id"`
	Subscription uuid.UUID `json:"subscription"`
	Event        uuid.UUID `json:"event"`
	Attempts     int       `json:"attempts"` // finished and recorded; 0 for Delivered
}

// Gap is a stretch of WAL that no stream yielded: a slot was lost, and what was committed after From, the checkpoint, and
// up to Until, where the next slot begins, is not in it. A relay that recovers finds the rows in the table; an operator who
// sets up anew gives them up. What was recorded before counts all the same.
type Gap struct {
	Since     LSN    `json:"since,omitzero"` // rows may be missing from here on, although what was left was recorded; 0: from From
	From      LSN    `json:"from"`
	Until     LSN    `json:"until"`
	Recovered bool   `json:"recovered"`      // by a relay: only what has no row is given up
	Code      string `json:"code,omitempty"` // why, says the relay
	// Floor is a transaction id: what transactions with a smaller one wrote was known to be recorded.
	Floor uint32    `json:"floor,omitempty"`
	Begin time.Time `json:"begin,omitzero"` // before the slot was taken away
	End   time.Time `json:"end,omitzero"`   // a relay works again
}

// History is a whole episode: one database from its creation to its judgement.
type History struct {
	Seed         uint64     `json:"seed"`
	Episode      int        `json:"episode"`
	Began        time.Time  `json:"began"`
	SpillAfterMS int        `json:"spill_after_ms"` // delivery.spill_after of the relays
	HealedAt     time.Time  `json:"healed_at"`      // from here on nothing was broken any more
	DrainedAt    time.Time  `json:"drained_at"`     // nothing was left to do; zero: that never came
	StoppedAt    time.Time  `json:"stopped_at"`     // the last relay had ended, in order
	Txs          []Tx       `json:"-"`
	Writes       []Write    `json:"-"`
	Receipts     []Receipt  `json:"-"`
	Faults       []Fault    `json:"-"`
	Snapshots    []Snapshot `json:"-"`
	Gaps         []Gap      `json:"gaps,omitempty"`
	// Findings are what was seen to be wrong while the episode ran: an invariant broken, a secret in an output, a
	// resource that did not return to its base.
	Findings []Finding `json:"findings,omitempty"`
}

// Finding is one thing that is wrong.
type Finding struct {
	Kind   Kind      `json:"kind"`
	At     time.Time `json:"at"`
	Detail string    `json:"detail"`
}

// Kind classifies findings.
type Kind string

// The kinds.
const (
	Lost      Kind = "lost"      // should have been delivered and was not
	Phantom   Kind = "phantom"   // was delivered and should not have been
	Duplicate Kind = "duplicate" // was sent again without a fault that explains it
	Order     Kind = "order"     // overtook another where order is promised
	Stranded  Kind = "stranded"  // waits behind nothing
	Batch     Kind = "batch"     // a request with several deliveries is not made, or not made again, as it must be
	Identity  Kind = "identity"  // id, body, headers or signature differ from what they must be
	Truth     Kind = "truth"     // the WAL and the writers disagree: the checker itself is wrong
	Position  Kind = "position"  // slot <= checkpoint <= lowest not durable does not hold
	// Unaccounted is what outbox.audit misses.
	Unaccounted Kind = "unaccounted"
	Stuck       Kind = "stuck"  // did not drain, halt, take over or stop in time
	Leak        Kind = "leak"   // goroutines, descriptors or memory did not return to their base
	Secret      Kind = "secret" // a secret in some output
)
