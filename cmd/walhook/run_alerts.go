package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/ops"
)

// lookForAlerts is the loop that raises and resolves alerts. With alerts.interval 0 there are none.
func (e *engine) lookForAlerts(ctx context.Context, cfg *config.Config, log zerolog.Logger) {
	if cfg.Alerts.Interval == 0 {
		return
	}
	c, options := cfg.Alerts, forecastOptions(ctx, *cfg, e.database)
	ops.AlertRegularly(ctx, e.connect, &ops.Alerts{
		Slot: cfg.Slot,
		Thresholds: ops.Thresholds{NoActivity: c.NoActivity, SuccessRate: c.SuccessRate, ConsecutiveFailures: c.ConsecutiveFailures,
			Timeouts: c.Timeouts, Lag: c.Lag, SlotLostWithin: c.SlotLostWithin},
		State: func() (string, string) {
			h := e.relay.Load().Health()
			return string(h.State), string(h.Code)
		},
		Forecast: func(ctx context.Context, conn *pgx.Conn) (ops.Forecast, error) {
			return ops.ReadForecast(ctx, conn, cfg.Slot, options)
		},
	}, c.Interval, log)
}

// alerts counts those that stand, for metrics.
func (s *service) alerts(ctx context.Context) (map[string]int, error) {
	return ops.ReadAlerts(ctx, s.engine.Load().pool)
}
