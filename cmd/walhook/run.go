package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

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
		Short: "Run the relay, with health and metrics on --listen",
		Long: "Run the relay until SIGINT or SIGTERM; then requests in flight may end within the grace period, everything is\n" +
			"recorded and confirmed, and the exit code is 0. Several may run with the same slot: one works, the others stand by.\n" +
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

// service is what stays through reloads: the HTTP server, unless its address changes, the metrics, and around them what
// the process was given.
type service struct {
	log     zerolog.Logger
	metrics *ops.Metrics
	front   *front
	engine  atomic.Pointer[engine]
	serve   func(*front) // from run on

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

// open binds the address and looks at what can be looked at without a database, so that whatever is wrong there is said
// at once. The address comes first: requests must not go there, whatever port it has got.
func (s *service) open(ctx context.Context, cfg config.Config) error {
	s.metrics = ops.NewMetrics(s.lanes, s.lag, ops.NewAlertsCollector(s.alerts),
		ops.NewForecastCollector(s.forecast), ops.NewStateCollector(s.state, relayStates()...))
	var err error
	if s.front, err = s.newFront(ctx, cfg.Listen); err != nil {
		return err
	}
	e, err := s.newEngine(ctx, cfg, s.front.listener.Addr())
	if err != nil {
		_ = s.front.listener.Close()
		return err
	}
	s.engine.Store(e)
	return nil
}

// run works until ctx ends. The HTTP server is the first to start and the last to stop, so that both can be watched.
func (s *service) run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	s.serve = func(f *front) {
		g.Go(func() error {
			if err := f.server.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) {
				stop()
				return fmt.Errorf("serve health and metrics: %w", err)
			}
			return nil
		})
	}
	s.serve(s.front)
	notifying, endNotifying := context.WithCancel(context.WithoutCancel(ctx))
	defer endNotifying()
	g.Go(func() error { s.notify.run(notifying, work, s.watch); return nil })
	g.Go(func() error {
		defer func() { s.front.close() }() // a reload may have made another one
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
	s.log.Info().Stringer("listen", s.front.listener.Addr()).Str("slot", e.cfg.Load().Slot).Str("version", version).Msg("walhook runs")
	for {
		next, err := s.runEngine(ctx)
		if next == nil {
			return err
		}
		s.change(next)
	}
}

// runEngine runs the present engine until it ends, or until a reload has brought another one: then it has stopped
// gracefully, and what it could not record any more is delivered again.
func (s *service) runEngine(ctx context.Context) (*reloaded, error) {
	e := s.engine.Load()
	defer e.close()
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

// front is the address of health and metrics, and who answers there.
type front struct {
	listener net.Listener
	server   *http.Server
}

// newFront binds an address. Nobody answers yet.
func (s *service) newFront(ctx context.Context, address string) (*front, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for health and metrics: %w: set listen to another address, or stop what uses this one", err)
	}
	return &front{listener, &http.Server{Handler: ops.Handler(s.ready, s.metrics), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}}, nil
}

func (f *front) close() { _ = f.server.Close() }

func (s *service) ready() ops.Ready { return s.engine.Load().ready() }

func (s *service) lanes() ops.Lanes { return s.engine.Load().lanes() }

func (s *service) lag(ctx context.Context) (ops.Lag, error) { return s.engine.Load().lag(ctx) }
