package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/relay/secret"
	"github.com/walhook/walhook/relay/stream"
	"github.com/walhook/walhook/relay/webhook"
)

// engine is what the settings make: connections, sender, relay and the loops beside it. A reload that changes more
// than the loops' settings makes a new one.
type engine struct {
	service  *service
	log      zerolog.Logger
	own      []net.Addr // the relay's own endpoints, where no request may go
	database *pgconn.Config
	pool     *pgxpool.Pool // for metrics
	secrets  *secret.Resolver
	sender   *webhook.Sender // from prepare on
	face     *face           // API and dashboard

	cfg     atomic.Pointer[config.Config]
	changed chan struct{}               // cfg has other settings for the loops
	relay   atomic.Pointer[relay.Relay] // from prepare on
	trouble atomic.Pointer[ops.Ready]   // why prepare is tried again
}

// newEngine makes what can be made without a database, for a service that listens there; metrics is nil where they have no
// address of their own. Nothing runs yet.
func (s *service) newEngine(ctx context.Context, cfg config.Config, listen, metrics net.Addr) (*engine, error) {
	poolConfig, err := pgxpool.ParseConfig(cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%w: database_url: %w", errUsage, err)
	}
	poolConfig.MaxConns = 2
	stream.Unlimited(&poolConfig.ConnConfig.Config)
	secrets, err := openSecrets(cfg)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	e := &engine{service: s, log: s.log, own: []net.Addr{listen, metrics}, database: &poolConfig.ConnConfig.Config, pool: pool, secrets: secrets,
		changed: make(chan struct{}, 1)}
	e.cfg.Store(&cfg)
	e.trouble.Store(&ops.Ready{State: string(relay.Starting)})
	if e.face, err = e.newFace(ctx, cfg, listen); err != nil {
		pool.Close()
		return nil, err
	}
	return e, nil
}

// close ends API and dashboard and releases connections, when nothing else runs any more.
func (e *engine) close() {
	e.face.close()
	e.pool.Close()
	if e.sender != nil {
		e.sender.Close()
	}
}

// prepare looks for what must be in the database and then makes sender and relay: where requests may go depends on where
// the database turns out to be. Once it has succeeded it does nothing more.
func (e *engine) prepare(ctx context.Context) error {
	if e.relay.Load() != nil {
		return nil
	}
	log := e.log.With().Str("component", "relay").Logger()
	if err := relay.New(e.relayOptions(), nil, e.service.metrics, log).Check(ctx); err != nil {
		return err
	}
	if err := e.face.admit(ctx); err != nil {
		return err
	}
	options, err := senderOptions(ctx, *e.cfg.Load(), e.own[0], e.database, e.log)
	if err != nil {
		return err
	}
	options.Policy.Own = append(options.Policy.Own, listening(e.own[1])...)
	options.Tracer = e.service.tracer
	e.sender = webhook.New(options)
	e.relay.Store(relay.New(e.relayOptions(), e.sender, e.service.metrics, log))
	return nil
}

func (e *engine) relayOptions() relay.Options {
	cfg := e.cfg.Load()
	return relay.Options{
		URL: cfg.DatabaseURL.Reveal(), Slot: cfg.Slot, Version: version,
		ConnectTimeout: cfg.Replication.ConnectTimeout, StatusInterval: cfg.Replication.StatusInterval,
		RecordInterval: cfg.Record.Interval, MaxUnrecorded: cfg.Memory.MaxUnrecorded,
		MaxUnrecordedBytes: int(cfg.Memory.MaxUnrecordedBytes), SpillAfter: cfg.Delivery.SpillAfter,
		MaxSenders: cfg.Delivery.MaxSenders, GracePeriod: cfg.Delivery.GracePeriod,
		LeaseMargin: cfg.Queue.LeaseMargin, PollQueue: cfg.Queue.PollInterval,
		Secrets: e.secrets, ReplayRate: cfg.Replay.Rate,
		HaltOnGap: cfg.OnLostSlot == "halt", Heartbeat: cfg.Replication.Heartbeat,
	}
}

