package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/relay/webhook"
)

func (a *app) runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the relay, with health and metrics on --listen",
		Long: "Run the relay until SIGINT or SIGTERM; then requests in flight may end within the grace period, everything is\n" +
			"recorded and confirmed, and the exit code is 0. Several may run with the same slot: one works, the others stand by.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load(c.Flags())
			if err != nil {
				return err
			}
			tuneMemory()
			stop, err := profileCPU()
			if err != nil {
				return err
			}
			defer stop()
			s, err := newService(c.Context(), cfg, a.logger(cfg))
			if err != nil {
				return err
			}
			return s.run(c.Context())
		},
	}
	configFlags(c)
	return c
}

// service is a relay with what surrounds it: health, metrics and the upkeep of partitions.
type service struct {
	cfg      config.Config
	log      zerolog.Logger
	listener net.Listener
	pool     *pgxpool.Pool // for metrics
	sender   *webhook.Sender
	relay    *relay.Relay
	metrics  *ops.Metrics
}

// newService checks what must be there and binds the address, so that whatever is wrong is said at once.
func newService(ctx context.Context, cfg config.Config, log zerolog.Logger) (*service, error) {
	s := &service{cfg: cfg, log: log}
	url := cfg.DatabaseURL.Reveal()
	poolConfig, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("%w: database_url: %w", errUsage, err)
	}
	poolConfig.MaxConns = 2
	if s.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	// The address is bound before the sender is made: requests must not go there, whatever port it has got.
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen); err != nil {
		s.close()
		return nil, fmt.Errorf("listen for health and metrics: %w", err)
	}
	options, err := senderOptions(ctx, cfg, s.listener.Addr(), &poolConfig.ConnConfig.Config, log)
	if err != nil {
		s.close()
		return nil, err
	}
	s.sender = webhook.New(options)
	secrets, err := openSecrets(cfg)
	if err != nil {
		s.close()
		return nil, err
	}
	s.metrics = ops.NewMetrics(s.lanes, func(ctx context.Context) (ops.Lag, error) { return ops.ReadLag(ctx, s.pool, cfg.Slot) })
	s.relay = relay.New(relay.Options{
		URL: url, Slot: cfg.Slot, Version: version,
		ConnectTimeout: cfg.Replication.ConnectTimeout, StatusInterval: cfg.Replication.StatusInterval,
		RecordInterval: cfg.Record.Interval, MaxUnrecorded: cfg.Memory.MaxUnrecorded,
		MaxUnrecordedBytes: int(cfg.Memory.MaxUnrecordedBytes), SpillAfter: cfg.Delivery.SpillAfter,
		MaxSenders: cfg.Delivery.MaxSenders, GracePeriod: cfg.Delivery.GracePeriod,
		LeaseMargin: cfg.Queue.LeaseMargin, PollQueue: cfg.Queue.PollInterval,
		Secrets: secrets, ReplayRate: cfg.Replay.Rate,
	}, s.sender, s.metrics, log.With().Str("component", "relay").Logger())
	if err := s.relay.Check(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close releases what there is already. A server that has served has closed the listener before.
func (s *service) close() {
	s.pool.Close()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.sender != nil {
		s.sender.Close()
	}
}

// run works until ctx ends. The HTTP server is the last to stop, so that the stop can be watched.
func (s *service) run(ctx context.Context) error {
	defer s.close()
	server := &http.Server{Handler: ops.Handler(s.ready, s.metrics), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	work, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			stop()
			return fmt.Errorf("serve health and metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		ops.KeepRegularly(work, s.connect, ops.Retention{Events: s.cfg.Retention.Events, Attempts: s.cfg.Retention.Attempts,
			DeadLetters: s.cfg.Retention.DeadLetters, Ahead: s.cfg.Retention.PartitionsAhead},
			time.Hour, s.log.With().Str("component", "upkeep").Logger())
		return nil
	})
	g.Go(func() error {
		defer func() { _ = server.Close() }()
		defer stop()
		return s.relay.Run(work)
	})
	s.log.Info().Stringer("listen", s.listener.Addr()).Str("slot", s.cfg.Slot).Str("version", version).Msg("walhook runs")
	err := g.Wait()
	s.log.Info().Err(err).Msg("walhook has stopped")
	return err
}

func (s *service) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.cfg.DatabaseURL.Reveal())
}

func (s *service) ready() ops.Ready {
	h := s.relay.Health()
	return ops.Ready{Ready: h.Ready(), State: string(h.State), Error: h.Error}
}

func (s *service) lanes() ops.Lanes {
	c := s.relay.Lanes()
	return ops.Lanes{InFlight: c.InFlight, Active: c.Active, Inactive: c.Inactive, Invalid: c.Invalid, Circuits: c.Circuits}
}
