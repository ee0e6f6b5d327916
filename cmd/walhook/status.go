package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/ops"
)

// statusTimeout bounds one look at the database.
const statusTimeout = 15 * time.Second

// clearScreen puts the cursor in the corner and erases everything (ECMA-48: CUP, ED).
const clearScreen = "\x1b[H\x1b[2J"

// status is what the command prints.
type status struct {
	Lag           ops.Lag          `json:"lag"`
	Forecast      ops.Forecast     `json:"forecast"`
	Subscriptions []ops.LaneStatus `json:"subscriptions"`
}

type statusOptions struct {
	watch, json bool
	interval    time.Duration
	limit       int
}

func (a *app) statusCommand() *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how far the relay is behind, its slot, queue and subscriptions",
		Long: "Show lag, slot, queue and lanes, as outbox.replication_lag and outbox.subscription_stats have them, where the slot is\n" +
			"heading at the present rate, and what holds WAL back. The relay need not run for it; SELECT on the views does, and\n" +
			"pg_monitor shows more. With --json one object: lag, forecast, subscriptions; with --watch as well, one object a line.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load(c.Flags())
			if err != nil {
				return err
			}
			return a.status(c.Context(), cfg, o)
		},
	}
	configFlags(c, "database_url", "slot", "replication.wal_disk_size")
	c.Flags().BoolVar(&o.watch, "watch", false, "show it again and again, until interrupted")
	c.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "time between two looks with --watch")
	c.Flags().IntVar(&o.limit, "limit", 100, "how many subscriptions, those with most waiting first")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return c
}

func (a *app) status(ctx context.Context, cfg config.Config, o statusOptions) error {
	switch {
	case o.interval < 10*time.Millisecond:
		return fmt.Errorf("%w: --interval %s is too short: give 10ms or more", errUsage, o.interval)
	case o.limit < 0:
		return fmt.Errorf("%w: --limit %d is negative: give the number of subscriptions to show", errUsage, o.limit)
	}
	pool, err := onePool(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	r := statusReader{db: pool, slot: cfg.Slot, limit: o.limit, options: forecastOptions(ctx, cfg, &pool.Config().ConnConfig.Config)}
	if !o.watch {
		r.options.Wait = time.Second
	}
	s, err := r.read(ctx)
	if err != nil {
		return err
	}
	if !o.watch {
		return a.showStatus(s, o)
	}
	return a.watchStatus(ctx, s, r.read, o)
}

// watchStatus shows s, and then what look returns every interval, until ctx ends. A Postgres that stops
// answering is what somebody watches for, so that it is shown and asked again.
func (a *app) watchStatus(ctx context.Context, s status, look func(context.Context) (status, error), o statusOptions) error {
	ticker := time.NewTicker(o.interval)
	defer ticker.Stop()
	var err error
	for {
		if err == nil {
			err = a.showStatus(s, o)
		} else {
			_, err = fmt.Fprintf(a.stderr, "%s  %v\n", time.Now().Format(time.TimeOnly), err)
		}
		if err != nil {
			return fmt.Errorf("write status: %w", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if s, err = look(ctx); ctx.Err() != nil {
			return nil
		}
	}
}

// onePool is a pool of a single connection, which is opened anew when it broke.
func onePool(ctx context.Context, cfg config.Config) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%w: database_url: %w", errUsage, err)
	}
	c.MaxConns = 1
	c.ConnConfig.ConnectTimeout = cfg.Replication.ConnectTimeout
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return pool, nil
}

// forecastOptions is what the configuration and the address of the database tell of its disk.
func forecastOptions(ctx context.Context, cfg config.Config, database *pgconn.Config) ops.ForecastOptions {
	if size := cfg.Replication.WALDiskSize; size > 0 {
		return ops.ForecastOptions{WALDiskSize: int64(size)} // no name need be looked up
	}
	_, local := databaseEndpoints(ctx, database, zerolog.Nop())
	return ops.ForecastOptions{Local: local}
}

// statusReader looks at the database, and remembers where it saw the WAL: when no relay takes samples, the next
// look's rates come from that.
type statusReader struct {
	db      ops.DB
	slot    string
	limit   int
	options ops.ForecastOptions
}

// pastLooks is how many looks are remembered: those of 15 minutes, when there is one every 2 seconds.
const pastLooks = 450

// read looks once. That there is no schema or no such slot is relay.ErrSetup.
func (r *statusReader) read(ctx context.Context) (s status, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, fmt.Errorf("no answer from Postgres within %s", statusTimeout))
	defer cancel()
	s.Lag, err = ops.ReadLag(ctx, r.db, r.slot)
	if errors.Is(err, ops.ErrNoSlot) {
		return s, fmt.Errorf("%w: slot %s: %w, or name the slot that is in use with --slot", relay.ErrSetup, r.slot, err)
	}
	if err != nil {
		return s, explainStatus(ctx, err)
	}
	if s.Forecast, err = ops.ReadForecast(ctx, r.db, r.slot, r.options); err != nil {
		return s, explainStatus(ctx, err)
	}
	r.options.Past = append(r.options.Past, s.Forecast.Sample)
	r.options.Past = r.options.Past[max(0, len(r.options.Past)-pastLooks):]
	if s.Subscriptions, err = ops.ReadLanes(ctx, r.db, r.limit); err != nil {
		return s, explainStatus(ctx, err)
	}
	if s.Subscriptions == nil {
		s.Subscriptions = []ops.LaneStatus{} // an empty list in JSON, not null
	}
	return s, nil
}

