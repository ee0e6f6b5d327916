package main

import (
	"context"
	"fmt"
)

// benchBatch is how many events a request carries in the rounds with batches.
const benchBatch = 100

// batched drains the backlog in requests of many events each, a round as often as one by one.
func (b *bench) batched(ctx context.Context) error {
	if err := b.db.batches(ctx, benchBatch); err != nil {
		return err
	}
	var rates []float64
	for range b.rounds {
		if err := b.db.load(ctx, b.events); err != nil {
			return err
		}
		d, err := b.drain(ctx)
		if err != nil {
			return fmt.Errorf("drain the backlog in batches: %w", err)
		}
		rates = append(rates, d.perSecond)
		b.note("batches of %d: %.0f events/s, Postgres %.2f µs, relay %.2f µs of CPU an event", benchBatch, d.perSecond, b.each(d.pgCPU), b.each(d.relayCPU))
	}
	b.result.BatchedEventsPerS, b.result.BatchedEventsPerSSpread = benchMedian(rates)
	return b.db.batches(ctx, 1)
}
