package main

import (
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/receive"
)

// setUpOrder is the order in which init comes by its points when it is killed at each of them in turn: a slot
// can be dropped only after a set-up that was killed when it had made it.
var setUpOrder = []fault.Kill{
	fault.MigrateSchema, fault.MigrateStep, fault.MigrateApplied, fault.SetupPublication, fault.SetupClaimed,
	fault.SetupSlot, fault.SetupDropped, fault.SetupCheckpoint,
}

// duringSetUp reports whether init comes by the point, and not a relay.
func duringSetUp(p fault.Kill) bool {
	return strings.HasPrefix(string(p), "migrate.") || strings.HasPrefix(string(p), "setup.")
}

// often is how many hits a relay passes at most before it dies there: many where they are frequent.
func often(p fault.Kill) int {
	switch p {
	case fault.StreamStarted, fault.TakeoverSlot, fault.TakeoverEpoch, fault.TakeoverReady, fault.StopDrained, fault.StopRecorded,
		fault.ClaimerInvalidNoted, fault.QueueWoken, fault.RetireWritten, fault.RetireNoted, fault.AgreementNoted:
		return 1
	case fault.StreamReceived, fault.RouteMatched, fault.PumpEntered, fault.PumpOffered, fault.DispatchBeforeAttempt,
		fault.WebhookAnswered, fault.DispatchAfterAttempt, fault.DispatchFinished:
		return 60
	case fault.RecordDeadLetters, fault.RecordRouting, fault.RouteChanged, fault.ClaimerConfigLoaded, fault.RecordSpilled, fault.RecordEmitted,
		fault.ReplayQueued, fault.ReplayMoved:
		return 2
	}
	return 5
}

// provoke brings about what leads a relay to a point, where everyday traffic does not, until stop is called.
func (e *episode) provoke(ctx context.Context, p fault.Kill, relay *process) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && relay.alive() {
			e.provokeOnce(ctx, p, relay)
			wait(ctx, 100*time.Millisecond)
		}
	}()
	return func() { cancel(); <-done }
}

func (e *episode) provokeOnce(ctx context.Context, p fault.Kill, relay *process) {
	switch p {
	case fault.StopDrained, fault.StopRecorded:
		relay.signal(syscall.SIGTERM)
	case fault.RecordSpilled:
		e.targets.SetAll("hang")
	case fault.RecordDeadLetters:
		e.targets.SetAll("error")
	case fault.RecordDeliveries, fault.RecordSettled, fault.QueueBeforeClaim, fault.QueueClaimed, fault.QueueOffered:
		e.targets.SetAll("flap")
	case fault.RouteChanged, fault.RecordRouting, fault.ClaimerConfigLoaded:
		// A change of the rule that changes nothing for anybody. What fails is tried again.
		_, _ = e.db.Exec(ctx, "UPDATE outbox.subscriptions SET description = clock_timestamp()::text WHERE id = (SELECT id FROM outbox.subscriptions ORDER BY random() LIMIT 1)")
	case fault.ClaimerInvalidNoted:
		e.subscribeFor(ctx, 300*time.Millisecond, "", `{"amount": {"bogus": 1}}`, "none", []string{})
	case fault.RetireWritten, fault.RetireNoted:
		e.subscribeFor(ctx, 500*time.Millisecond, receive.Gone, "{}", "none", []string{"patient.*", "lab.*"})
	case fault.AgreementNoted:
		e.subscribeFor(ctx, 300*time.Millisecond, "", "{}", "cloudevents", []string{"no.such.type"})
	case fault.ReplayQueued, fault.ReplayMoved:
		e.replayAny(ctx)
	case fault.QueueWoken:
		e.targets.SetAll("error")
		_, _ = e.db.Exec(ctx, "UPDATE outbox.deliveries SET next_attempt_at = 'infinity' WHERE sequence IS NOT NULL AND lease_owner IS NULL")
	}
}

// subscribeFor makes a subscription that is there for a while only. Its receiver behaves as told.
func (e *episode) subscribeFor(ctx context.Context, d time.Duration, b receive.Behaviour, filters, verification string, types []string) {
	id := uuid.New()
	e.targets.Set(id, b)
	_, _ = e.db.Exec(ctx, `INSERT INTO outbox.subscriptions (id, name, url, filters, verification, event_types) VALUES ($1, 'for a while', $2, $3, $4, $5)`,
		id, "http://"+e.toHooks.Addr()+"/s/"+id.String(), filters, verification, types)
	wait(ctx, d)
	_, _ = e.db.Exec(context.WithoutCancel(ctx), "DELETE FROM outbox.subscriptions WHERE id = $1", id)
}

// unhold undoes what was held by hand for fault.QueueWoken and has not been woken.
func (e *episode) unhold(ctx context.Context) error {
	return e.retry(ctx, func() error {
		_, err := e.db.Exec(ctx, `UPDATE outbox.deliveries SET next_attempt_at = now() WHERE next_attempt_at = 'infinity' AND id IN (
			SELECT DISTINCT ON (subscription_id, sequence) id FROM outbox.deliveries WHERE sequence IS NOT NULL
			ORDER BY subscription_id, sequence, commit_lsn, commit_index)`)
		return err
	})
}

// moods are what a receiver does while kills go on; most of them do what they should.
var moods = []receive.Behaviour{"ok", "ok", "ok", "ok", "ok", "slow", "flap", "error", "busy", "reset", "early"}

// mixReceivers gives every subscription's receiver a mood.
func (e *episode) mixReceivers() {
	for _, id := range e.tally.ids() {
		e.targets.Set(id, moods[e.rng.IntN(len(moods))])
	}
}
