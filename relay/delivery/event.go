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
	return derive(event, sha256.Sum256(both[:]))
}

// BatchID derives the id of a request from those of the deliveries in it: that of a single one is its own, and
// several have a UUIDv8 from SHA-256 over all ids in their order, behind the first 48 bits of the first. The
// same deliveries in the same order, and only they, have the same id, whenever they are sent. There is at
// least one id.
func BatchID(ids []uuid.UUID) uuid.UUID {
	if len(ids) == 1 {
		return ids[0]
	}
	all := make([]byte, 0, len(ids)*len(uuid.UUID{}))
	for i := range ids {
		all = append(all, ids[i][:]...)
	}
	return derive(ids[0], sha256.Sum256(all))
}

// derive makes a UUIDv8 of the first 48 bits of an id and of a hash.
func derive(from uuid.UUID, sum [sha256.Size]byte) uuid.UUID {
	var id uuid.UUID
	copy(id[:6], from[:6])
	copy(id[6:], sum[:10])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}
