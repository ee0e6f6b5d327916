package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	floorSlot = "walhook_bench_floor"
	// warmUp is how many events go ahead of those that are timed: connections are opened and caches filled.
	warmUp = 20
)

// latency alternates the bare loop and the relay at a steady rate.
func (b *bench) latency(ctx context.Context) error {
	var floor50, floor99, relay50, relay99 []float64
	for i := range b.latencyRounds {
		n := b.latencyEvents*(i+1)/b.latencyRounds - b.latencyEvents*i/b.latencyRounds
		floor, err := b.timeFloor(ctx, n)
		if err != nil {
			return fmt.Errorf("latency of the bare loop: %w", err)
		}
		relay, err := b.timeRelay(ctx, n)
		if err != nil {
			return fmt.Errorf("latency of the relay: %w", err)
		}
		floor50, floor99 = append(floor50, benchQuantile(floor, 0.5)), append(floor99, benchQuantile(floor, 0.99))
		relay50, relay99 = append(relay50, benchQuantile(relay, 0.5)), append(relay99, benchQuantile(relay, 0.99))
		b.note("round %d: floor p50 %.3f ms, p99 %.3f ms; relay p50 %.3f ms, p99 %.3f ms", i+1, floor50[i], floor99[i], relay50[i], relay99[i])
	}
	r := &b.result
	r.FloorP50, r.FloorP50Spread = benchMedian(floor50)
	r.FloorP99, r.FloorP99Spread = benchMedian(floor99)
	r.P50, r.P50Spread = benchMedian(relay50)
	r.P99, r.P99Spread = benchMedian(relay99)
	return nil
}

func (b *bench) timeFloor(ctx context.Context, n int) ([]time.Duration, error) {
	from, err := b.db.makeSlot(ctx, floorSlot)
	if err != nil {
		return nil, err
	}
	loop, err := startBenchChild(b.dir, nil, "bench-floor", "--database-url", b.db.url, "--slot", floorSlot, "--from", from, "--url", b.receiver.Hooks)
	if err != nil {
		return nil, err
	}
	defer loop.kill()
	var greeting string
	if err := loop.hello(&greeting); err != nil {
		return nil, err
	}
	latencies, err := b.timed(ctx, floorType, n, loop.failed)
	if err != nil {
		return nil, err
	}
	if err := loop.stop(); err != nil {
		return nil, err
	}
	return latencies, b.db.dropSlot(ctx, floorSlot)
}

func (b *bench) timeRelay(ctx context.Context, n int) ([]time.Duration, error) {
	already, err := b.db.delivered(ctx)
	if err != nil {
		return nil, err
	}
	relay, err := b.startRelay()
	if err != nil {
		return nil, err
	}
	defer relay.kill()
	latencies, err := b.timed(ctx, benchType, n, relay.failed)
	if err != nil {
		return nil, err
	}
	if err := b.recorded(ctx, already+int64(n+warmUp)); err != nil {
		return nil, err
	}
	return latencies, relay.stop()
}

// timed publishes at the steady rate and returns how long each event took, from just before its INSERT was
// sent until its request was received.
func (b *bench) timed(ctx context.Context, kind string, n int, alive func() error) ([]time.Duration, error) {
	if err := b.receiver.expect(ctx, warmUp, false); err != nil {
		return nil, err
	}
	if err := b.publish(ctx, kind, warmUp, false); err != nil {
		return nil, err
	}
	if _, err := b.receiver.result(ctx, alive); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	if err := b.receiver.expect(ctx, n, true); err != nil {
		return nil, err
	}
	if err := b.publish(ctx, kind, n, true); err != nil {
		return nil, err
	}
	got, err := b.receiver.result(ctx, alive)
	return got.Latencies, err
}

// publish commits n events at the steady rate: each is sent at its own time, whatever became of those before,
// unless all connections are busy.
func (b *bench) publish(ctx context.Context, kind string, n int, timed bool) error {
	const connections = 4
	g, ctx := errgroup.WithContext(ctx)
	start, interval := time.Now().Add(100*time.Millisecond), time.Second/time.Duration(b.rate)
	for first := range connections {
		g.Go(func() error {
			conn, err := pgx.Connect(ctx, b.db.url)
			if err != nil {
				return fmt.Errorf("publish events: %w", err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			for i := first; i < n; i += connections {
				if err := publishAt(ctx, conn, start.Add(time.Duration(i)*interval), kind, i, timed); err != nil {
					return fmt.Errorf("publish events: %w", err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func publishAt(ctx context.Context, conn *pgx.Conn, at time.Time, kind string, seq int, timed bool) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var sent time.Time
	if timed {
		sent = time.Now()
	}
	_, err := conn.Exec(ctx, insertEvent, kind, benchPayload(seq, sent))
	return err
}
