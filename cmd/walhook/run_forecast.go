package main

import (
	"context"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/ops"
)

// forecast is where WAL and slot are heading, for metrics: rates come from samples alone.
func (s *service) forecast(ctx context.Context) (ops.Forecast, error) {
	e := s.engine.Load()
	cfg := e.cfg.Load()
	return ops.ReadForecast(ctx, e.pool, cfg.Slot, forecastOptions(ctx, *cfg, e.database))
}

// state is what the relay is doing, for metrics.
func (s *service) state() string { return s.engine.Load().ready().State }

// relayStates are all that there are.
func relayStates() []string {
	var names []string
	for _, state := range []relay.State{relay.Starting, relay.Standby, relay.Running, relay.Reconnecting, relay.Recovering, relay.Halted, relay.Stopping, relay.Stopped} {
		names = append(names, string(state))
	}
	return names
}
