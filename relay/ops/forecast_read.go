package ops

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// ForecastOptions say what Postgres does not.
type ForecastOptions struct {
	WALDiskSize    int64         // bytes of disk for WAL; 0: what the file system says, if Local
	Local          bool          // Postgres may run on this machine
	Past           []WALSample   // earlier looks of one's own, beside those of outbox.wal_history
	Wait           time.Duration // until a second look when there is nothing to compare with; 0: none is taken
	OldTransaction time.Duration // age from which an open transaction counts; 0: a minute
}

// ReadForecast looks at the slot and says where it is heading. It needs no more than SELECT on outbox.wal_history;
// pg_monitor shows more (see Forecast.Blind). A relay need not run.
func ReadForecast(ctx context.Context, db DB, slot string, o ForecastOptions) (Forecast, error) {
	past, err := readSamples(ctx, db, slot)
	if err != nil {
		return Forecast{}, fmt.Errorf("read samples of the WAL: %w", err)
	}
	past = append(past, o.Past...)
	look, err := ReadWALLook(ctx, db, slot, o)
	if err != nil {
		return Forecast{}, err
	}
	if _, ok := look.base(past); ok || o.Wait <= 0 {
		return look.Forecast(past), nil
	}
	past = append(past, look.WALSample)
	again := time.NewTimer(max(o.Wait, leastSample))
	defer again.Stop()
	select {
	case <-again.C:
	case <-ctx.Done():
		return Forecast{}, fmt.Errorf("wait for a second look at the WAL: %w", context.Cause(ctx))
	}
	if look, err = ReadWALLook(ctx, db, slot, o); err != nil {
		return Forecast{}, err
	}
	return look.Forecast(past), nil
}

// readSamples reads those of the last 15 minutes, and the last one before.
func readSamples(ctx context.Context, db DB, slot string) ([]WALSample, error) {
	const columns = `SELECT sampled_at AS at, (wal_lsn - '0/0')::bigint AS wal, (confirmed_lsn - '0/0')::bigint AS confirmed,
		(restart_lsn - '0/0')::bigint AS restart FROM outbox.wal_history WHERE slot_name = $1 AND sampled_at `
	return collect[WALSample](ctx, db, columns+`> now() - $2::interval UNION ALL (`+columns+`<= now() - $2::interval ORDER BY sampled_at DESC LIMIT 1)`, slot, recentSamples)
}

// position is where WAL ends, on a standby what has been replayed of it.
const position = `CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END`

// looked is what one query tells. Columns that not all versions of Postgres have are read from the row as JSON.
type looked struct {
	WALSample
	Exists        bool       `db:"exists"`
	Active        bool       `db:"active"`
	WALStatus     string     `db:"wal_status"`
	SafeBytes     *int64     `db:"safe_bytes"`
	InactiveSince *time.Time `db:"inactive_since"`
	Failover      bool       `db:"failover"`
	PID           *int32     `db:"pid"`
	SeesAll       bool       `db:"sees_all"`
	SeesWAL       bool       `db:"sees_wal"`
	DataDirectory string     `db:"data_directory"`
	Segment       string     `db:"segment"`
}

const lookQuery = `SELECT clock_timestamp() AS at, (w.lsn - '0/0')::bigint AS wal, (s.confirmed_flush_lsn - '0/0')::bigint AS confirmed,
	(s.restart_lsn - '0/0')::bigint AS restart, s.slot_name IS NOT NULL AS exists, coalesce(s.active, false) AS active,
	coalesce(s.wal_status, '') AS wal_status, s.safe_wal_size AS safe_bytes, (to_jsonb(s) ->> 'inactive_since')::timestamptz AS inactive_since,
	coalesce((to_jsonb(s) ->> 'failover')::boolean, false) AS failover, s.active_pid AS pid,
	pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all, has_function_privilege('pg_ls_waldir()', 'EXECUTE') AS sees_wal,
	coalesce((SELECT setting FROM pg_settings WHERE name = 'data_directory'), '') AS data_directory,
	CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_walfile_name(w.lsn) END AS segment
	FROM (SELECT ` + position + `) AS w(lsn) LEFT JOIN pg_replication_slots s ON s.slot_name = $1`