func explainStatus(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return schemaMissing(err)
}

// showStatus writes what was read, at once, so that a watcher never sees half a table.
func (a *app) showStatus(s status, o statusOptions) error {
	switch {
	case o.json && o.watch:
		return json.NewEncoder(a.stdout).Encode(s)
	case o.json:
		return a.printJSON(s)
	}
	var text strings.Builder
	if o.watch && isTerminal(a.stdout) {
		text.WriteString(clearScreen)
	}
	if o.watch {
		text.WriteString("\n" + time.Now().Format(time.DateTime) + "\n")
	}
	s.write(&text)
	_, err := io.WriteString(a.stdout, text.String())
	return err
}

// write makes two tables: the slot with what waits, and the subscriptions. Writing to a strings.Builder
// cannot fail.
func (s *status) write(to *strings.Builder) {
	l := &s.Lag
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("slot", "%s, %s, WAL %s", l.SlotName, choose(l.Active, "read by a relay", "NOT READ by any relay"), l.WALStatus)
	row("lag", "%s behind%s", byteText(l.LagBytes), oldest(l.LagSeconds > 0, "unrecorded event", l.LagSeconds))
	if l.WALStatus == "lost" {
		row("retained", "no WAL: the slot is gone or invalidated, walhook doctor says what mends it")
	} else {
		row("retained", "%s of WAL%s", byteText(l.RetainedBytes), untilLost(l.SafeBytes))
	}
	row("checkpoint", "%s, confirmed %s", l.CheckpointLSN, orDash(l.ConfirmedLSN))
	row("queue", "%d waiting%s", l.QueueDepth, oldest(l.QueueDepth > 0, "event", l.OldestPendingSeconds))
	row("dead letters", "%d", l.DeadLetters)
	writeForecast(&s.Forecast, row)
	_ = w.Flush()
	if len(s.Subscriptions) == 0 {
		to.WriteString("\nno subscriptions: insert one into outbox.subscriptions\n")
		return
	}
	to.WriteString("\n")
	w = tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "SUBSCRIPTION\tSTATE\tDELIVERIES\tPENDING\tDEAD\tFAILED\tIN A ROW\tSUCCESS\tMEAN\tP95\tFROM COMMIT\tP95\tOLDEST")
	for i := range s.Subscriptions {
		n := &s.Subscriptions[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(n.Name), laneState(n), n.Deliveries, n.Pending, n.Dead,
			n.Failed, n.ConsecutiveFailures, percentText(n.SuccessRate), msText(n.MeanMS), msText(n.P95MS),
			msText(n.CommitToDeliveryMeanMS), msText(n.CommitToDeliveryP95MS), ageText(n.Pending > 0, n.OldestPendingSeconds))
	}
	_ = w.Flush()
}

func laneState(n *ops.LaneStatus) string {
	switch {
	case n.Status != "valid":
		return n.Status + " (" + printable(orDash(n.Reason)) + ")"
	case !n.Active:
		return "inactive"
	}
	return "active"
}

func choose(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// byteText writes bytes with a binary unit; a slot that is gone has none.
func byteText(n *int64) string {
	if n == nil {
		return "unknown (the slot is gone)"
	}
	v, units := float64(*n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(units) > 1 && (v >= 1024 || v <= -1024) {
		v, units = v/1024, units[1:]
	}
	if units[0] == "B" {
		return strconv.FormatInt(*n, 10) + " B"
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

func untilLost(safe *int64) string {
	if safe == nil {
		return " (no limit: max_slot_wal_keep_size is not set)"
	}
	return ", " + byteText(safe) + " until the slot is lost"
}

// oldest tells the age of the oldest thing, when there is one.
func oldest(exists bool, what string, seconds float64) string {
	if !exists {
		return ""
	}
	return fmt.Sprintf(", oldest %s %s old", what, ageText(true, seconds))
}

func ageText(exists bool, seconds float64) string {
	if !exists {
		return "-"
	}
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

func percentText(rate *float64) string {
	if rate == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", *rate*100)
}

func msText(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", *ms)
}
