package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/config"
)

// demoRate is how many events a second the sample application publishes when nobody says otherwise.
const demoRate = 20

// demoAlerts is how often a demo without an end looks for what is wrong: nobody wants to wait for it there.
const demoAlerts = 5 * time.Second

// errInterrupted ends a demo that somebody interrupted.
var errInterrupted = errors.New("interrupted")

type demoOptions struct {
	events int     // 0: until interrupted
	rate   float64 // events a second; 0: as fast as possible
	json   bool
}

// endless reports whether the demo is one to look around in, rather than to measure: it has more to show, and whoever
// looks may publish, test and change what he finds.
func (o demoOptions) endless() bool { return o.events == 0 }

func (a *app) demoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on this machine, with a throw-away Postgres",
		Long: "Start a throw-away Postgres, a sample application that publishes a clinic's day (some of its transactions are\n" +
			"rolled back on purpose), receivers of which one fails now and then, and the relay between them, with its\n" +
			"dashboard: a link that logs in is printed. Nothing needs to be configured; Postgres's programs must be installed.\n" +
			"Everything is removed at the end.\n\n" +
			"Without --events there are more subscriptions to look at: of another tenant, a broken receiver, which makes dead letters,\n" +
			"a slow one, one whose filter is invalid and one that is inactive.\n\n" +
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
	configFlags(c, append([]string{"listen", "path_prefix"}, logFlags...)...)
	c.Flags().IntVar(&o.events, "events", 0, "stop after this many committed events (0: when interrupted)")
	c.Flags().Float64Var(&o.rate, "rate", 0, "events a second, large transactions on top; 0: as fast as possible (default 20 without --events)")
	c.Flags().BoolVar(&o.json, "json", false, "print only the summary, as one JSON object")
	return c
}

// demoConfig is the configuration of a relay that nobody configured, except for where it is found and what it
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
	cfg.Listen, cfg.PathPrefix, cfg.LogLevel, cfg.LogFormat = loaded.Listen, loaded.PathPrefix, loaded.LogLevel, loaded.LogFormat
	cfg.API.Token = newDemoToken()
	cfg.Alerts.Interval = 0 // an alert is an event too, and the summary counts those of the sample application
	if o.endless() {
		cfg.Alerts.Interval = demoAlerts
	}
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

	bystanders *demoServer // nil: there are none
}

func (a *app) demo(ctx context.Context, cfg config.Config, explicit bool, o demoOptions) error {
	d := &demo{options: o, cfg: cfg, explicit: explicit, log: a.logger(cfg), say: newNarrator(a.stdout, o.json), ledger: newDemoLedger(o.endless())}
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
	err = interruption(ctx, err)
	if errors.Is(err, errInterrupted) && d.options.endless() {
		d.pardon(ctx)
	}
	return summary, errors.Join(err, d.clinic.close())
}

// interruption tells errors that only say that ctx has ended from others.
func interruption(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return errInterrupted
	}
	return err
}
