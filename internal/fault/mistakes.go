package fault

import "slices"

// Mistake names a deliberate bug.
type Mistake string

// The mistakes. Each is one that a relay could really have.
const (
	// ConfirmEarly confirms a transaction when it enters the window, before it is recorded.
	ConfirmEarly Mistake = "confirm-before-record"
	// ConfirmPlusOne confirms one byte behind a transaction's end, where the next commit record may begin.
	ConfirmPlusOne Mistake = "confirm-plus-one"
	// ZeroFlush reports flush position 0, which pglogrepl replaces by the write position: all that was received.
	ZeroFlush Mistake = "zero-flush"
	// CheckpointMax moves the checkpoint to what is finished, past what is not, and forgets the latter.
	CheckpointMax Mistake = "checkpoint-max"
	// EpochIgnored records and claims although another relay has taken over.
	EpochIgnored Mistake = "epoch-ignored"
	// FilterErrorDrops drops every event while a subscription's rule does not compile.
	FilterErrorDrops Mistake = "filter-error-drops"
	// RetryNewID gives a delivery whose first attempt failed another id.
	RetryNewID Mistake = "retry-new-id"
	// SubtransactionDelivered emits and delivers events outside of their transaction, rolled back or not. The
	// set-up must be made with it.
	SubtransactionDelivered Mistake = "subtransaction-delivered"
	// ConfigLate applies a subscription's change only at the end of the transaction after its own.
	ConfigLate Mistake = "config-late"
	// SpillForgotten neither keeps nor writes a delivery that goes to the queue unfinished.
	SpillForgotten Mistake = "spill-forgotten"
	// LeaseNotRenewed claims deliveries with a lease that is over at once.
	LeaseNotRenewed Mistake = "lease-not-renewed"
	// ReplayNotSkipped takes what the checkpoint holds already for new when Postgres sends it again.
	ReplayNotSkipped Mistake = "replay-not-skipped"
	// DeadLetterForgotten keeps no dead letter of a delivery whose retries are exhausted.
	DeadLetterForgotten Mistake = "dead-letter-forgotten"
	// FailureTakenForSuccess takes an answer of 500 or more for a success.
	FailureTakenForSuccess Mistake = "failure-taken-for-success"
	// BodyChanges writes the time of the attempt into the envelope instead of the time of the commit.
	BodyChanges Mistake = "body-changes"
	// SecretLogged logs a subscription's secret when its settings are read.
	SecretLogged Mistake = "secret-logged"
	// UnknownCommitDropped takes a batch that could not be recorded, or whose COMMIT got no reply, for recorded.
	UnknownCommitDropped Mistake = "unknown-commit-dropped"
	// OrderIgnored routes deliveries without the sequence that their subscription promises to keep.
	OrderIgnored Mistake = "order-ignored"
	// FreshOvertakes forgets which sequences have rows in the queue, so that fresh deliveries don't wait for these.
	FreshOvertakes Mistake = "fresh-overtakes"
	// WakeForgotten leaves the next row of a sequence held when the one before it is recorded as done.
	WakeForgotten Mistake = "wake-forgotten"
	// BatchSplitLost takes note of the first delivery only of a batch that failed, and forgets the others.
	BatchSplitLost Mistake = "batch-split-lost"
	// BatchForgotten tries the deliveries of a batch that failed again without those that they went with.
	BatchForgotten Mistake = "batch-forgotten"
	// EventSkipped forgets one event in 32, in memory.
	EventSkipped Mistake = "event-skipped"
	// RecoverFromLast looks, after a gap, for events with higher ids than were attempted.
	RecoverFromLast Mistake = "recover-from-last"
	// RecoverRepeats does not look, after a gap, for what was attempted already.
	RecoverRepeats Mistake = "recover-repeats"
	// MarkEarly takes for recorded what has committed, before the stream has come that far.
	MarkEarly Mistake = "mark-early"
	// OldSecretKept goes on signing with a subscription's previous secret after it has expired.
	OldSecretKept Mistake = "old-secret-kept"
)

// mistakes must name every constant above, as the tests see to.
var mistakes = []Mistake{
	ConfirmEarly, ConfirmPlusOne, ZeroFlush, CheckpointMax, EpochIgnored, FilterErrorDrops, RetryNewID, SubtransactionDelivered,
	ConfigLate, SpillForgotten, LeaseNotRenewed, ReplayNotSkipped, DeadLetterForgotten, FailureTakenForSuccess, BodyChanges,
	SecretLogged, UnknownCommitDropped, OrderIgnored, FreshOvertakes, WakeForgotten, BatchSplitLost, BatchForgotten, OldSecretKept,
	EventSkipped, RecoverFromLast, RecoverRepeats, MarkEarly,
}

// Mistakes lists every deliberate bug. The list is the caller's.
func Mistakes() []Mistake { return slices.Clone(mistakes) }
