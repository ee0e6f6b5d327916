package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/receive"
)

// What an operator does while the relay works.

// replay is one that an operator asked for.
type replay struct {
	id, subscription uuid.UUID
	asked            time.Time
}

// mostReplays is how many are asked for at a time.
const mostReplays = 3

// replaySome has the events of the last second sent again to one subscription.
func (e *episode) replaySome(ctx context.Context) error {
	e.mixReceivers()
	if _, err := e.begin(ctx); err != nil {
		return err
	}
	e.busy(ctx)
	hit := history.Fault{Class: "replay", InFlight: e.inFlight()}
	if ids := e.tally.changeable(); len(ids) > 0 {
		e.askReplay(ctx, ids[e.rng.IntN(len(ids))])
	}
	for began := time.Now(); len(e.replays) > 0 && time.Since(began) < 2*time.Second; wait(ctx, 50*time.Millisecond) {
		hit.InFlight = max(hit.InFlight, e.inFlight())
		e.closeReplays(ctx, false)
	}
	e.run.hit(hit)
	return nil
}

// replayAny is replaySome's deed alone, for a subscription that chance picks.
func (e *episode) replayAny(ctx context.Context) {
	if ids := e.tally.changeable(); len(ids) > 0 && e.openReplays() < mostReplays {
		e.askReplay(ctx, ids[rand.IntN(len(ids))])
	}
}

// askReplay asks. A subscription that was deleted meanwhile has nothing to replay, and a Postgres that is away is
// not asked again.
func (e *episode) askReplay(ctx context.Context, subscription uuid.UUID) {
	r := replay{subscription: subscription, asked: time.Now()}
	err := e.db.QueryRow(ctx, "SELECT outbox.replay($1, now() - interval '1 s')", subscription).Scan(&r.id)
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.replays = append(e.replays, r)
}

func (e *episode) openReplays() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.replays)
}

// closeReplays notes the replays of which nothing is left to be sent; all of them with all set.
func (e *episode) closeReplays(ctx context.Context, all bool) {
	e.mu.Lock()
	open := e.replays
	e.replays = nil
	e.mu.Unlock()
	var left []replay
	for _, r := range open {
		f, over, err := e.replayed(ctx, r)
		if err != nil || !over && !all {
			left = append(left, r)
			continue
		}
		e.note(f)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.replays = append(left, e.replays...)
}

// replayed is what a replay may have sent so far: whatever lies in its range, for the rule may have been another one.
// It is over when it has put everything into the queue and nothing of it waits there any more.
func (e *episode) replayed(ctx context.Context, r replay) (history.Fault, bool, error) {
	f := history.Fault{Class: "replay", Begin: r.asked, Subscription: r.subscription}
	rows, err := e.db.Query(ctx, `SELECT e.id, outbox.delivery_id(e.id, r.subscription_id) FROM outbox.replays r
		JOIN (SELECT id, created_at FROM outbox.events UNION ALL SELECT id, created_at FROM outbox.emitted_events) e
			ON e.created_at >= r.since AND e.created_at < r.until WHERE r.id = $1`, r.id)
	if err != nil {
		return f, false, err
	}
	var event, delivery uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&event, &delivery}, func() error {
		f.Events, f.Deliveries = append(f.Events, event), append(f.Deliveries, delivery)
		return nil
	})
	if err != nil {
		return f, false, err
	}
	var over bool
	err = e.db.QueryRow(ctx, `SELECT r.state IN ('done', 'failed') AND NOT EXISTS (SELECT FROM outbox.deliveries WHERE id = ANY($2))
		FROM outbox.replays r WHERE r.id = $1`, r.id, f.Deliveries).Scan(&over)
	return f, over, err
}

// receiverGone has one receiver want nothing more. Its subscription is deactivated, until somebody activates it again.
func (e *episode) receiverGone(ctx context.Context) error {
	return e.disturb(ctx, "receiver-gone", func() error {
		ids := e.tally.changeable()
		if len(ids) == 0 {
			return nil
		}
		id := ids[e.rng.IntN(len(ids))]
		e.targets.Set(id, receive.Gone)
		active := true
		for began := time.Now(); active && time.Since(began) < 2*time.Second; wait(ctx, 50*time.Millisecond) {
			_ = e.db.QueryRow(ctx, "SELECT is_active FROM outbox.subscriptions WHERE id = $1", id).Scan(&active)
		}
		wait(ctx, time.Duration(e.rng.IntN(300))*time.Millisecond)
		e.targets.Set(id, receive.OK)
		return e.retry(ctx, func() error { // unless it was deleted
			_, err := e.db.Exec(ctx, "SELECT outbox.activate(id) FROM outbox.subscriptions WHERE id = $1 AND NOT is_active", id)
			return err
		})
	})
}

// rotateSecrets gives all subscriptions new secrets, and waits until the old ones have expired.
func (e *episode) rotateSecrets(ctx context.Context) error {
	return e.disturb(ctx, "secrets-rotated", func() error {
		if err := e.load.Rotate(ctx, time.Second); err != nil {
			return err
		}
		wait(ctx, 2500*time.Millisecond)
		return nil
	})
}
