package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
)

// auditSpan is what is looked at when nobody says since when.
const auditSpan = 24 * time.Hour

// audit is what outbox.audit returns.
type audit struct {
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until"`
	Events      int64     `json:"events"`
	Matched     int64     `json:"matched"`
	Delivered   int64     `json:"delivered"`
	Pending     int64     `json:"pending"`
	Dead        int64     `json:"dead"`
	Unread      int64     `json:"unread"`
	Unaccounted int64     `json:"unaccounted"`
}

type auditOptions struct {
	since, until momentFlag
	json         bool
}

func (a *app) auditCommand() *cobra.Command {
	var o auditOptions
	c := &cobra.Command{
		Use:   "audit",
		Short: "Prove that every committed event has its outcome",
		Long: "Compare what applications committed with what the relay recorded, and what it matched with what was delivered, waits or is\n" +
			"dead, as outbox.audit does. The exit code is 1 when something is unaccounted for. Times are RFC 3339, or how long ago, as 2h\n" +
			"or 7d; whole minutes are looked at, and nothing that is no longer kept.",
		Example: "  walhook audit --since 7d",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			since := time.Now().Add(-auditSpan)
			if o.since.at != nil {
				since = *o.since.at
			}
			if o.until.at != nil && !since.Before(*o.until.at) {
				return fmt.Errorf("%w: --until %s does not lie behind --since %s: give a later time", errUsage, o.until.text, since.Format(time.RFC3339))
			}
			return a.audit(c, &o, since)
		},
	}
	configFlags(c, "database_url")
	c.Flags().Var(&o.since, "since", "events since then (default 24h)")
	c.Flags().Var(&o.until, "until", "and before then (default now)")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return c
}

// audit takes the time that it needs: all events of the range are read.
func (a *app) audit(c *cobra.Command, o *auditOptions, since time.Time) error {
	return a.onDatabase(c, 0, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		found, err := readAudit(ctx, conn, since, o.until.at)
		if err != nil {
			return err
		}
		return errors.Join(a.showAudit(found, o.json), found.verdict())
	})
}

func readAudit(ctx context.Context, conn *pgx.Conn, since time.Time, until *time.Time) (*audit, error) {
	var r audit
	err := conn.QueryRow(ctx, `SELECT since, until, events, matched, delivered, pending, dead, unread, unaccounted
		FROM outbox.audit($1, coalesce($2, now()))`, since, until).
		Scan(&r.Since, &r.Until, &r.Events, &r.Matched, &r.Delivered, &r.Pending, &r.Dead, &r.Unread, &r.Unaccounted)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	r.Since, r.Until = r.Since.UTC(), r.Until.UTC()
	return &r, nil
}

func (a *app) showAudit(r *audit, asJSON bool) error {
	if asJSON {
		return a.printJSON(r)
	}
	var text strings.Builder
	r.write(&text)
	_, err := io.WriteString(a.stdout, text.String())
	return err
}

// write makes a table. Writing to a strings.Builder cannot fail.
func (r *audit) write(to *strings.Builder) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("from", "%s to %s", r.Since.Format(time.RFC3339), r.Until.Format(time.RFC3339))
	row("events", "%d committed, %d of them not read yet", r.Events, r.Unread)
	row("deliveries", "%d matched: %d delivered, %d pending, %d dead", r.Matched, r.Delivered, r.Pending, r.Dead)
	row("unaccounted", "%d", r.Unaccounted)
	_ = w.Flush()
}

// verdict is what the exit code tells.
func (r *audit) verdict() error {
	if r.Unaccounted == 0 {
		return nil
	}
	return fmt.Errorf("%d events or deliveries between %s and %s are unaccounted for: outbox.recoveries lists gaps, and "+
		"walhook replay sends the events of a range again", r.Unaccounted, r.Since.Format(time.RFC3339), r.Until.Format(time.RFC3339))
}
