package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/relay/delivery"
)

// demoStalled is how long nothing may arrive while something is awaited. Retries come far sooner.
const demoStalled = 2 * time.Minute

// work runs the relay, publishes, waits for what was published and stops the relay. What it returns after
// an interruption is what had happened until then.
func (d *demo) work(ctx context.Context) (demoSummary, error) {
	relayCtx, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	reporting, stopReport := context.WithCancel(relayCtx)
	defer stopReport()
	var relay errgroup.Group
	var report sync.WaitGroup
	relay.Go(func() error {
		defer stopWork()
		return d.service.run(relayCtx)
	})
	err := d.awaitReady(working)
	if err == nil {
		d.say.banner(append(d.links().lines(), "Ctrl-C ends the demo and removes everything.")...)
	}
	report.Go(func() { d.report(reporting) })
	began := time.Now()
	if err == nil {
		err = d.clinic.work(working)
	}
	if err == nil {
		err = d.settle(working)
	}
	summary := d.ledger.summary(time.Since(began))
	stopReport()
	report.Wait()
	stopRelay()
	if relayErr := relay.Wait(); relayErr != nil {
		err = fmt.Errorf("relay: %w", relayErr)
	}
	if err != nil || ctx.Err() != nil {
		return summary, err
	}
	return summary, d.checkRecords(ctx)
}

// awaitReady waits until the stream flows, so that its start is not measured as delay.
func (d *demo) awaitReady(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !d.service.ready().Ready {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// settle waits until every delivery was received or is a dead letter. It gives up when nothing has moved for
// long; the ledger's verdict says what is missing.
func (d *demo) settle(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	settled := d.ledger.settled()
	for {
		select {
		case <-settled:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := d.bury(ctx); err != nil {
			return err
		}
		if d.ledger.sinceArrival() > demoStalled {
			return nil
		}
	}
}

// bury tells the ledger which deliveries have become dead letters.
func (d *demo) bury(ctx context.Context) error {
	rows, err := d.clinic.conn.Query(ctx, "SELECT id FROM outbox.dead_letters")
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	for _, id := range ids {
		d.ledger.bury(id)
	}
	return nil
}

// checkRecords compares the receivers' view with what the stopped relay has recorded.
func (d *demo) checkRecords(ctx context.Context) error {
	var waiting, succeeded int
	err := d.clinic.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM outbox.deliveries),
		(SELECT count(DISTINCT delivery_id) FROM outbox.attempts WHERE error IS NULL)`).Scan(&waiting, &succeeded)
	if err != nil {
		return fmt.Errorf("read what was recorded: %w", err)
	}
	d.ledger.recorded(waiting, succeeded)
	return nil
}

// report prints a line every second until ctx ends.
func (d *demo) report(ctx context.Context) {
	if d.options.json {
		return
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		lag, err := d.service.lag(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.say.line("%v", err)
		default:
			d.say.progress(d.ledger.summary(0), lag)
		}
	}
}

// pardon looks whether somebody has changed or removed a receiver's subscription while the demo ran. A receiver whose
// secret or format was changed without its knowledge is right to refuse, and that is no failure of the demo.
func (d *demo) pardon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	revisions := make([]int, len(d.receivers))
	for i, r := range d.receivers {
		revisions[i] = r.revision
	}
	var same int
	err := d.clinic.conn.QueryRow(ctx, "SELECT count(*) FROM outbox.subscriptions WHERE revision = ANY($1)", revisions).Scan(&same)
	if err != nil || same < len(revisions) {
		d.ledger.pardon()
	}
}

// stopReceivers comes after the relay's end: a receiver that is gone would be a failed delivery.
func (d *demo) stopReceivers() {
	for _, r := range d.receivers {
		r.server.stop()
	}
	if d.bystanders != nil {
		d.bystanders.stop()
	}
}

// deliveryOf is the delivery that an event becomes for a receiver.
func deliveryOf(event [16]byte, r *demoReceiver) [16]byte { return delivery.ID(event, r.subscription) }
