package main

import (
	"context"
	"fmt"
	"time"
)

// benchRest is what a stretch of time without any event costs.
type benchRest struct {
	pgCPU, relayCPU time.Duration
	wal             int64
}

// rest measures what a relay costs that has nothing to do: for the given time the database is left alone, and then, once a
// relay has run for as long, again with it. The difference is the relay's, for an hour.
func (b *bench) rest(ctx context.Context) error {
	if b.idle == 0 {
		return nil
	}
	// What the parts before have left to write out is nobody's idle cost, nor what autovacuum finds to do after them.
	for _, sql := range []string{"VACUUM", "CHECKPOINT", "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"} {
		if err := b.db.exec(ctx, sql); err != nil {
			return err
		}
	}
	alone, err := b.watchRest(ctx, 0)
	if err != nil {
		return fmt.Errorf("idle database: %w", err)
	}
	relay, err := b.startRelay()
	if err != nil {
		return err
	}
	defer relay.kill()
	if err := b.slotInUse(ctx, relay); err != nil {
		return err
	}
	// What a start costs (the first looks, whole pages in the WAL after the checkpoint) is no hour's cost.
	if _, err := b.watchRest(ctx, relay.pid()); err != nil {
		return fmt.Errorf("idle relay: %w", err)
	}
	with, err := b.watchRest(ctx, relay.pid())
	if err != nil {
		return fmt.Errorf("idle relay: %w", err)
	}
	memory, err := presentMemory(relay.pid())
	if err != nil {
		return err
	}
	hours := b.idle.Hours()
	b.result.Idle = &benchIdle{
		Seconds:  b.idle.Seconds(),
		RelayCPU: with.relayCPU.Seconds() / hours, PgCPU: (with.pgCPU - alone.pgCPU).Seconds() / hours,
		WAL: float64(with.wal-alone.wal) / hours, WALAlone: float64(alone.wal) / hours, RSS: memory,
	}
	b.note("idle for %s: relay %s of CPU, Postgres %s (%s without a relay), %d bytes of WAL (%d without), %.1f MB", b.idle,
		with.relayCPU, with.pgCPU, alone.pgCPU, with.wal, alone.wal, memory)
	if err := relay.stop(); err != nil {
		return err
	}
	if err := b.db.exec(ctx, "ALTER SYSTEM RESET autovacuum"); err != nil {
		return err
	}
	return b.db.exec(ctx, "SELECT pg_reload_conf()")
}

// slotInUse waits until the relay reads its slot.
func (b *bench) slotInUse(ctx context.Context, relay *benchChild) error {
	return benchPoll(ctx, "the relay has its slot", func() (bool, error) {
		if err := relay.failed(); err != nil {
			return false, err
		}
		return benchAsk[bool](ctx, b.db, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", b.db.slot)
	})
}

// watchRest lets the time pass and returns what Postgres and the relay have used meanwhile; pid 0 is no relay.
func (b *bench) watchRest(ctx context.Context, pid int) (benchRest, error) {
	var r benchRest
	lsn, err := b.db.wal(ctx)
	if err != nil {
		return r, err
	}
	before, err := b.restCPU(pid)
	if err != nil {
		return r, err
	}
	timer := time.NewTimer(b.idle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	after, err := b.restCPU(pid)
	if err != nil {
		return r, err
	}
	r.pgCPU, r.relayCPU = after.pgCPU-before.pgCPU, after.relayCPU-before.relayCPU
	r.wal, err = b.db.walSince(ctx, lsn)
	return r, err
}

// restCPU reads the CPU times as they stand.
func (b *bench) restCPU(pid int) (r benchRest, err error) {
	if r.pgCPU, err = familyCPU(b.db.server.PID()); err != nil || pid == 0 {
		return r, err
	}
	r.relayCPU, err = processCPU(pid)
	return r, err
}
