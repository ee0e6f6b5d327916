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
	Created, Dropped []string         // partitions
	Left             []string         // partitions that are old enough, but in use or with something in them that must stay
	Removed          map[string]int64 // rows that are in no partition of their own, by table
}

// removeBatch is how many rows of a table are removed in one transaction.
const removeBatch = 5000

// Keep makes partitions ahead and drops or removes what is too old, once. Each partition is dropped in a transaction
// of its own, so that who writes events gets a turn in between. Locks are waited for only shortly: a reader in the
// way means that the next step does it.
func Keep(ctx context.Context, conn *pgx.Conn, r Retention) (Upkeep, error) {
	var u Upkeep
	if _, err := conn.Exec(ctx, "SET lock_timeout = '2s'"); err != nil {
		return u, fmt.Errorf("limit the wait for locks: %w", err)
	}
	var err error
	if u.Created, err = names(ctx, conn, "SELECT outbox.create_partitions($1)", r.Ahead); err != nil {
		return u, fmt.Errorf("create partitions: %w", err)
	}
	if err := u.drop(ctx, conn, r); err != nil {
		return u, fmt.Errorf("drop partitions: %w", err)
	}
	if err := u.remove(ctx, conn, r); err != nil {
		return u, fmt.Errorf("remove old rows: %w", err)
	}
	return u, nil
}

func (u *Upkeep) drop(ctx context.Context, conn *pgx.Conn, r Retention) error {
	old, err := names(ctx, conn, "SELECT name FROM outbox.old_partitions($1, $2, $3)", r.Events, r.Attempts, r.DeadLetters)
	if err != nil {
		return err
	}
	for _, name := range old {
		dropped, err := names(ctx, conn, "SELECT outbox.drop_partitions($1, $2, $3, named => $4)", r.Events, r.Attempts, r.DeadLetters, name)
		if err != nil {
			return err
		}
		if len(dropped) == 0 {
			u.Left = append(u.Left, name)
		}
		u.Dropped = append(u.Dropped, dropped...)
	}
	return nil
}

// remove goes on for as long as there are full batches.
func (u *Upkeep) remove(ctx context.Context, conn *pgx.Conn, r Retention) error {
	u.Removed = map[string]int64{}
	for full := true; full; {
		full = false
		rows, err := conn.Query(ctx, "SELECT kind, removed FROM outbox.remove_old($1, $2, $3, $4)", r.Events, r.Attempts, r.DeadLetters, removeBatch)
		if err != nil {
			return err
		}
		var kind string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&kind, &n}, func() error {
			if n > 0 {
				u.Removed[kind] += n
			}
			full = full || n == removeBatch
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
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
	if len(u.Created)+len(u.Dropped)+len(u.Removed) > 0 {
		log.Info().Strs("created", u.Created).Strs("dropped", u.Dropped).Strs("left", u.Left).Interface("rows_removed", u.Removed).Msg("upkeep of partitions")
	}
	return err
}