// run works until ctx ends. An error before that is one that no waiting mends.
func (e *engine) run(ctx context.Context) error {
	if err := e.await(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error { e.background(work); return nil })
	g.Go(func() error {
		defer stop()
		return e.relay.Load().Run(work)
	})
	return g.Wait()
}

// await tries prepare until it succeeds, ctx ends or there is something that no waiting mends.
func (e *engine) await(ctx context.Context) error {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		err := e.prepare(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || lasting(err):
			return err
		}
		e.waits(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// waits notes why the relay cannot start yet, and logs what is news.
func (e *engine) waits(err error) {
	now := &ops.Ready{State: string(relay.Starting), Error: err.Error()}
	if before := e.trouble.Swap(now); before.Error != now.Error {
		e.log.Warn().Err(err).Msg("the database cannot be used yet, trying again")
	}
}

// lasting reports an error that waiting does not mend: wrong settings, a missing set-up or right. What is left is a
// Postgres that does not answer, or not yet.
func lasting(err error) bool {
	if errors.Is(err, errUsage) || errors.Is(err, relay.ErrSetup) || refused(err) {
		return true
	}
	const syntaxErrorOrAccessRuleViolation = "42"
	return strings.HasPrefix(sqlState(err), syntaxErrorOrAccessRuleViolation)
}

// ready is what /readyz tells.
func (e *engine) ready() ops.Ready {
	r := e.relay.Load()
	if r == nil {
		return *e.trouble.Load()
	}
	h := r.Health()
	return ops.Ready{Ready: h.Ready(), State: string(h.State), Code: string(h.Code), Error: h.Error, Remedy: h.Remedy}
}

func (e *engine) lanes() ops.Lanes {
	r := e.relay.Load()
	if r == nil {
		return ops.Lanes{}
	}
	c := r.Lanes()
	return ops.Lanes{InFlight: c.InFlight, Active: c.Active, Inactive: c.Inactive, Invalid: c.Invalid, Circuits: c.Circuits}
}

func (e *engine) lag(ctx context.Context) (ops.Lag, error) {
	return ops.ReadLag(ctx, e.pool, e.cfg.Load().Slot)
}

func (e *engine) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(e.cfg.Load().DatabaseURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	stream.Unlimited(&cfg.Config)
	return pgx.ConnectConfig(ctx, cfg)
}

// loop is what is done beside the relay until ctx ends. It depends on the database and on settings that lightKey names,
// so that a reload starts it anew and leaves the relay alone.
type loop struct {
	name string // the component that it logs as
	run  func(ctx context.Context, log zerolog.Logger)
}

// loops lists them.
func (e *engine) loops(cfg *config.Config) []loop {
	return []loop{
		{"upkeep", func(ctx context.Context, log zerolog.Logger) {
			ops.KeepRegularly(ctx, e.connect, ops.Retention{Events: cfg.Retention.Events, Attempts: cfg.Retention.Attempts,
				DeadLetters: cfg.Retention.DeadLetters, Ahead: cfg.Retention.PartitionsAhead}, time.Hour, log)
		}},
		{"samples", func(ctx context.Context, log zerolog.Logger) {
			ops.SampleRegularly(ctx, e.connect, cfg.Slot, time.Minute, log)
		}},
		{"alerts", func(ctx context.Context, log zerolog.Logger) { e.lookForAlerts(ctx, cfg, log) }},
	}
}

// background keeps the loops running until ctx ends, and starts them anew when their settings have changed.
func (e *engine) background(ctx context.Context) {
	for ctx.Err() == nil {
		work, stop := context.WithCancel(ctx)
		var g sync.WaitGroup
		for _, l := range e.loops(e.cfg.Load()) {
			g.Go(func() { l.run(work, e.log.With().Str("component", l.name).Logger()) })
		}
		select {
		case <-e.changed:
		case <-ctx.Done():
		}
		stop()
		g.Wait()
	}
}

// adopt gives the loops other settings.
func (e *engine) adopt(cfg config.Config) {
	e.cfg.Store(&cfg)
	select {
	case e.changed <- struct{}{}:
	default: // they have not seen the last change yet
	}
}
