package ops

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// lookAtSchema compares the migrations that are applied with those that this program needs.
func (d *doctor) lookAtSchema(ctx context.Context) error {
	r, err := askOne[struct{ Version int64 }](ctx, d, `SELECT coalesce(max(version_id), 0) FROM outbox.schema_version WHERE is_applied`)
	if err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	switch {
	case r.Version < d.Schema:
		d.found("schema_version", fmt.Sprintf("migration %d is applied, this program needs %d", r.Version, d.Schema), "walhook init, as the role that owns schema outbox")
	case r.Version > d.Schema:
		d.foundAs(SeverityWarning, "schema_version", fmt.Sprintf("migration %d is applied, this program knows %d", r.Version, d.Schema), "use the version of walhook that made it, or a later one")
	}
	return nil
}

// lookAtTables looks for what somebody has altered.
func (d *doctor) lookAtTables(ctx context.Context) error {
	type row struct {
		Name, Identity    string
		Unlogged, Secured bool
		Disabled          []string
	}
	rows, err := ask[row](ctx, d, `SELECT c.relname::text, c.relreplident::text, c.relpersistence = 'u', c.relrowsecurity,
			ARRAY(SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('D', 'R') ORDER BY 1)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'outbox' AND c.relkind IN ('r', 'p') ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("look at the tables: %w", err)
	}
	for _, r := range rows {
		table := "outbox." + ident(r.Name)
		if r.Name == "subscriptions" && r.Identity != "f" {
			d.found("replica_identity", "outbox.subscriptions has not REPLICA IDENTITY FULL", "ALTER TABLE outbox.subscriptions REPLICA IDENTITY FULL")
		}
		if r.Unlogged {
			d.found("unlogged_table", fmt.Sprintf("outbox.%s is unlogged", r.Name), "ALTER TABLE "+table+" SET LOGGED")
		}
		if r.Secured {
			d.found("row_security", fmt.Sprintf("outbox.%s has row-level security", r.Name), "ALTER TABLE "+table+" DISABLE ROW LEVEL SECURITY, or ALTER ROLE "+d.role()+" BYPASSRLS")
		}
		for _, trigger := range r.Disabled {
			d.found("trigger_disabled", fmt.Sprintf("trigger %s of outbox.%s does not fire", trigger, r.Name), "ALTER TABLE "+table+" ENABLE TRIGGER "+ident(trigger))
		}
	}
	return nil
}

// lookAtPartitions finds tables whose last daily partition ends too soon. A running relay keeps
// retention.partitions_ahead of them; half of it may be used up before somebody should look.
func (d *doctor) lookAtPartitions(ctx context.Context) error {
	type row struct{ Parent, Last string }
	rows, err := ask[row](ctx, d, `SELECT p.relname::text, coalesce(max(right(c.relname, 8)) FILTER (WHERE c.relname ~ '_p[0-9]{8}$'), '')
		FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace AND n.nspname = 'outbox'
		LEFT JOIN pg_inherits i ON i.inhparent = p.oid LEFT JOIN pg_class c ON c.oid = i.inhrelid
		WHERE p.relkind = 'p' GROUP BY 1 ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("look at the partitions: %w", err)
	}
	for _, r := range rows {
		last, err := time.Parse("20060102", r.Last)
		ends := last.AddDate(0, 0, 1)
		what := fmt.Sprintf("outbox.%s has partitions until %s only", r.Parent, ends.Format(time.DateOnly))
		switch {
		case err != nil:
			what = fmt.Sprintf("outbox.%s has no daily partition", r.Parent)
		case ends.Sub(d.Now()) > d.PartitionsAhead/2:
			continue
		}
		d.found("partitions_ahead", what, fmt.Sprintf("SELECT outbox.create_partitions('%d hours'), and keep a relay running", int(d.PartitionsAhead.Hours())))
	}
	return nil
}

// defaultTables are the partitioned tables whose DEFAULT partition the relay's role may read by name.
var defaultTables = []string{"events", "emitted_events"}

// lookAtDefaultPartitions counts what is there, up to a bound.
func (d *doctor) lookAtDefaultPartitions(ctx context.Context) error {
	const most = 10000
	for _, table := range defaultTables {
		r, err := askOne[struct{ N int64 }](ctx, d, "SELECT count(*) FROM (SELECT FROM outbox."+ident(table+"_default")+" LIMIT $1) AS bounded", most)
		if err != nil {
			return fmt.Errorf("count the rows of outbox.%s_default: %w", table, err)
		}
		if r.N == 0 {
			continue
		}
		count := fmt.Sprint(r.N)
		if r.N == most {
			count = "at least " + count
		}
		d.found("default_partition_rows", fmt.Sprintf("outbox.%s_default holds %s rows", table, count),
			fmt.Sprintf("let applications leave out the id, or make it with outbox.uuidv7(); SELECT id, created_at FROM outbox.%s_default LIMIT 10 shows some", table))
	}
	return nil
}

// lookAtEpochs finds relays that take the slot from each other. A reload is an epoch of the same process.
func (d *doctor) lookAtEpochs(ctx context.Context) error {
	const often = 6
	r, err := askOne[struct {
		N     int64
		Hosts []string
	}](ctx, d, `SELECT count(*) FILTER (WHERE process IS DISTINCT FROM former), coalesce(array_agg(DISTINCT host ORDER BY host), '{}')
		FROM (SELECT host, (host, pid) AS process, lag((host, pid)) OVER (ORDER BY epoch) AS former FROM outbox.epochs
			WHERE slot_name = $1 AND epoch > 0 AND started_at > clock_timestamp() - interval '10 minutes') AS e`, d.Slot)
	if err != nil {
		return fmt.Errorf("look at the epochs: %w", err)
	}
	if r.N >= often {
		d.found("epochs_alternate", fmt.Sprintf("slot %s was taken over %d times within 10 minutes, by %s", d.Slot, r.N, someOf(r.Hosts)),
			"look at the relays' logs for why they stop; if one of the hosts belongs to a copy of this environment, give that its own database")
	}
	return nil
}

// lookAtRecoveries tells of gaps that were filled.
func (d *doctor) lookAtRecoveries(ctx context.Context) error {
	type row struct {
		Code, Reason       string
		Events, Deliveries int64
		At                 time.Time
	}
	rows, err := ask[row](ctx, d, `SELECT code, reason, events, deliveries, recovered_at FROM outbox.recoveries
		WHERE recovered_at > clock_timestamp() - interval '7 days' ORDER BY id DESC LIMIT 5`)
	if err != nil {
		return fmt.Errorf("look at recoveries: %w", err)
	}
	for _, r := range rows {
		d.found("recovered_gap", fmt.Sprintf("at %s a gap was recovered (%s): %d events looked at, %d deliveries queued",
			r.At.UTC().Format(time.RFC3339), strings.TrimSpace(r.Code), r.Events, r.Deliveries), "SELECT * FROM outbox.recoveries tells more")
	}
	return nil
}
