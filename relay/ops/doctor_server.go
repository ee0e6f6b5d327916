package ops

import (
	"context"
	"fmt"
	"math"
	"time"
)

// settings reads settings by name. Those that this version of Postgres does not have are absent.
func (d *doctor) settings(ctx context.Context, names ...string) (map[string]string, error) {
	type row struct {
		Name  string
		Value *string
	}
	rows, err := ask[row](ctx, d, "SELECT n, current_setting(n, true) FROM unnest($1::text[]) AS n", names)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	all := make(map[string]string, len(rows))
	for _, r := range rows {
		if r.Value != nil {
			all[r.Name] = *r.Value
		}
	}
	return all, nil
}

// numbers reads numeric settings in their base units, as pg_settings has them: bytes for sizes (-1 stays -1), milliseconds for times.
func (d *doctor) numbers(ctx context.Context, names ...string) (map[string]int64, error) {
	type row struct {
		Name  string
		Value int64
	}
	rows, err := ask[row](ctx, d, `SELECT name, CASE WHEN setting::bigint < 0 THEN setting::bigint ELSE setting::bigint * CASE unit
			WHEN 'kB' THEN 1024 WHEN '8kB' THEN 8192 WHEN 'MB' THEN 1048576 WHEN 's' THEN 1000 WHEN 'min' THEN 60000 ELSE 1 END END
		FROM pg_settings WHERE name = ANY($1) AND vartype = 'integer'`, names)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	all := make(map[string]int64, len(rows))
	for _, r := range rows {
		all[r.Name] = r.Value
	}
	return all, nil
}

// Remedies for settings.
const (
	andReload  = "; SELECT pg_reload_conf()"
	andRestart = ", then restart Postgres"
)

func alter(name, value string) string { return "ALTER SYSTEM SET " + name + " = '" + value + "'" }

// lookAtServer judges settings that logical decoding depends on. From Postgres 19 on a slot raises the effective level by itself.
func (d *doctor) lookAtServer(ctx context.Context) error {
	s, err := d.settings(ctx, "wal_level", "effective_wal_level", "autovacuum", "track_commit_timestamp")
	if err != nil {
		return err
	}
	level, effective := s["wal_level"], s["effective_wal_level"]
	switch {
	case effective == "" && level != "logical", effective != "" && effective != "logical" && level == "minimal":
		d.found("wal_level", fmt.Sprintf("wal_level is %s", level), d.levelRemedy(ctx))
	case effective != "" && effective != "logical":
		d.foundAs(SeverityWarning, "wal_level", fmt.Sprintf("wal_level is %s and effective_wal_level %s", level, effective), alter("wal_level", "logical")+andRestart)
	}
	if s["autovacuum"] == "off" {
		d.found("autovacuum_off", "autovacuum is off", alter("autovacuum", "on")+andReload)
	}
	if s["track_commit_timestamp"] != "on" {
		d.found("commit_timestamps", "track_commit_timestamp is off", alter("track_commit_timestamp", "on")+andRestart)
	}
	pending, err := askOne[struct{ Is bool }](ctx, d, "SELECT coalesce((SELECT pending_restart FROM pg_settings WHERE name = 'wal_level'), false)")
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if pending.Is && level == "logical" {
		d.found("wal_level_pending", "wal_level is logical, and something else is configured for the next start", alter("wal_level", "logical")+andReload+
			" (or mend postgresql.conf)")
	}
	return d.lookAtMemory(ctx)
}

func (d *doctor) lookAtMemory(ctx context.Context) error {
	n, err := d.numbers(ctx, "logical_decoding_work_mem")
	if err != nil {
		return err
	}
	if memory := n["logical_decoding_work_mem"]; memory < 64<<20 {
		d.found("decoding_memory", fmt.Sprintf("logical_decoding_work_mem is %s", sizeText(memory)), alter("logical_decoding_work_mem", "64MB")+andReload)
	}
	return nil
}

// lookAtCapacity judges whether there is room for the relay's slot and its sender.
func (d *doctor) lookAtCapacity(ctx context.Context) error {
	type row struct {
		SlotsMax, SlotsUsed, SendersMax, SendersUsed int64
		HasSlot, Active                              bool
	}
	r, err := askOne[row](ctx, d, `SELECT current_setting('max_replication_slots')::bigint, (SELECT count(*) FROM pg_replication_slots),
		current_setting('max_wal_senders')::bigint, (SELECT count(*) FROM pg_stat_replication),
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1), EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)`, d.Slot)
	if err != nil {
		return fmt.Errorf("count slots and senders: %w", err)
	}
	if r.SlotsUsed >= r.SlotsMax {
		d.foundAs(severityUnless(r.HasSlot), "replication_slots", fmt.Sprintf("all %d of max_replication_slots are in use", r.SlotsMax),
			alter("max_replication_slots", fmt.Sprint(r.SlotsMax+10))+andRestart+", or drop slots that nobody needs")
	}
	if r.SendersUsed >= r.SendersMax {
		d.foundAs(severityUnless(r.Active), "wal_senders", fmt.Sprintf("all %d of max_wal_senders are in use", r.SendersMax),
			alter("max_wal_senders", fmt.Sprint(r.SendersMax+10))+andRestart)
	}
	return nil
}

// severityUnless is a warning where the relay has what it needs, and an error otherwise.
func severityUnless(has bool) Severity {
	if has {
		return SeverityWarning
	}
	return SeverityError
}

