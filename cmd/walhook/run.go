package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/ops"
)

func (a *app) runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the relay, with API, dashboard, health and metrics on --listen",
		Long: "Run the relay until SIGINT or SIGTERM; then requests in flight may end within the grace period, everything is\n" +
			"recorded and confirmed, and the exit code is 0. Several may run with the same slot: one works, the others stand by.\n\n" +
			"On --listen are the dashboard (/), the REST API (/api/v1, described at /api/v1/openapi.json), health (/healthz, /readyz) and\n" +
			"metrics (/metrics). Dashboard and API take a token: walhook token create --name NAME makes one. Behind a reverse proxy that keeps the path,\n" +
			"--path-prefix is what it begins with. On another address than loopback the relay does not start without a token.\n\n" +
			"SIGHUP loads file, environment and flags again; settings that cannot be used change nothing, and the log says why.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c.Context(), c.Flags()) },
	}
	configFlags(c)
	return c
}

// run is the process: what lives as long as it is made here.
func (a *app) run(ctx context.Context, flags *pflag.FlagSet) error {
	s := &service{load: func() (config.Config, error) { return a.load(flags) }}
	if a.hangups != nil {
		s.reloads = a.hangups()
	}
	cfg, err := s.load()
	if err != nil {
		return err
	}
	tuneMemory()
	stop, err := profileCPU()
	if err != nil {
		return err
	}
	defer stop()
	logs := &logSwitch{app: a}
	logs.apply(cfg)
	s.log, s.relog = logs.logger(), logs.apply
	s.notify = newNotifier(s.log)
	tracing := startTracing(ctx, a.environ, s.log)
	defer tracing.stop()
	s.tracer = tracing.tracer
	if err := s.open(ctx, cfg); err != nil {
		return err
	}
	return s.run(ctx)
}

// service is what stays through reloads: the HTTP servers, unless their addresses change, the metrics, and around them
// what the process was given.
type service struct {
	log          zerolog.Logger
	metrics      *ops.Metrics
	front        *front
	metricsFront *front // nil: metrics are on front
	engine       atomic.Pointer[engine]
	serve        func(*front) // from run on

	// What follows is walhook run's own; without it there are no reloads, no systemd and no traces.

	reloads <-chan os.Signal
	load    func() (config.Config, error)
	relog   func(config.Config)
	notify  *notifier
	tracer  trace.Tracer
}

// newService makes a service that nobody can reload.
func newService(ctx context.Context, cfg config.Config, log zerolog.Logger) (*service, error) {
	s := &service{log: log}
	return s, s.open(ctx, cfg)
}

// open binds the addresses and looks at what can be looked at without a database, so that whatever is wrong there is said
// at once. The addresses come first: requests must not go there, whatever port they have got.
func (s *service) open(ctx context.Context, cfg config.Config) error {
	s.metrics = ops.NewMetrics(s.lanes, s.lag, ops.NewAlertsCollector(s.alerts),
		ops.NewForecastCollector(s.forecast), ops.NewStateCollector(s.state, relayStates()...))
	var err error
	if s.front, err = s.newFront(ctx, "listen", cfg.Listen, s.pages()); err != nil {
		return err
	}
	if s.metricsFront, err = s.newMetricsFront(ctx, cfg); err != nil {
		s.front.discard()
		return err
	}
	e, err := s.newEngine(ctx, cfg, s.front.address(), s.metricsFront.address())
	if err != nil {
		s.front.discard()
		s.metricsFront.discard()
		return err
	}
	s.engine.Store(e)
	return nil
}

// run works until ctx ends. The HTTP servers are the first to start and the last to stop, so that both can be watched.
func (s *service) run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	s.serve = func(f *front) {
		g.Go(func() error {
			if err := f.server.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) {
				stop()
				return fmt.Errorf("serve %s: %w", f.listener.Addr(), err)
			}
			return nil
		})
	}
	s.serve(s.front)
	if s.metricsFront != nil {
		s.serve(s.metricsFront)
	}
	notifying, endNotifying := context.WithCancel(context.WithoutCancel(ctx))
	defer endNotifying()
	g.Go(func() error { s.notify.run(notifying, work, s.watch); return nil })
	g.Go(func() error {
		defer func() { s.front.close(); s.metricsFront.close() }() // a reload may have made others
		defer endNotifying()
		defer stop()
		return s.supervise(work)
	})
	err := g.Wait()
	s.log.Info().Err(err).Msg("walhook has stopped")
	return err
}

// supervise runs one engine after the other until ctx ends.
func (s *service) supervise(ctx context.Context) error {
	e := s.engine.Load()
	if err := e.prepare(ctx); err != nil && ctx.Err() == nil {
		if lasting(err) {
			e.close()
			return err
		}
		e.waits(err)
	}
	s.addresses(s.log.Info()).Str("slot", e.cfg.Load().Slot).Str("version", version).Msg("walhook runs")
	for {
		next, err := s.runEngine(ctx)
		if next == nil {
			s.engine.Load().close()
			return err
		}
		s.change(next)
	}
}

// runEngine runs the present engine until it ends, or until a reload has brought another one: then it has stopped
// gracefully, and what it could not record any more is delivered again. Its API and dashboard answer until it is closed.
func (s *service) runEngine(ctx context.Context) (*reloaded, error) {
	e := s.engine.Load()
	work, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- e.run(work) }()
	for {
		select {
		case err := <-ended:
			return nil, err
		case <-s.reloads:
		}
		next := s.reload(ctx)
		if next == nil {
			continue
		}
		stop()
		err := <-ended
		if ctx.Err() != nil {
			next.discard()
			return nil, err
		}
		if err != nil {
			s.log.Warn().Err(err).Msg("the relay with the old settings stopped with an error")
		}
		return next, nil
	}
}

func (s *service) ready() ops.Ready { return s.engine.Load().ready() }

func (s *service) lanes() ops.Lanes { return s.engine.Load().lanes() }

func (s *service) lag(ctx context.Context) (ops.Lag, error) { return s.engine.Load().lag(ctx) }
