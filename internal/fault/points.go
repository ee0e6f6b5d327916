// Package fault lets the checker break the relay from the inside: kill points, at which the process kills
// itself as SIGKILL would, and deliberate mistakes, which show that the checker would notice the real ones.
// Both exist only in a program that is built with -tags checker. In any other the calls are compiled to
// nothing, and neither names nor variables are in the program.
//
//	WALHOOK_KILL=record.began:3    the process dies at the third hit of that point
//	WALHOOK_FREEZE=record.began:3  the process stops there, as by SIGSTOP
//	WALHOOK_BUG=zero-flush         a deliberate mistake is made; several are joined by commas
package fault

import "slices"

// Kill names a kill point.
type Kill string

// The kill points, by where they stand.
const (
	// StreamStarted is START_REPLICATION accepted: the slot is held.
	StreamStarted Kill = "stream.started"
	// StreamReceived is a message with WAL data read and not decoded.
	StreamReceived Kill = "stream.received"
	// StreamCommitted is a commit decoded, of a transaction with something of ours that is not recorded yet.
	StreamCommitted Kill = "stream.committed"
	// StreamStatusBefore is a status with a new confirmed position about to be sent.
	StreamStatusBefore Kill = "stream.status_before"
	// StreamStatusAfter is such a status sent.
	StreamStatusAfter Kill = "stream.status_after"

	// RouteChanged is a subscription's change applied to the table of rules, before the window knows of it.
	RouteChanged Kill = "route.changed"
	// RouteMatched is an event matched, before it enters the window.
	RouteMatched Kill = "route.matched"
	// PumpEntered is an event in the window whose deliveries have not been offered to the lanes.
	PumpEntered Kill = "pump.entered"
	// PumpOffered is an event whose deliveries have been offered to the lanes.
	PumpOffered Kill = "pump.offered"

	// DispatchBeforeAttempt is a delivery taken from its lane whose attempt has not begun.
	DispatchBeforeAttempt Kill = "dispatch.before_attempt"
	// WebhookAnswered is a response's header read and its body not.
	WebhookAnswered Kill = "webhook.answered"
	// DispatchAfterAttempt is an attempt that has ended and whose outcome nobody knows yet.
	DispatchAfterAttempt Kill = "dispatch.after_attempt"
	// DispatchFinished is an outcome that the window has.
	DispatchFinished Kill = "dispatch.finished"
	// DispatchBatchFinished is an outcome that the window has of several deliveries which went together.
	DispatchBatchFinished Kill = "dispatch.batch_finished"

	// RecordCut is a batch cut from the window.
	RecordCut Kill = "record.cut"
	// RecordBegan is the record transaction open, the checkpoint moved in it and the epoch checked.
	RecordBegan Kill = "record.began"
	// RecordAttempts is attempts copied into the log.
	RecordAttempts Kill = "record.attempts_copied"
	// RecordDeliveries is waiting deliveries copied into the queue.
	RecordDeliveries Kill = "record.deliveries_copied"
	// RecordDeadLetters is dead letters copied.
	RecordDeadLetters Kill = "record.dead_letters_copied"
	// RecordEmitted is events that came as logical messages copied.
	RecordEmitted Kill = "record.emitted_copied"
	// RecordSettled is rows of the queue about to be settled, in the message that ends with COMMIT.
	RecordSettled Kill = "record.settled"
	// RecordRouting is changes of the routing view about to be written, in the message that ends with COMMIT.
	RecordRouting Kill = "record.routing_view"
	// RecordBeforeCommit is everything copied and the message that ends with COMMIT not sent.
	RecordBeforeCommit Kill = "record.before_commit"
	// RecordCommitSent is that message sent and its reply not read.
	RecordCommitSent Kill = "record.commit_sent"
	// RecordAfterCommit is the transaction committed, before the window learns of it.
	RecordAfterCommit Kill = "record.after_commit"
	// RecordSpilled is a committed transaction that made a queue row of an unfinished delivery.
	RecordSpilled Kill = "record.spilled"
	// RecordRecorded is a batch that the window knows to be durable, before its position is confirmed.
	RecordRecorded Kill = "record.recorded"

	// QueueBeforeClaim is lanes that want due deliveries, before these are claimed.
	QueueBeforeClaim Kill = "queue.before_claim"
	// QueueClaimed is deliveries claimed that no lane has yet.
	QueueClaimed Kill = "queue.claimed"
	// QueueOffered is claimed deliveries handed to their lanes.
	QueueOffered Kill = "queue.offered"
	// ClaimerConfigLoaded is changed settings read, before their lanes have them.
	ClaimerConfigLoaded Kill = "claimer.config_loaded"
	// ClaimerInvalidNoted is a subscription marked invalid in its row.
	ClaimerInvalidNoted Kill = "claimer.invalid_noted"
	// QueueWoken is held deliveries made due that nothing stood before any more.
	QueueWoken Kill = "queue.woken"
	// RetireWritten is a subscription deactivated whose receiver wants nothing more, and not committed.
	RetireWritten Kill = "claimer.retire_written"
	// RetireNoted is that committed.
	RetireNoted Kill = "claimer.retire_noted"
	// AgreementNoted is what came of a handshake written into the subscription's row.
	AgreementNoted Kill = "claimer.agreement_noted"

	// ReplayQueued is past deliveries put into the queue and the progress of their replay moved, not committed.
	ReplayQueued Kill = "replay.queued"
	// ReplayMoved is that committed.
	ReplayMoved Kill = "replay.moved"

	// TakeoverSlot is the slot held and the epoch not yet.
	TakeoverSlot Kill = "takeover.slot"
	// TakeoverEpoch is the new epoch committed, before the relay begins with it.
	TakeoverEpoch Kill = "takeover.epoch"
	// TakeoverReady is a relay that says it runs, before its goroutines do.
	TakeoverReady Kill = "takeover.ready"

	// RecoverDropped is a slot dropped that cannot go on, before the next one is made.
	RecoverDropped Kill = "recover.dropped"
	// RecoverSlot is the next slot made, which stands past the checkpoint.
	RecoverSlot Kill = "recover.slot"
	// RecoverQueued is what was missing from the stream queued, and not committed.
	RecoverQueued Kill = "recover.queued"
	// RecoverCommitted is that committed together with the new checkpoint, before the stream is opened from it.
	RecoverCommitted Kill = "recover.committed"

	// StopDrained is a stopping relay whose attempts have ended and whose last batch is not recorded.
	StopDrained Kill = "stop.drained"
	// StopRecorded is a stopping relay whose last batch is recorded and not confirmed.
	StopRecorded Kill = "stop.recorded"

	// MigrateSchema is the schema there, before the migrations.
	MigrateSchema Kill = "migrate.schema"
	// MigrateStep is a migration done whose transaction is not committed.
	MigrateStep Kill = "migrate.step"
	// MigrateApplied is all migrations committed.
	MigrateApplied Kill = "migrate.applied"
	// SetupPublication is a publication made.
	SetupPublication Kill = "setup.publication"
	// SetupClaimed is the slot's name claimed, before the slot is made.
	SetupClaimed Kill = "setup.claimed"
	// SetupDropped is the slot of a killed set-up dropped, before it is made anew.
	SetupDropped Kill = "setup.dropped"
	// SetupSlot is the slot made, which has no checkpoint yet.
	SetupSlot Kill = "setup.slot"
	// SetupCheckpoint is the slot's first checkpoint written and not committed.
	SetupCheckpoint Kill = "setup.checkpoint"
)

