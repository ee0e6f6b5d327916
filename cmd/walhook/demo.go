package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/delivery"
)

// demoRate is how many events a second the sample application publishes when nobody says otherwise.
const demoRate = 20

// demoStalled is how long nothing may arrive while something is awaited. Retries come far sooner.
const demoStalled = 2 * time.Minute

// errInterrupted ends a demo that somebody interrupted.
var errInterrupted = errors.New("interrupted")

type demoOptions struct {
	events int     // 0: until interrupted
	rate   float64 // events a second; 0: as fast as possible
	json   bool
}

func (a *app) demoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on this machine, with a throw-away Postgres",
		Long: "Start a throw-away Postgres, a sample application that publishes a clinic's day (some of its transactions are\n" +
			"rolled back on purpose), receivers of which one fails now and then, and the relay between them. Nothing needs to\n" +
			"be configured; Postgres's programs must be installed. Everything is removed at the end.\n\n" +
			"With --events N it stops after N committed events and the outcome of every delivery, and exits with 1 if anything\n" +
			"was lost, or was received although it was rolled back or did not match. p50_ms and p99_ms are the time from the\n" +
			"commit, as Postgres noted it, until the first attempt of a delivery has arrived at its receiver, over the last\n" +
			"100,000 deliveries; the waits between retries do not count.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("rate") && o.events == 0 {
				o.rate = demoRate
			}
			cfg, explicit, err := a.demoConfig(c, o)
			if err != nil {
				return err
			}
			return a.demo(c.Context(), cfg, explicit, o)
		},
	}
	configFlags(c, append([]string{"listen"}, logFlags...)...)
	c.Flags().IntVar(&o.events, "events", 0, "stop after this many committed events (0: when interrupted)")
	c.Flags().Float64Var(&o.rate, "rate", 0, "events a second, large transactions on top; 0: as fast as possible (default 20 without --events)")
	c.Flags().BoolVar(&o.json, "json", false, "print only the summary, as one JSON object")
	return c
}

// demoConfig is the configuration of a relay that nobody configured, except for where it listens and what it
// logs. explicit reports whether the address was asked for.
func (a *app) demoConfig(c *cobra.Command, o demoOptions) (cfg config.Config, explicit bool, err error) {
	switch {
	case o.events < 0:
		return cfg, false, fmt.Errorf("%w: --events %d is negative: give the number of events, or 0 for no end", errUsage, o.events)
	case !(o.rate >= 0 && o.rate <= 1e6):
		return cfg, false, fmt.Errorf("%w: --rate %v is not from 0 to 1000000: give the number of events a second, or 0 for no limit", errUsage, o.rate)
	}
	loaded, err := config.Load(a.configPath, a.environ, a.knownVariables...)
	if err == nil {
		err = loaded.SetFlags(c.Flags())
	}
	if err != nil {
		return cfg, false, fmt.Errorf("%w: %w", errUsage, err)
	}
	cfg = config.Default()
	explicit = c.Flags().Changed("listen") || loaded.Listen != cfg.Listen
	if loaded.LogLevel == cfg.LogLevel && !c.Flags().Changed("log-level") {
		loaded.LogLevel = "warn" // standard output tells the story
	}
	cfg.Listen, cfg.LogLevel, cfg.LogFormat = loaded.Listen, loaded.LogLevel, loaded.LogFormat
	cfg.Delivery.AllowLoopback = "always" // the demo's receivers are there, and nobody else's
	cfg.DatabaseURL = "postgres://not-yet-started/"
	if err := cfg.Validate(); err != nil {
		return cfg, false, fmt.Errorf("%w: %w", errUsage, err)
	}
	return cfg, explicit, nil
}

// demo is one run.
type demo struct {
	options   demoOptions
	cfg       config.Config
	explicit  bool // cfg.Listen was asked for
	log       zerolog.Logger
	say       *narrator
	ledger    *demoLedger
	receivers []*demoReceiver
	clinic    *clinic
	service   *service
}

