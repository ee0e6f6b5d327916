package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// deadTransaction is how many events the small transactions have that arrive while every receiver is dead.
const deadTransaction = 10

// dead publishes as fast as Postgres takes it while every receiver refuses connections, and watches by how
// much the slot falls behind.
func (b *bench) dead(ctx context.Context) error {
	if b.deadEvents == 0 {
		return nil
	}
	address, err := closedAddress(ctx)
	if err != nil {
		return err
	}
	if err := b.db.exec(ctx, "UPDATE outbox.subscriptions SET url = $1", "http://"+address+"/hook"); err != nil {
		return err
	}
	relay, err := b.startRelay()
	if err != nil {
		return err
	}
	defer relay.kill()
	if err := b.slotInUse(ctx, relay); err != nil {
		return err
	}
	began := time.Now()
	most, err := b.watchLag(ctx, relay.failed)
	if err != nil {
		return fmt.Errorf("every receiver dead: %w", err)
	}
	took := time.Since(began).Seconds()
	waiting, err := benchAsk[int64](ctx, b.db, "SELECT (SELECT count(*) FROM outbox.deliveries) + (SELECT count(*) FROM outbox.dead_letters)")
	if err != nil {
		return err
	}
	if waiting != int64(b.deadEvents) {
		return fmt.Errorf("every receiver dead: %d deliveries wait or are dead letters, and %d events were published", waiting, b.deadEvents)
	}
	peak, err := peakMemory(relay.pid())
	if err != nil {
		return err
	}
	b.result.HeldLagMax, b.result.HeldSeconds, b.result.HeldPeakRSS = &most, &took, &peak
	b.note("every receiver dead: %d events in %.1f s, lag at most %.2f MB, peak %.1f MB", b.deadEvents, took, float64(most)/1e6, peak)
	return nil
}

// closedAddress is a loopback address where nobody listens.
func closedAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a closed port: %w", err)
	}
	address := l.Addr().String()
	return address, l.Close()
}

// watchLag samples the slot's lag every 100 ms while the events are published, and until all are recorded.
func (b *bench) watchLag(ctx context.Context, alive func() error) (most int64, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	published := make(chan error, 1)
	go func() { published <- b.flood(ctx) }()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	for done := false; !done; {
		select {
		case err := <-published:
			if err != nil {
				return 0, err
			}
			published, done = nil, true
		case <-ticker.C:
		}
		lag, err := b.slotLag(ctx, b.db.slot)
		if err == nil {
			err = alive()
		}
		if err != nil {
			stop()
			if !done {
				err = errors.Join(err, <-published)
			}
			return 0, err
		}
		if lag > most && lag > 4<<20 {
			b.note("after %.1f s the slot lags by %.2f MB", time.Since(began).Seconds(), float64(lag)/1e6)
		}
		most = max(most, lag)
	}
	marked, err := b.mark(ctx)
	if err != nil {
		return 0, err
	}
	err = benchPoll(ctx, "the slot has caught up", func() (bool, error) {
		lag, err := b.slotLag(ctx, b.db.slot)
		if err != nil {
			return false, err
		}
		most = max(most, lag)
		return benchAsk[bool](ctx, b.db, "SELECT confirmed_flush_lsn > $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", b.db.slot, marked)
	})
	return most, err
}

// mark publishes a last event, which no subscription wants, and returns a position before its commit and
// behind every other event: a slot that has confirmed more has them all recorded.
func (b *bench) mark(ctx context.Context) (lsn string, err error) {
	err = pgx.BeginFunc(ctx, b.db.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertEvent, floorType, "{}"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn)
	})
	if err != nil {
		return "", fmt.Errorf("mark the end: %w", err)
	}
	return lsn, nil
}

// flood publishes the events in small transactions that wait for the disk, as an application's do.
func (b *bench) flood(ctx context.Context) error {
	const connections = 8
	g, ctx := errgroup.WithContext(ctx)
	for i := range connections {
		g.Go(func() error {
			conn, err := pgx.Connect(ctx, b.db.url)
			if err != nil {
				return fmt.Errorf("publish events: %w", err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			return floodPart(ctx, conn, b.deadEvents*(i+1)/connections-b.deadEvents*i/connections)
		})
	}
	return g.Wait()
}

func floodPart(ctx context.Context, conn *pgx.Conn, n int) error {
	payload := benchPayload(0, time.Time{})
	for ; n > 0; n -= deadTransaction {
		_, err := conn.Exec(ctx, "INSERT INTO outbox.events (type, payload) SELECT $1, $2::text::jsonb FROM generate_series(1, $3)",
			benchType, payload, min(n, deadTransaction))
		if err != nil {
			return fmt.Errorf("publish events: %w", err)
		}
	}
	return nil
}