// points must name every constant above, as the tests see to.
var points = []Kill{
	StreamStarted, StreamReceived, StreamCommitted, StreamStatusBefore, StreamStatusAfter,
	RouteChanged, RouteMatched, PumpEntered, PumpOffered,
	DispatchBeforeAttempt, WebhookAnswered, DispatchAfterAttempt, DispatchFinished, DispatchBatchFinished,
	RecordCut, RecordBegan, RecordAttempts, RecordDeliveries, RecordDeadLetters, RecordEmitted, RecordSettled, RecordRouting,
	RecordBeforeCommit, RecordCommitSent, RecordAfterCommit, RecordSpilled, RecordRecorded,
	QueueBeforeClaim, QueueClaimed, QueueOffered, ClaimerConfigLoaded, ClaimerInvalidNoted, QueueWoken,
	RetireWritten, RetireNoted, AgreementNoted, ReplayQueued, ReplayMoved,
	TakeoverSlot, TakeoverEpoch, TakeoverReady, RecoverDropped, RecoverSlot, RecoverQueued, RecoverCommitted, StopDrained, StopRecorded,
	MigrateSchema, MigrateStep, MigrateApplied, SetupPublication, SetupClaimed, SetupDropped, SetupSlot, SetupCheckpoint,
}

// Points lists every kill point. The list is the caller's.
func Points() []Kill { return slices.Clone(points) }
