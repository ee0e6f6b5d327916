package delivery

import "time"

// Change is one committed change of a subscription's rule.
type Change struct {
	Rule    Rule // of a deleted subscription only the id is set
	Deleted bool
}

// Item is one step of the stream, in commit order: an event, a change or the end of a transaction.
// Exactly one of Event and Change is set, or neither, which makes it the end of a transaction.
type Item struct {
	Position Position // the item's own; of an end, (where the commit record ends, 0)
	Event    *Event
	Change   *Change
	// CommittedAt is the transaction's commit time.
	CommittedAt time.Time
}
