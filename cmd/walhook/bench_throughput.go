package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

// The slots of the benchmark's own that are drained of the same rows as the relay's: one as fast as it goes,
// and one at the relay's pace.
const (
	decodeSlot = "walhook_bench_decode"
	pacedSlot  = "walhook_bench_paced"
)

// benchDrain is what the relay did with one backlog.
type benchDrain struct {
	perSecond                    float64
	startup                      time.Duration
	pgCPU, relayCPU, receiverCPU time.Duration
	wal, bytes                   int64
	peakRSS                      float64
}

// benchRound is one throughput round: the raw client, the two readers that throw rows away, and the relay.
type benchRound struct {
	raw             benchReceipts
	rawCPU          time.Duration // of client and receiver
	decodePerSecond float64
	decodeCPU       time.Duration // of Postgres, at the relay's pace
	relay           benchDrain
}

// throughput alternates the raw client and the relay, so that both meet the same machine.
func (b *bench) throughput(ctx context.Context) error {
	var rounds []benchRound
	for range b.rounds {
		r, err := b.round(ctx)
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
		b.note("round %d: raw %.0f/s (%.2f µs of CPU), relay %.0f/s (%.2f µs of CPU with Postgres and receiver), decode %.0f rows/s, Postgres %.2f µs + %.2f µs for decoding, "+
			"WAL %.0f bytes, relay %.2f µs, peak %.1f MB, first delivery after %.0f ms", len(rounds), r.raw.perSecond(), b.each(r.rawCPU), r.relay.perSecond,
			b.each(r.relay.cpu()), r.decodePerSecond, b.each(r.relay.pgCPU-r.decodeCPU), b.each(r.decodeCPU), float64(r.relay.wal)/float64(b.events),
			b.each(r.relay.relayCPU), r.relay.peakRSS, benchMS(r.relay.startup))
	}
	b.summarize(rounds)
	return nil
}

// cpu is what all processes that take part have used.
func (d *benchDrain) cpu() time.Duration { return d.pgCPU + d.relayCPU + d.receiverCPU }

// each is an event's share, in microseconds.
func (b *bench) each(d time.Duration) float64 { return benchUS(d) / float64(b.events) }

// summarize takes the medians over the rounds.
func (b *bench) summarize(rounds []benchRound) {
	over := func(figure func(*benchRound) float64) (float64, benchSpread) {
		figures := make([]float64, len(rounds))
		for i := range rounds {
			figures[i] = figure(&rounds[i])
		}
		return benchMedian(figures)
	}
	r := &b.result
	r.RawPostsPerS, r.RawPostsPerSSpread = over(func(r *benchRound) float64 { return r.raw.perSecond() })
	r.DeliveriesPerS, r.DeliveriesPerSSpread = over(func(r *benchRound) float64 { return r.relay.perSecond })
	r.Ratio = r.DeliveriesPerS / r.RawPostsPerS
	_, r.RatioSpread = over(func(r *benchRound) float64 { return r.relay.perSecond / r.raw.perSecond() })
	r.DecodeRowsPerS, r.DecodeRowsPerSSpread = over(func(r *benchRound) float64 { return r.decodePerSecond })
	r.StartupMS, _ = over(func(r *benchRound) float64 { return benchMS(r.relay.startup) })
	r.PgCPU, r.PgCPUSpread = over(func(r *benchRound) float64 { return b.each(r.relay.pgCPU - r.decodeCPU) })
	r.PgCPUDecode, _ = over(func(r *benchRound) float64 { return b.each(r.decodeCPU) })
	r.RelayCPU, r.RelayCPUSpread = over(func(r *benchRound) float64 { return b.each(r.relay.relayCPU) })
	r.WAL, r.WALSpread = over(func(r *benchRound) float64 { return float64(r.relay.wal) / float64(b.events) })
	r.RawCPU, _ = over(func(r *benchRound) float64 { return b.each(r.rawCPU) })
	r.TotalCPU, _ = over(func(r *benchRound) float64 { return b.each(r.relay.cpu()) })
	for i := range rounds {
		r.PeakRSS = max(r.PeakRSS, rounds[i].relay.peakRSS)
	}
}

func (b *bench) round(ctx context.Context) (r benchRound, err error) {
	if r.raw, r.rawCPU, err = b.postRaw(ctx); err != nil {
		return r, fmt.Errorf("raw posts: %w", err)
	}
	for _, slot := range []string{decodeSlot, pacedSlot} {
		if _, err := b.db.makeSlot(ctx, slot); err != nil {
			return r, err
		}
	}
	if err := b.db.load(ctx, b.events); err != nil {
		return r, err
	}
	if r.decodePerSecond, _, err = b.decode(ctx, decodeSlot, 0); err != nil {
		return r, fmt.Errorf("decode: %w", err)
	}
	if r.relay, err = b.drain(ctx); err != nil {
		return r, fmt.Errorf("drain the backlog: %w", err)
	}
	if _, r.decodeCPU, err = b.decode(ctx, pacedSlot, r.relay.perSecond); err != nil {
		return r, fmt.Errorf("decode at the relay's pace: %w", err)
	}
	if r.relay.bytes != r.raw.Bytes {
		return r, fmt.Errorf("the relay's bodies have %d bytes together and the raw client's %d: they are not comparable", r.relay.bytes, r.raw.Bytes)
	}
	return r, nil
}