func (a *app) demo(ctx context.Context, cfg config.Config, explicit bool, o demoOptions) error {
	d := &demo{options: o, cfg: cfg, explicit: explicit, log: a.logger(cfg), say: newNarrator(a.stdout, o.json), ledger: newDemoLedger()}
	summary, err := d.run(ctx)
	switch {
	case errors.Is(err, errInterrupted) && o.events > 0:
		return fmt.Errorf("%w after %d of %d events", errInterrupted, summary.Events, o.events)
	case err != nil && !errors.Is(err, errInterrupted):
		return err
	}
	if o.json {
		err = a.printJSON(summary)
	} else {
		err = nil
		d.say.summary(summary)
	}
	return errors.Join(err, d.ledger.verdict())
}

// run is the demo from Postgres's start to its removal. The summary is complete without an error and after
// errInterrupted.
func (d *demo) run(ctx context.Context) (summary demoSummary, err error) {
	server, err := localpg.Start(ctx, localpg.Options{})
	if err != nil {
		return summary, interruption(ctx, err)
	}
	defer func() {
		if closeErr := server.Close(); closeErr != nil {
			err = closeErr // what is left behind is worse than whatever else went wrong
		}
	}()
	d.cfg.DatabaseURL = config.Secret(server.URL("postgres"))
	d.say.line("Postgres %d started; look at it with: psql %q", server.Version(), server.URL("postgres"))
	defer d.stopReceivers()
	if err := d.prepare(ctx); err != nil {
		return summary, interruption(ctx, err)
	}
	summary, err = d.work(ctx)
	return summary, errors.Join(interruption(ctx, err), d.clinic.close())
}

// interruption tells errors that only say that ctx has ended from others.
func interruption(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return errInterrupted
	}
	return err
}

// prepare makes schema, slot, receivers, subscriptions, sample application and relay, in this order: the
// relay finds everything there, and every event is committed after the subscriptions.
func (d *demo) prepare(ctx context.Context) error {
	done, err := setUp(ctx, d.cfg)
	if err != nil {
		return err
	}
	for _, step := range done {
		d.say.line("%s", step)
	}
	if d.receivers, err = startDemoReceivers(ctx, d.ledger, d.say); err != nil {
		return err
	}
	if d.clinic, err = openClinic(ctx, d.cfg.DatabaseURL.Reveal(), d.options, d.receivers, d.ledger, d.say); err != nil {
		return err
	}
	if err := d.subscribe(ctx); err != nil {
		return errors.Join(err, d.clinic.close())
	}
	if d.service, err = d.newService(ctx); err != nil {
		return errors.Join(err, d.clinic.close())
	}
	d.say.line("health and metrics: curl http://%s/readyz, /healthz, /metrics", d.service.front.listener.Addr())
	d.say.line("look around: SELECT * FROM outbox.replication_lag, outbox.subscription_stats, outbox.calls, outbox.queue;")
	return nil
}

// subscribe inserts the receivers' subscriptions, as anybody would in SQL.
func (d *demo) subscribe(ctx context.Context) error {
	for _, r := range d.receivers {
		err := d.clinic.conn.QueryRow(ctx, `INSERT INTO outbox.subscriptions (name, url, secret, event_types, filters, max_retries, retry_delay)
			VALUES ($1, $2, $3, $4, $5, $6, '500 milliseconds') RETURNING id`,
			r.name, r.url, r.secret, r.eventTypes, r.filters, demoRetries).Scan(&r.subscription)
		if err != nil {
			return fmt.Errorf("subscribe %s: %w", r.name, err)
		}
		d.say.line("subscription %-15s event_types %-34s filters %s", r.name, fmt.Sprint(r.eventTypes), r.filters)
	}
	return nil
}

// newService makes the relay. When nobody asked for an address and the usual one is taken, any other will do.
func (d *demo) newService(ctx context.Context) (*service, error) {
	s, err := newService(ctx, d.cfg, d.log)
	if !errors.Is(err, syscall.EADDRINUSE) || d.explicit {
		return s, err
	}
	d.say.line("%s is taken, so another port is used", d.cfg.Listen)
	d.cfg.Listen = "127.0.0.1:0"
	return newService(ctx, d.cfg, d.log)
}

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

// stopReceivers comes after the relay's end: a receiver that is gone would be a failed delivery.
func (d *demo) stopReceivers() {
	for _, r := range d.receivers {
		r.stop()
	}
}

// deliveryOf is the delivery that an event becomes for a receiver.
func deliveryOf(event [16]byte, r *demoReceiver) [16]byte { return delivery.ID(event, r.subscription) }
