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

// replay is how far one is.
type replay struct {
	ID      uuid.UUID `json:"id"`
	State   string    `json:"state"`
	Matched int64     `json:"matched"`
	Queued  int64     `json:"queued"`
	Error   *string   `json:"error"`
}

type replayOptions struct {
	chosen
	since, until momentFlag
	onlyFailed   bool
	wait         bool
}

func (a *app) replayCommand() *cobra.Command {
	var o replayOptions
	c := &cobra.Command{
		Use:   "replay SUBSCRIPTION --since TIME",
		Short: "Send past events to a subscription again",
		Long: "Send past events to a subscription again, as its event types and filters are now, under the same delivery ids. The relay\n" +
			"does it in the background; outbox.replays shows how far it is. Times are RFC 3339, or how long ago, as 2h or 7d.",
		Example: "  walhook replay billing --since 2h --only-failed --wait",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case o.since.at == nil:
				return fmt.Errorf("%w: --since is not given: write it as 2026-01-31T12:00:00Z, or how long ago as 2h or 7d", errUsage)
			case o.until.at != nil && !o.since.at.Before(*o.until.at):
				return fmt.Errorf("%w: --until %s does not lie behind --since %s: give a later time", errUsage, o.until.text, o.since.text)
			}
			return a.replay(c, &o, args[0])
		},
	}
	chosenFlags(c, &o.chosen)
	f := c.Flags()
	f.Var(&o.since, "since", "events since then")
	f.Var(&o.until, "until", "and before then (default now)")
	f.BoolVar(&o.onlyFailed, "only-failed", false, "only what has failed")
	f.BoolVar(&o.wait, "wait", false, "wait until everything is queued")
	return c
}

// replay takes its time when it waits; without that the statements have commandTimeout.
func (a *app) replay(c *cobra.Command, o *replayOptions, idOrName string) error {
	limit := commandTimeout
	if o.wait {
		limit = 0
	}
	return a.onDatabase(c, limit, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		subscription, err := o.find(ctx, c, conn, idOrName)
		if err != nil {
			return err
		}
		var id uuid.UUID
		err = conn.QueryRow(ctx, "SELECT outbox.replay($1, $2, $3, $4)", subscription, o.since.at, o.until.at, o.onlyFailed).Scan(&id)
		if err != nil {
			return explainRefusal(fmt.Errorf("replay: %w", err), nil)
		}
		r, err := readReplay(ctx, conn, id)
		if err == nil && o.wait {
			r, err = a.waitForReplay(ctx, conn, id)
		}
		if err != nil {
			return err
		}
		return errors.Join(a.showReplay(r, o), r.verdict())
	})
}

func readReplay(ctx context.Context, conn *pgx.Conn, id uuid.UUID) (*replay, error) {
	var r replay
	err := conn.QueryRow(ctx, "SELECT id, state, matched, queued, error FROM outbox.replays WHERE id = $1", id).
		Scan(&r.ID, &r.State, &r.Matched, &r.Queued, &r.Error)
	if err != nil {
		return nil, fmt.Errorf("read replay %s: %w", id, err)
	}
	return &r, nil
}

// replayPatience is when somebody who waits is told that nobody works on it.
const replayPatience = 10 * time.Second

// waitForReplay waits for the end, for as long as the user does.
func (a *app) waitForReplay(ctx context.Context, conn *pgx.Conn, id uuid.UUID) (r *replay, err error) {
	begun, told := time.Now(), false
	err = poll(ctx, func() (bool, error) {
		if r, err = readReplay(ctx, conn, id); err != nil {
			return false, err
		}
		if r.State == "waiting" && !told && time.Since(begun) > replayPatience {
			told = true
			_, _ = fmt.Fprintf(a.stderr, "walhook: replay %s waits for a relay: is one running (walhook status)?\n", id)
		}
		return r.State == "done" || r.State == "failed", nil
	})
	return r, err
}

func (a *app) showReplay(r *replay, o *replayOptions) error {
	switch {
	case o.json:
		return a.printJSON(r)
	case !o.wait:
		_, err := fmt.Fprintln(a.stdout, r.ID)
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "replay %s is %s: %d events matched, %d deliveries queued\n", r.ID, r.State, r.Matched, r.Queued)
	return err
}

// verdict is what the exit code tells.
func (r *replay) verdict() error {
	if r.State != "failed" {
		return nil
	}
	return fmt.Errorf("replay %s has failed: %s", r.ID, printable(orDash(r.Error)))
}
