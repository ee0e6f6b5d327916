package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

// benchFlooded is how far a slot lagged while unrelated rows were written.
type benchFlooded struct {
	walPerSecond float64
	lags         []int64       // sampled, in bytes
	catchUp      time.Duration // from the last write until the slot has confirmed it
}

// unrelated floods the database with rows of a table that nobody subscribes to, and watches by how much the slot of an idle
// outbox falls behind: a bare loop's, which confirms whatever it is sent, and the relay's, in turns.
func (b *bench) unrelated(ctx context.Context) error {
	if b.flooded == 0 {
		return nil
	}
	if err := b.db.exec(ctx, "CREATE TABLE unrelated (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text)"); err != nil {
		return err
	}
	var floors, relays []benchFlooded
	for range b.rounds {
		floor, err := b.floodBareLoop(ctx)
		if err != nil {
			return fmt.Errorf("flood beside the bare loop: %w", err)
		}
		relay, err := b.floodRelay(ctx)
		if err != nil {
			return fmt.Errorf("flood beside the relay: %w", err)
		}
		floors, relays = append(floors, floor), append(relays, relay)
		b.note("flood %d: bare loop lags by %.2f MB at most (median %.2f) at %.1f MB/s, caught up after %.0f ms; relay by %.2f MB (%.2f) at %.1f MB/s, %.0f ms", len(relays),
			floor.lag(1)/1e6, floor.lag(0.5)/1e6, floor.walPerSecond/1e6, benchMS(floor.catchUp),
			relay.lag(1)/1e6, relay.lag(0.5)/1e6, relay.walPerSecond/1e6, benchMS(relay.catchUp))
	}
	over := func(rounds []benchFlooded, figure func(*benchFlooded) float64) float64 {
		figures := make([]float64, len(rounds))
		for i := range rounds {
			figures[i] = figure(&rounds[i])
		}
		median, _ := benchMedian(figures)
		return median
	}
	most := func(f *benchFlooded) float64 { return f.lag(1) }
	middle := func(f *benchFlooded) float64 { return f.lag(0.5) }
	caught := func(f *benchFlooded) float64 { return benchMS(f.catchUp) }
	b.result.Flood = &benchFlood{
		Seconds: b.flooded.Seconds(), WAL: over(relays, func(f *benchFlooded) float64 { return f.walPerSecond / 1e6 }),
		LagMax: over(relays, most), Lag: over(relays, middle), CatchUp: over(relays, caught),
		FloorLagMax: over(floors, most), FloorLag: over(floors, middle), FloorCatchUp: over(floors, caught),
	}
	return b.db.exec(ctx, "DROP TABLE unrelated")
}

// lag is the one that the given share of the samples does not exceed, in bytes.
func (f *benchFlooded) lag(share float64) float64 {
	sorted := slices.Sorted(slices.Values(f.lags))
	return float64(sorted[min(int(share*float64(len(sorted))), len(sorted)-1)])
}

func (b *bench) floodBareLoop(ctx context.Context) (benchFlooded, error) {
	from, err := b.db.makeSlot(ctx, floorSlot)
	if err != nil {
		return benchFlooded{}, err
	}
	start, err := delivery.ParseLSN(from)
	if err != nil {
		return benchFlooded{}, err
	}
	conn, err := stream.Start(ctx, benchStream(b.db.url, floorSlot), start, delivery.Position{LSN: start})
	if err != nil {
		return benchFlooded{}, err
	}
	reading, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- confirmBarely(reading, conn) }()
	flooded, err := b.watchFlood(ctx, floorSlot, func() error { return nil })
	stop()
	err = errors.Join(err, <-ended)
	conn.Close()
	if err != nil {
		return benchFlooded{}, err
	}
	return flooded, b.db.dropSlot(ctx, floorSlot)
}