// ReadWALLook looks at slot, disk, and who may hold them back.
func ReadWALLook(ctx context.Context, db DB, slot string, o ForecastOptions) (*WALLook, error) {
	seen, err := one[looked](ctx, db, lookQuery, slot)
	if err != nil {
		return nil, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	l := &WALLook{WALSample: seen.WALSample, Exists: seen.Exists, Active: seen.Active, WALStatus: seen.WALStatus, SafeBytes: seen.SafeBytes,
		Blind: !seen.SeesAll}
	if !seen.Active {
		l.InactiveSince = seen.InactiveSince
	}
	if l.FreeBytes, err = freeBytes(ctx, db, &seen, o); err != nil {
		return nil, fmt.Errorf("look at the room for WAL: %w", err)
	}
	old := o.OldTransaction
	if old == 0 {
		old = time.Minute
	}
	if l.Transactions, err = collect[Transaction](ctx, db, transactionsQuery, old); err != nil {
		return nil, fmt.Errorf("look for old transactions: %w", err)
	}
	if l.Slots, err = collect[OtherSlot](ctx, db, slotsQuery, slot, farBehind); err != nil {
		return nil, fmt.Errorf("look at the other slots: %w", err)
	}
	if !seen.Failover {
		return l, nil
	}
	if l.Standbys, err = collect[StandbySlot](ctx, db, standbysQuery, slot); err != nil {
		return nil, fmt.Errorf("look at synchronized_standby_slots: %w", err)
	}
	if l.StandbyWait, err = one[bool](ctx, db, standbyWaitQuery, seen.PID); err != nil {
		return nil, fmt.Errorf("look at the slot's sender: %w", err)
	}
	return l, nil
}

// transactionsQuery lists the oldest transactions of any database that have an id, because only those hold a slot back:
// their changes may still be needed. Of sessions that one may not see, xact_start is null.
const transactionsQuery = `(SELECT '' AS gid, pid, coalesce(usename::text, '') AS "user", coalesce(application_name, '') AS application,
		coalesce(state, '') AS state, coalesce(datname::text, '') AS database, xact_start AS since
	FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start <= clock_timestamp() - $1::interval ORDER BY xact_start LIMIT 3)
	UNION ALL (SELECT gid, 0, owner::text, '', '', database::text, prepared FROM pg_prepared_xacts
	WHERE prepared <= clock_timestamp() - $1::interval ORDER BY prepared LIMIT 3)
	ORDER BY since`

// slotsQuery lists slots that keep more than ours: those that nobody reads, and others only when it is much more.
const slotsQuery = `SELECT s.slot_name::text AS name, s.slot_type AS type, s.active, (w.lsn - s.restart_lsn)::bigint AS retained,
		CASE WHEN NOT s.active THEN (to_jsonb(s) ->> 'inactive_since')::timestamptz END AS since
	FROM (SELECT ` + position + `) AS w(lsn), pg_replication_slots s
	LEFT JOIN pg_replication_slots ours ON ours.slot_name = $1
	WHERE s.slot_name <> $1 AND coalesce(ours.restart_lsn, w.lsn) - s.restart_lsn > CASE WHEN s.active THEN $2::bigint ELSE 0 END
	ORDER BY s.restart_lsn LIMIT 5`

const standbysQuery = `SELECT n.name, s.slot_name IS NOT NULL AS exists, coalesce(s.active, false) AS active,
		coalesce(s.restart_lsn <= ours.confirmed_flush_lsn, true) AS behind
	FROM pg_settings g
	CROSS JOIN LATERAL (SELECT btrim(part, ' "') FROM regexp_split_to_table(g.setting, ',') AS part) AS n(name)
	LEFT JOIN pg_replication_slots s ON s.slot_name = n.name
	LEFT JOIN pg_replication_slots ours ON ours.slot_name = $1
	WHERE g.name = 'synchronized_standby_slots' AND n.name <> '' ORDER BY n.name`

const standbyWaitQuery = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'WaitForStandbyConfirmation')`

// freeBytes is the room for WAL: what the operator says there is, less what pg_wal holds or at least what the slot
// keeps there; else what the file system says, provided that the server's files are really here: a loopback address may
// lead elsewhere. nil is unknown.
func freeBytes(ctx context.Context, db DB, seen *looked, o ForecastOptions) (*int64, error) {
	if o.WALDiskSize == 0 {
		if !o.Local || seen.DataDirectory == "" || seen.Segment == "" {
			return nil, nil
		}
		dir := filepath.Join(seen.DataDirectory, "pg_wal")
		if _, err := os.Stat(filepath.Join(dir, seen.Segment)); err != nil {
			return nil, nil
		}
		return fileSystemFree(dir), nil
	}
	var used int64
	if seen.SeesWAL {
		var err error
		if used, err = one[int64](ctx, db, "SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()"); err != nil {
			return nil, err
		}
	} else if seen.Restart != nil {
		used = seen.WAL - *seen.Restart
	}
	free := max(0, o.WALDiskSize-used)
	return &free, nil
}

// collect reads rows into structs, by the names of columns.
func collect[T any](ctx context.Context, db DB, query string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// one reads a row, into a struct or a single value.
func one[T any](ctx context.Context, db DB, query string, args ...any) (T, error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return *new(T), err
	}
	if len(rows.FieldDescriptions()) == 1 {
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
}
