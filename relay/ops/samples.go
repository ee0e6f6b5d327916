package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// Sampled is what one step noted.
type Sampled struct {
	WAL           bool  // where WAL and slot stand
	Subscriptions int64 // totals of so many
	System        bool  // the sums over everything
}

// Sample notes where WAL and slot stand, the totals of subscriptions that had attempts lately, and the sums over everything,
// once. What was noted within the last minute, or (totals) the present five minutes, is not noted again, whoever did it.
func Sample(ctx context.Context, conn *pgx.Conn, slot string) (Sampled, error) {
	var s Sampled
	if err := conn.QueryRow(ctx, "SELECT outbox.sample_wal($1)", slot).Scan(&s.WAL); err != nil {
		return s, fmt.Errorf("note where WAL and slot stand: %w", err)
	}
	if err := conn.QueryRow(ctx, "SELECT outbox.sample_subscriptions()").Scan(&s.Subscriptions); err != nil {
		return s, fmt.Errorf("note what subscriptions did: %w", err)
	}
	if err := conn.QueryRow(ctx, "SELECT outbox.sample_system($1)", slot).Scan(&s.System); err != nil {
		return s, fmt.Errorf("note the sums over everything: %w", err)
	}
	return s, nil
}

// SampleRegularly runs Sample now and then every interval until ctx ends; a minute is what forecasts expect. Any number
// of relays may do so, those that stand by as well: the WAL grows also while nobody reads the slot.
func SampleRegularly(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), slot string, every time.Duration, log zerolog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	failing := false
	for {
		err := sampleOnce(ctx, connect, slot)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && !failing:
			log.Warn().Err(err).Msg("no samples for the forecast, for charts and for statistics of the last hour, trying again")
		case err == nil && failing:
			log.Info().Msg("samples are taken again")
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func sampleOnce(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), slot string) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = Sample(ctx, conn, slot)
	return err
}
