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
		fault.ClaimerInvalidNoted:
		return 1
	case fault.StreamReceived, fault.RouteMatched, fault.PumpEntered, fault.PumpOffered, fault.DispatchBeforeAttempt,
		fault.WebhookAnswered, fault.DispatchAfterAttempt, fault.DispatchFinished:
		return 60
	case fault.RecordDeadLetters, fault.RecordRouting, fault.RouteChanged, fault.ClaimerConfigLoaded, fault.RecordSpilled, fault.RecordEmitted:
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
		id := uuid.New()
		_, _ = e.db.Exec(ctx, `WITH new AS (INSERT INTO outbox.subscriptions (id, name, url, filters) VALUES ($1, 'invalid on purpose', $2, '{"amount": {"bogus": 1}}') RETURNING id) SELECT id FROM new`,
			id, "http://"+e.toHooks.Addr()+"/s/"+id.String())
		wait(ctx, 300*time.Millisecond)
		_, _ = e.db.Exec(context.WithoutCancel(ctx), "DELETE FROM outbox.subscriptions WHERE id = $1", id)
	}
}

// moods are what a receiver does while kills go on; most of them do what they should.
var moods = []receive.Behaviour{"ok", "ok", "ok", "ok", "ok", "slow", "flap", "error", "busy", "reset", "early"}

// mixReceivers gives every subscription's receiver a mood.
func (e *episode) mixReceivers() {
	for _, id := range e.tally.ids() {
		e.targets.Set(id, moods[e.rng.IntN(len(moods))])
	}
}
