package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
)

// redeliverPage is how many dead letters are brought back in one transaction.
const redeliverPage = 500

type redeliverOptions struct {
	chosen
	subscription string
	dead         bool
}

func (a *app) redeliverCommand() *cobra.Command {
	var o redeliverOptions
	c := &cobra.Command{
		Use:   "redeliver DELIVERY…",
		Short: "Send deliveries again, under the same ids",
		Long: "Send deliveries again, now and under the same ids: dead letters, those that wait, and those that succeeded and whose event\n" +
			"is still kept. --dead with --subscription takes all dead letters of one subscription.",
		Example: "  walhook redeliver --dead --subscription billing",
		Args:    usage(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return err
			}
			if o.dead {
				return a.redeliverDead(c, &o)
			}
			return a.redeliverEach(c, &o, args)
		},
	}
	chosenFlags(c, &o.chosen)
	c.Flags().BoolVar(&o.dead, "dead", false, "all dead letters of --subscription")
	c.Flags().StringVar(&o.subscription, "subscription", "", "with --dead: id or name of the subscription")
	return c
}

func (o *redeliverOptions) check(args []string) error {
	switch {
	case o.dead && len(args) > 0:
		return fmt.Errorf("%w: --dead takes all dead letters of --subscription: give no ids with it", errUsage)
	case o.dead != (o.subscription != ""):
		return fmt.Errorf("%w: --dead and --subscription belong together: give both", errUsage)
	case !o.dead && len(args) == 0:
		return fmt.Errorf("%w: no delivery is given: give ids, as outbox.dead_letters and outbox.calls have them, or --dead --subscription", errUsage)
	}
	for _, arg := range args {
		if _, err := uuid.Parse(arg); err != nil {
			return fmt.Errorf("%w: %s is no id of a delivery: outbox.dead_letters and outbox.calls have them", errUsage, quote(arg))
		}
	}
	return nil
}

// redeliverEach goes on behind one that cannot be sent again, and fails in the end.
func (a *app) redeliverEach(c *cobra.Command, o *redeliverOptions, ids []string) error {
	return a.onDatabase(c, commandTimeout, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		done := []uuid.UUID{}
		var problems []error
		for _, text := range ids {
			var id uuid.UUID
			if err := conn.QueryRow(ctx, "SELECT outbox.redeliver($1)", uuid.MustParse(text)).Scan(&id); err != nil {
				problems = append(problems, fmt.Errorf("redeliver %s: %w", text, err))
				continue
			}
			done = append(done, id)
		}
		problems = append(problems, a.showRedelivered(o, done))
		return errors.Join(problems...)
	})
}

func (a *app) showRedelivered(o *redeliverOptions, ids []uuid.UUID) error {
	if o.json {
		return a.printJSON(map[string]any{"redelivered": len(ids), "ids": ids})
	}
	for _, id := range ids {
		if _, err := fmt.Fprintf(a.stdout, "queued %s\n", id); err != nil {
			return err
		}
	}
	return nil
}

// redeliverDead brings back what is dead by now, oldest first and page by page: what dies anew meanwhile is left
// for another time, so that it ends.
func (a *app) redeliverDead(c *cobra.Command, o *redeliverOptions) error {
	return a.onDatabase(c, 0, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		id, err := o.find(ctx, c, conn, o.subscription)
		if err != nil {
			return err
		}
		var until time.Time
		if err := conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&until); err != nil {
			return fmt.Errorf("redeliver dead letters: %w", err)
		}
		total := int64(0)
		for n := int64(redeliverPage); n == redeliverPage; total += n {
			if n, err = redeliverSome(ctx, conn, id, until); err != nil {
				return fmt.Errorf("redeliver dead letters, behind the first %d: %w", total, err)
			}
		}
		if o.json {
			return a.printJSON(map[string]any{"redelivered": total})
		}
		_, err = fmt.Fprintf(a.stdout, "queued %d\n", total)
		return err
	})
}

// redeliverSome brings one page back and returns how many it had.
func redeliverSome(ctx context.Context, conn *pgx.Conn, subscription uuid.UUID, until time.Time) (int64, error) {
	tag, err := conn.Exec(ctx, `SELECT outbox.redeliver(d.id) FROM (
		SELECT id FROM outbox.dead_letters WHERE subscription_id = $1 AND died_at <= $2 ORDER BY died_at, id LIMIT $3) AS d`,
		subscription, until, redeliverPage)
	return tag.RowsAffected(), err
}