// postRaw has the plain client post as many requests as the backlog has events. It returns the CPU time of
// client and receiver as well.
func (b *bench) postRaw(ctx context.Context) (got benchReceipts, cpu time.Duration, err error) {
	if err := b.receiver.expect(ctx, b.events, false); err != nil {
		return got, 0, err
	}
	before, err := processCPU(b.receiver.pid())
	if err != nil {
		return got, 0, err
	}
	client, err := startBenchChild(b.dir, nil, "bench-client", "--url", b.receiver.Hooks,
		"--posts", strconv.Itoa(b.events), "--connections", strconv.Itoa(b.connections))
	if err != nil {
		return got, 0, err
	}
	defer client.kill()
	if err := client.wait(ctx); err != nil {
		return got, 0, err
	}
	if got, err = b.receiver.result(ctx, func() error { return nil }); err != nil {
		return got, 0, err
	}
	after, err := processCPU(b.receiver.pid())
	return got, after - before + client.cmd.ProcessState.UserTime() + client.cmd.ProcessState.SystemTime(), err
}

// decode drains a slot and throws the items away, at the given rate or, when that is 0, as fast as it goes. It
// returns rows a second, from the stream's start to the last one, and what that cost Postgres.
func (b *bench) decode(ctx context.Context, slot string, pace float64) (perSecond float64, cpu time.Duration, err error) {
	from, err := benchAsk[string](ctx, b.db, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", slot)
	if err != nil {
		return 0, 0, err
	}
	start, err := delivery.ParseLSN(from)
	if err != nil {
		return 0, 0, err
	}
	before, err := familyCPU(b.db.server.PID())
	if err != nil {
		return 0, 0, err
	}
	conn, err := stream.Start(ctx, benchStream(b.db.url, slot), start, delivery.Position{LSN: start})
	if err != nil {
		return 0, 0, err
	}
	took, err := countEvents(ctx, conn, b.events, pace)
	conn.Close()
	if err != nil {
		return 0, 0, err
	}
	after, err := familyCPU(b.db.server.PID())
	if err != nil {
		return 0, 0, err
	}
	return float64(b.events) / took.Seconds(), after - before, b.db.dropSlot(ctx, slot)
}

// countEvents reads the stream until n events have come. The pace matters: a walsender whose reader keeps up
// wakes it for every row, and one that is held back does not, as by the relay.
func countEvents(ctx context.Context, conn *stream.Conn, n int, pace float64) (time.Duration, error) {
	began := time.Now()
	last := began
	for got := 0; got < n; {
		batch, err := conn.Receive(time.Second)
		switch {
		case err != nil:
			return 0, err
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case len(batch.Items) == 0 && time.Since(last) > benchStalled:
			return 0, fmt.Errorf("nothing has come for %s after %d of %d events", benchStalled, got, n)
		case len(batch.Items) == 0:
			continue
		}
		last = time.Now()
		for i := range batch.Items {
			if batch.Items[i].Event != nil {
				got++
			}
		}
		if pace > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(got) / pace * float64(time.Second)))))
		}
	}
	return last.Sub(began), nil
}

// drain starts the relay on the backlog and measures until the last delivery is recorded.
func (b *bench) drain(ctx context.Context) (benchDrain, error) {
	var d benchDrain
	if err := b.receiver.expect(ctx, b.events, false); err != nil {
		return d, err
	}
	already, err := b.db.delivered(ctx)
	if err != nil {
		return d, err
	}
	lsn, err := b.db.wal(ctx)
	if err != nil {
		return d, err
	}
	before, err := familyCPU(b.db.server.PID())
	if err != nil {
		return d, err
	}
	receiver, err := processCPU(b.receiver.pid())
	if err != nil {
		return d, err
	}
	started := time.Now()
	relay, err := b.startRelay()
	if err != nil {
		return d, err
	}
	defer relay.kill()
	got, err := b.receiver.result(ctx, relay.failed)
	if err != nil {
		return d, err
	}
	d.perSecond, d.bytes, d.startup = got.perSecond(), got.Bytes, time.Unix(0, got.First).Sub(started)
	if err := b.recorded(ctx, already+int64(b.events)); err != nil {
		return d, err
	}
	if err := b.account(ctx, &d, relay.pid(), lsn); err != nil {
		return d, err
	}
	d.pgCPU -= before
	d.receiverCPU -= receiver
	return d, relay.stop()
}

// recorded waits until as many deliveries are durably recorded, and makes sure that there are no more.
func (b *bench) recorded(ctx context.Context, want int64) error {
	var have int64
	err := benchPoll(ctx, "all deliveries are recorded", func() (_ bool, err error) {
		have, err = b.db.delivered(ctx)
		return have >= want, err
	})
	if err == nil && have != want {
		return fmt.Errorf("%d deliveries are recorded and %d were made", have, want)
	}
	return err
}

// account reads what the drain has cost, and the CPU times as they stand.
func (b *bench) account(ctx context.Context, d *benchDrain, relay int, lsn string) (err error) {
	if d.pgCPU, err = familyCPU(b.db.server.PID()); err != nil {
		return err
	}
	if d.wal, err = b.db.walSince(ctx, lsn); err != nil {
		return err
	}
	if d.relayCPU, err = processCPU(relay); err != nil {
		return err
	}
	if d.receiverCPU, err = processCPU(b.receiver.pid()); err != nil {
		return err
	}
	d.peakRSS, err = peakMemory(relay)
	return err
}
