package delivery

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"
)

// Event is one committed outbox row or logical message. The zero string means that a column was null;
// SQL refuses empty keys, so nothing is lost by that.
type Event struct {
	ID            uuid.UUID
	Type          string
	Payload       []byte // JSON text, with every number as it was written
	Key           string
	Tenant        string
	Source        string
	CorrelationID string
	Headers       []byte // JSON object text; nil and "{}" both mean none
	CreatedAt     time.Time

	CommittedAt time.Time // the transaction's commit time
	Position    Position
	Emitted     bool // came as a logical message: there is no row in outbox.events
}

// Size estimates what the event holds in memory, in bytes.
func (e *Event) Size() int { return 256 + len(e.Payload) + len(e.Headers) + len(e.Type) + len(e.Key) }

// ID derives the stable id of the delivery of one event to one subscription. It begins with the first 48
// bits of the event's id, which are its creation time in milliseconds when that is a UUIDv7, so that ids
// sort by time; the rest is taken from SHA-256 over both ids. It is a UUIDv8 (RFC 9562, section 5.8).
// outbox.delivery_id() in SQL computes the same.
func ID(event, subscription uuid.UUID) uuid.UUID {
	var both [32]byte
	copy(both[:16], event[:])
	copy(both[16:], subscription[:])
	sum := sha256.Sum256(both[:])
	var id uuid.UUID
	copy(id[:6], event[:6])
	copy(id[6:], sum[:10])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}