// enoughWAL is what a slot should be able to hold: less is gone with one large transaction.
const enoughWAL = 1 << 30

// lookAtRetention judges how much WAL the slot may hold, and for how long.
func (d *doctor) lookAtRetention(ctx context.Context) error {
	n, err := d.numbers(ctx, "max_slot_wal_keep_size", "idle_replication_slot_timeout")
	if err != nil {
		return err
	}
	switch keep := n["max_slot_wal_keep_size"]; {
	case keep < 0:
		d.found("slot_keep_size_unlimited", "max_slot_wal_keep_size is not set", alter("max_slot_wal_keep_size", d.sensibleLimit())+andReload+
			" (a size that the disk has room for, and as long as a relay may be down)")
	case keep < enoughWAL:
		d.found("slot_keep_size_small", fmt.Sprintf("max_slot_wal_keep_size is %s", sizeText(keep)), alter("max_slot_wal_keep_size", d.sensibleLimit())+andReload)
	case d.WALDiskSize > 0 && keep >= d.WALDiskSize:
		d.found("slot_keep_size_beyond_disk", fmt.Sprintf("max_slot_wal_keep_size is %s, replication.wal_disk_size %s", sizeText(keep), sizeText(d.WALDiskSize)),
			alter("max_slot_wal_keep_size", d.sensibleLimit())+andReload)
	}
	if idle := n["idle_replication_slot_timeout"]; idle > 0 {
		d.found("idle_slot_timeout", fmt.Sprintf("idle_replication_slot_timeout is %s", time.Duration(idle)*time.Millisecond),
			alter("idle_replication_slot_timeout", "0")+andReload)
	}
	return nil
}

// sensibleLimit is half of the disk where that is known.
func (d *doctor) sensibleLimit() string {
	if d.WALDiskSize == 0 {
		return "20GB"
	}
	return fmt.Sprintf("%dMB", max(1, d.WALDiskSize/2>>20))
}

// lookAtTimeouts judges how soon the server gives up a silent relay.
func (d *doctor) lookAtTimeouts(ctx context.Context) error {
	n, err := d.numbers(ctx, "wal_sender_timeout")
	if err != nil {
		return err
	}
	timeout := time.Duration(n["wal_sender_timeout"]) * time.Millisecond
	switch {
	case timeout == 0:
		d.found("wal_sender_timeout", "wal_sender_timeout is 0", alter("wal_sender_timeout", "60s")+andReload)
	case timeout < 2*d.StatusInterval:
		d.found("wal_sender_timeout", fmt.Sprintf("wal_sender_timeout is %s and replication.status_interval %s", timeout, d.StatusInterval),
			fmt.Sprintf("%s%s, or set WALHOOK_REPLICATION_STATUS_INTERVAL=%s", alter("wal_sender_timeout", "60s"), andReload, max(timeout/3, 100*time.Millisecond)))
	}
	return nil
}

// lookAtDurability judges whether what is committed stays.
func (d *doctor) lookAtDurability(ctx context.Context) error {
	s, err := d.settings(ctx, "fsync", "full_page_writes")
	if err != nil {
		return err
	}
	if s["fsync"] == "off" {
		d.found("fsync_off", "fsync is off", alter("fsync", "on")+andReload)
	}
	if s["full_page_writes"] == "off" {
		d.found("full_page_writes_off", "full_page_writes is off", alter("full_page_writes", "on")+andReload)
	}
	return d.lookAtCommits(ctx)
}

// lookAtCommits looks for synchronous_commit = off wherever it can be set for sessions to come.
func (d *doctor) lookAtCommits(ctx context.Context) error {
	type row struct{ Role, Database string }
	rows, err := ask[row](ctx, d, `SELECT coalesce(r.rolname, ''), coalesce(d.datname, '') FROM pg_db_role_setting s
		LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
		WHERE lower('synchronous_commit=off') = ANY (SELECT lower(c) FROM unnest(s.setconfig) AS c) AND (s.setdatabase = 0 OR d.datname = current_database())
		ORDER BY 1, 2`)
	if err != nil {
		return fmt.Errorf("read settings of roles and databases: %w", err)
	}
	for _, r := range rows {
		whose, statement := "database "+r.Database, "ALTER DATABASE "+ident(r.Database)+" RESET synchronous_commit"
		switch {
		case r.Role != "" && r.Database != "":
			whose, statement = "role "+r.Role+" in "+whose, "ALTER ROLE "+ident(r.Role)+" IN DATABASE "+ident(r.Database)+" RESET synchronous_commit"
		case r.Role != "":
			whose, statement = "role "+r.Role, "ALTER ROLE "+ident(r.Role)+" RESET synchronous_commit"
		}
		d.found("synchronous_commit_off", "synchronous_commit is off for "+whose, statement)
	}
	off, err := askOne[struct{ Is bool }](ctx, d, `SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'synchronous_commit' AND setting = 'off'
		AND source IN ('configuration file', 'command line', 'environment variable', 'default'))`)
	if err == nil && off.Is {
		d.found("synchronous_commit_off", "synchronous_commit is off for the whole server", alter("synchronous_commit", "on")+andReload)
	}
	return err
}

// sizeText writes bytes with a unit, as Postgres's settings are given.
func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%g %s", math.Round(10*float64(n)/float64(u.size))/10, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
