package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// Retention says how long things are kept, and how far ahead partitions are made.
type Retention struct {
	Events, Attempts, DeadLetters time.Duration
	Ahead                         time.Duration
}

// Upkeep is what one step did.
type Upkeep struct {
	Created, Dropped []string // partitions
	DeadLetters      int64    // removed
}

// Keep makes partitions ahead and drops what is too old, once. Locks are waited for only shortly: a reader
// in the way means that the next step does it.
func Keep(ctx context.Context, conn *pgx.Conn, r Retention) (Upkeep, error) {
	var u Upkeep
	if _, err := conn.Exec(ctx, "SET lock_timeout = '2s'"); err != nil {
		return u, fmt.Errorf("limit the wait for locks: %w", err)
	}
	var err error
	if u.Created, err = names(ctx, conn, "SELECT outbox.create_partitions($1)", r.Ahead); err != nil {
		return u, fmt.Errorf("create partitions: %w", err)
	}
	if u.Dropped, err = names(ctx, conn, "SELECT outbox.drop_partitions($1, $2)", r.Events, r.Attempts); err != nil {
		return u, fmt.Errorf("drop partitions: %w", err)
	}
	tag, err := conn.Exec(ctx, "DELETE FROM outbox.dead_letters WHERE died_at < now() - $1::interval", r.DeadLetters)
	if err != nil {
		return u, fmt.Errorf("remove old dead letters: %w", err)
	}
	u.DeadLetters = tag.RowsAffected()
	if _, err := conn.Exec(ctx, "DELETE FROM outbox.replays WHERE finished_at < now() - $1::interval", r.DeadLetters); err != nil {
		return u, fmt.Errorf("remove old replays: %w", err)
	}
	return u, nil
}

func names(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]string, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// KeepRegularly runs Keep now and then every interval until ctx ends. Any number of relays may do so.
func KeepRegularly(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), r Retention, every time.Duration, log zerolog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := keepOnce(ctx, connect, r, log); err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Msg("upkeep of partitions, trying again later")
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func keepOnce(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), r Retention, log zerolog.Logger) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	u, err := Keep(ctx, conn, r)
	if len(u.Created)+len(u.Dropped) > 0 || u.DeadLetters > 0 {
		log.Info().Strs("created", u.Created).Strs("dropped", u.Dropped).Int64("dead_letters_removed", u.DeadLetters).Msg("upkeep of partitions")
	}
	return err
}