// confirmBarely confirms whatever it is sent, until ctx ends.
func confirmBarely(ctx context.Context, conn *stream.Conn) error {
	for ctx.Err() == nil {
		batch, err := conn.Receive(50 * time.Millisecond)
		if err != nil {
			return err
		}
		conn.Confirm(batch.Idle)
	}
	return nil
}

func (b *bench) floodRelay(ctx context.Context) (benchFlooded, error) {
	relay, err := b.startRelay()
	if err != nil {
		return benchFlooded{}, err
	}
	defer relay.kill()
	// The flood beside the bare loop is behind its slot as well: that is no lag of this one.
	began, err := b.db.wal(ctx)
	if err != nil {
		return benchFlooded{}, err
	}
	if err := b.caughtUp(ctx, b.db.slot, began, relay.failed); err != nil {
		return benchFlooded{}, err
	}
	flooded, err := b.watchFlood(ctx, b.db.slot, relay.failed)
	if err != nil {
		return benchFlooded{}, err
	}
	return flooded, relay.stop()
}

// watchFlood samples the slot's lag every 50 ms while the rows are written, and then waits until the slot has caught up.
func (b *bench) watchFlood(ctx context.Context, slot string, alive func() error) (f benchFlooded, err error) {
	began, err := b.db.wal(ctx)
	if err != nil {
		return f, err
	}
	writing, stop := context.WithTimeout(ctx, b.flooded)
	defer stop()
	written := make(chan error, 1)
	go func() { written <- b.writeUnrelated(ctx, writing.Done()) }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for over := false; !over; {
		select {
		case err := <-written:
			if err != nil {
				return f, err
			}
			over = true
		case <-ticker.C:
			lag, err := b.slotLag(ctx, slot)
			if err = errors.Join(err, alive()); err != nil {
				stop()
				return f, errors.Join(err, <-written)
			}
			f.lags = append(f.lags, lag)
		}
	}
	ended := time.Now()
	end, err := b.db.wal(ctx)
	if err != nil {
		return f, err
	}
	wal, err := benchAsk[int64](ctx, b.db, "SELECT ($1::text::pg_lsn - $2::text::pg_lsn)::bigint", end, began)
	if err != nil {
		return f, err
	}
	f.walPerSecond = float64(wal) / b.flooded.Seconds()
	err = b.caughtUp(ctx, slot, end, alive)
	f.catchUp = time.Since(ended)
	return f, err
}

// caughtUp waits until the slot has confirmed what was written before lsn, but for a rest of less than 1 MB, which an idle
// relay does not confirm at once.
func (b *bench) caughtUp(ctx context.Context, slot, lsn string, alive func() error) error {
	return benchPoll(ctx, "the slot has caught up", func() (bool, error) {
		if err := alive(); err != nil {
			return false, err
		}
		return benchAsk[bool](ctx, b.db, "SELECT $2::text::pg_lsn - confirmed_flush_lsn < 1048576 FROM pg_replication_slots WHERE slot_name = $1", slot, lsn)
	})
}

// slotLag is how much WAL a slot has not confirmed, in bytes.
func (b *bench) slotLag(ctx context.Context, slot string) (int64, error) {
	return benchAsk[int64](ctx, b.db, "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1", slot)
}

// writeUnrelated writes rows over a few connections, as fast as Postgres takes them, until over.
func (b *bench) writeUnrelated(ctx context.Context, over <-chan struct{}) error {
	const connections = 4
	g, ctx := errgroup.WithContext(ctx)
	for range connections {
		g.Go(func() error {
			conn, err := pgx.Connect(ctx, b.db.url)
			if err != nil {
				return fmt.Errorf("write unrelated rows: %w", err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			for {
				select {
				case <-over:
					return nil
				default:
				}
				if _, err := conn.Exec(ctx, "INSERT INTO unrelated (text) SELECT repeat('x', 200) FROM generate_series(1, 100)"); err != nil {
					return fmt.Errorf("write unrelated rows: %w", err)
				}
			}
		})
	}
	return g.Wait()
}
