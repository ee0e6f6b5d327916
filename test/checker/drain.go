package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/test/checker/history"
)

// recover heals everything, brings dead letters back, and waits until nothing is left to do.
func (e *episode) recover(ctx context.Context) error {
	e.heal()
	e.h.DrainedAt = time.Time{}
	if err := e.redeliver(ctx); err != nil {
		return err
	}
	return e.drain(ctx)
}

// redeliver brings the dead letters back, as an operator does when receivers are well again.
func (e *episode) redeliver(ctx context.Context) error {
	f := history.Fault{Class: "redeliver", Begin: time.Now()}
	err := e.retry(ctx, func() error {
		rows, err := e.db.Query(ctx, `SELECT outbox.redeliver(d.id) FROM outbox.dead_letters d
			JOIN outbox.subscriptions s ON s.id = d.subscription_id`)
		if err != nil {
			return err
		}
		f.Deliveries, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	if err != nil {
		return fmt.Errorf("redeliver dead letters: %w", err)
	}
	f.End = time.Now()
	e.note(f)
	return nil
}

// drain waits until everything that the WAL holds is recorded and nothing is left in the queue.
func (e *episode) drain(ctx context.Context) error {
	const within = 90 * time.Second
	if !e.main.running() {
		if _, err := e.begin(ctx); err != nil {
			return err
		}
	}
	if err := e.readAll(ctx); err != nil {
		return err
	}
	state := ""
	for deadline := time.Now().Add(within); time.Now().Before(deadline); wait(ctx, 50*time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		done, now, err := e.drained(ctx)
		if err != nil {
			return err
		}
		if state = now; done {
			e.closeReplays(ctx, true)
			e.h.DrainedAt = time.Now()
			return nil
		}
		if !e.main.running() {
			e.finding(history.Stuck, "the relay ended while it was to drain: see %s", e.main.now.log)
			return nil
		}
	}
	e.finding(history.Stuck, "not drained %s after everything was healed: %s", within, state)
	return nil
}

// readAll waits until the truth holds everything that is in the WAL by now.
func (e *episode) readAll(ctx context.Context) error {
	if e.truthRead {
		return nil
	}
	var end string
	err := e.retry(ctx, func() error { return e.db.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&end) })
	if err != nil {
		return fmt.Errorf("look where the WAL ends: %w", err)
	}
	lsn, err := history.ParseLSN(end)
	if err != nil {
		return err
	}
	reading, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := e.truth.Until(reading, lsn); err != nil {
		return fmt.Errorf("read the truth up to %v: %w", lsn, err)
	}
	return nil
}

// lagBound is what an idle, drained relay may still be behind, in bytes: it confirms idle progress in steps.
const lagBound = 2 << 20

func (e *episode) drained(ctx context.Context) (bool, string, error) {
	var confirmed string
	var queue, lag, replays int64
	err := e.db.QueryRow(ctx, `SELECT checkpoint_lsn::text, queue_depth, coalesce(lag_bytes, -1),
		(SELECT count(*) FROM outbox.replays WHERE state IN ('waiting', 'running')) FROM outbox.replication_lag`).Scan(&confirmed, &queue, &lag, &replays)
	if err != nil {
		return false, "", fmt.Errorf("look at the lag: %w", err)
	}
	checkpoint, err := history.ParseLSN(confirmed)
	if err != nil {
		return false, "", err
	}
	last := e.tally.last()
	state := fmt.Sprintf("checkpoint %v, last commit %v, queue %d, lag %d bytes, replays %d", checkpoint, last, queue, lag, replays)
	return checkpoint >= last && queue == 0 && replays == 0 && lag >= 0 && lag < lagBound, state, nil
}
