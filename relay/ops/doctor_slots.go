package ops

import (
	"context"
	"fmt"
	"strings"
)

// lookAtSlots judges our own slot and those of others.
func (d *doctor) lookAtSlots(ctx context.Context) error {
	type row struct {
		Name, Type, Database, Status string
		Active                       bool
		Held, Safe, Limit            *int64
	}
	rows, err := ask[row](ctx, d, `SELECT slot_name::text, slot_type, coalesce(database::text, ''), coalesce(wal_status, ''), active,
			((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) - restart_lsn)::bigint, safe_wal_size,
			nullif((SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), -1) * 1048576
		FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name`)
	if err != nil {
		return fmt.Errorf("look at the slots: %w", err)
	}
	for _, r := range rows {
		switch {
		case r.Name != d.Slot && !r.Active && r.Held != nil:
			d.found("orphan_slot", fmt.Sprintf("the %s slot %s%s is inactive and holds %s of WAL", r.Type, r.Name, inDatabase(r.Database), sizeText(max(0, *r.Held))),
				fmt.Sprintf("start what reads it or, if nobody does any more, SELECT pg_drop_replication_slot(%s)", literal(r.Name)))
		case r.Name == d.Slot && !r.Active:
			d.found("slot_inactive", fmt.Sprintf("no relay reads slot %s", r.Name), "walhook run")
		}
		if r.Name == d.Slot && r.Safe != nil && r.Limit != nil && (r.Status == "unreserved" || *r.Safe < *r.Limit/10) {
			d.found("slot_at_risk", fmt.Sprintf("slot %s is %s and lost after %s more WAL", r.Name, r.Status, sizeText(max(0, *r.Safe))),
				"see walhook status for what holds it back; meanwhile "+alter("max_slot_wal_keep_size", "-1")+andReload+" if the disk has room")
		}
	}
	return nil
}

func inDatabase(name string) string {
	if name == "" {
		return ""
	}
	return " of database " + name
}

// lookAtAbandonedSlots looks for slots whose names a set-up claimed here, and which no checkpoint belongs to.
func (d *doctor) lookAtAbandonedSlots(ctx context.Context) error {
	names, err := ask[struct{ Name string }](ctx, d, `SELECT s.slot_name::text FROM pg_replication_slots s
		WHERE s.database = current_database() AND NOT s.active
			AND EXISTS (SELECT FROM outbox.epochs e WHERE e.slot_name = s.slot_name)
			AND NOT EXISTS (SELECT FROM outbox.checkpoint c WHERE c.slot_name = s.slot_name)
		ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("look for abandoned slots: %w", err)
	}
	for _, n := range names {
		d.found("abandoned_slot", fmt.Sprintf("slot %s was made by a set-up that did not end, or its checkpoint was deleted", n.Name),
			fmt.Sprintf("walhook init --slot %s goes on with it; SELECT pg_drop_replication_slot(%s) removes it", n.Name, literal(n.Name)))
	}
	return nil
}

// failover is what a promotion of a standby depends on. Postgres 17 has slots that standbys take over.
type failover struct {
	Standbys       int64
	Exists, Marked bool
	Listed         *string
	Broken         []string
}

// lookAtFailover judges whether the slot would survive a promotion. A walsender that holds no logical slot serves a standby.
func (d *doctor) lookAtFailover(ctx context.Context) error {
	f, err := askOne[failover](ctx, d, `SELECT
		(SELECT count(*) FROM pg_stat_replication r WHERE r.state IN ('streaming', 'catchup')
			AND NOT EXISTS (SELECT FROM pg_replication_slots l WHERE l.slot_type = 'logical' AND l.active_pid = r.pid)),
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1),
		coalesce((SELECT (to_jsonb(s) ->> 'failover')::boolean FROM pg_replication_slots s WHERE slot_name = $1), false),
		nullif(current_setting('synchronized_standby_slots', true), ''),
		ARRAY(SELECT trim(BOTH ' "' FROM n) FROM unnest(string_to_array(current_setting('synchronized_standby_slots', true), ',')) AS n
			WHERE trim(n) <> '' AND NOT EXISTS (SELECT FROM pg_replication_slots p WHERE p.slot_name = trim(BOTH ' "' FROM n) AND p.active AND p.slot_type = 'physical'))`, d.Slot)
	if err != nil {
		return fmt.Errorf("look at failover: %w", err)
	}
	if len(f.Broken) > 0 {
		d.found("standby_slots_broken", fmt.Sprintf("synchronized_standby_slots names %s: missing, or no standby reads it", strings.Join(f.Broken, ", ")),
			"start that standby again (primary_slot_name), or take it from the list: "+alter("synchronized_standby_slots", "…")+andReload)
	}
	if f.Standbys > 0 && f.Exists {
		d.judgeFailover(f)
	}
	return nil
}

// judgeFailover is for a primary with standbys.
func (d *doctor) judgeFailover(f failover) {
	there := fmt.Sprintf("%d standbys follow this server, and slot %s ", f.Standbys, d.Slot)
	switch {
	case d.server < 170000:
		d.found("slot_failover", there+fmt.Sprintf("stays behind at a failover: Postgres %d cannot hand it over", d.server/10000),
			"upgrade to Postgres 17 or later; until then publish with outbox.publish() rather than outbox.emit(), so that a recovery finds everything")
	case !f.Marked:
		d.found("slot_failover", there+"is no failover slot", fmt.Sprintf("stop the relay, run psql %q -c %q and start it; on each standby: "+
			"ALTER SYSTEM SET sync_replication_slots = 'on'; ALTER SYSTEM SET hot_standby_feedback = 'on'; SELECT pg_reload_conf(), with a primary_slot_name, and a dbname in primary_conninfo",
			"dbname="+d.conn.Config().Database+" replication=database", "ALTER_REPLICATION_SLOT "+d.Slot+" (FAILOVER true);"))
	case f.Listed == nil:
		d.found("standby_slots_unset", there+"does not wait for them", alter("synchronized_standby_slots", "<the standbys' primary_slot_name>")+andReload)
	}
}
