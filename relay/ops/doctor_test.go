package ops_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

// patient is a server that belongs to the test alone, with the schema and a slot.
type patient struct {
	database
	server  *localpg.Server
	options ops.DoctorOptions
}

// healthy are settings that doctor finds nothing to say about.
var healthy = map[string]string{"max_slot_wal_keep_size": "10GB", "track_commit_timestamp": "on"}

func newPatient(t *testing.T, settings map[string]string) *patient {
	t.Helper()
	server := harness.StartServer(t, "", settings)
	at := server.URL("postgres")
	_, err := sql.Migrate(t.Context(), at)
	require.NoError(t, err)
	p := &patient{database: database{harness.Connect(t, at), at}, server: server}
	p.options = ops.DoctorOptions{URL: at, Slot: "none", Schema: sql.Latest(), StatusInterval: 10 * time.Second,
		PartitionsAhead: 7 * 24 * time.Hour, Listen: "127.0.0.1:8080"}
	if settings["wal_level"] == "" {
		p.options.Slot = p.slot(t)
	}
	return p
}

// of returns the findings with that code that are worse than ok.
func of(findings []ops.Finding, code string) (found []ops.Finding) {
	for _, f := range findings {
		if f.Code == code && f.Severity != ops.SeverityOK {
			found = append(found, f)
		}
	}
	return found
}

// codesOf are those of the findings with that severity, each once.
func codesOf(findings []ops.Finding, severity ops.Severity) (all []string) {
	for _, f := range findings {
		if f.Severity == severity && !slices.Contains(all, f.Code) {
			all = append(all, f.Code)
		}
	}
	return all
}

// do runs statements one by one, on a connection of their own: ALTER SYSTEM may stand in no transaction.
func (p *patient) do(t *testing.T, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, s := range strings.Split(statements, ";") {
		if strings.TrimSpace(s) != "" {
			_, err := conn.Exec(t.Context(), s)
			require.NoError(t, err, s)
		}
	}
}

// eventually diagnoses until the code is found so many times: a new setting takes the postmaster a moment.
func (p *patient) eventually(t *testing.T, o ops.DoctorOptions, code string, n int) []ops.Finding {
	t.Helper()
	var found []ops.Finding
	harness.Eventually(t, 20*time.Second, fmt.Sprintf("%d findings of %s", n, code), func() bool {
		found = of(ops.Diagnose(t.Context(), o), code)
		return len(found) == n
	})
	return found
}

// A set-up by the book, as the superuser that a development server has.
func TestAHealthySetUpHasNoErrors(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	found := ops.Diagnose(t.Context(), p.options)
	require.Empty(t, codesOf(found, ops.SeverityError), "%+v", found)
	warnings := codesOf(found, ops.SeverityWarning)
	require.Subset(t, []string{"superuser", "version_end_of_life", "version_minor"}, warnings, "%+v", found)
	require.Contains(t, warnings, "superuser")
	require.Subset(t, []string{"slot_inactive", "version_end_of_life"}, codesOf(found, ops.SeverityInfo))
	require.True(t, slices.IsSortedFunc(found, func(a, b ops.Finding) int {
		order := []ops.Severity{ops.SeverityError, ops.SeverityWarning, ops.SeverityInfo, ops.SeverityOK}
		return slices.Index(order, a.Severity) - slices.Index(order, b.Severity)
	}), "the worst first")
	for _, c := range ops.DoctorCodes {
		if c.Check == "" {
			continue // the relay's own, or of no single check
		}
		require.True(t, slices.ContainsFunc(found, func(f ops.Finding) bool { return f.Code == c.Code }), "%s is told as well when it holds", c.Code)
	}
}

func TestCodesAreDistinctAndExplained(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range ops.DoctorCodes {
		require.Regexp(t, `^[a-z][a-z_]+[a-z]$`, c.Code)
		require.False(t, seen[c.Code], c.Code)
		seen[c.Code] = true
		require.NotEmpty(t, c.Holds, c.Code)
		require.NotEmpty(t, c.Why, c.Code)
		require.Contains(t, []ops.Severity{ops.SeverityError, ops.SeverityWarning, ops.SeverityInfo}, c.Severity, c.Code)
		require.Equal(t, c, ops.DoctorCodeOf(c.Code))
	}
}

// disease is something wrong, and how it is brought about.
type disease struct {
	code     string
	severity ops.Severity // empty: the code's own
	since    int          // the first version of Postgres that can have it
	cause    string       // SQL; SLOT is the slot's name
	options  func(*ops.DoctorOptions)
	says     []string
	cured    bool   // by the statements that the remedy begins with
	cure     string // SQL, where the remedy is no statement; empty and not cured: it stays
}

var diseases = []disease{
	{code: "autovacuum_off", cause: "ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf()", cured: true},
	{code: "decoding_memory", cause: "ALTER SYSTEM SET logical_decoding_work_mem = '1MB'; SELECT pg_reload_conf()", says: []string{"1 MB"}, cured: true},
	{code: "wal_level_pending", cause: "ALTER SYSTEM SET wal_level = 'replica'; SELECT pg_reload_conf()", cured: true},
	{code: "slot_keep_size_unlimited", cause: "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()", cured: true},
	{code: "slot_keep_size_small", cause: "ALTER SYSTEM SET max_slot_wal_keep_size = '512MB'; SELECT pg_reload_conf()", says: []string{"512 MB"}, cured: true},
	{code: "slot_keep_size_beyond_disk", cause: "ALTER SYSTEM SET max_slot_wal_keep_size = '8GB'; SELECT pg_reload_conf()",
		options: func(o *ops.DoctorOptions) { o.WALDiskSize = 8 << 30 }, says: []string{"8 GB"}, cured: true},
	{code: "idle_slot_timeout", since: 18, cause: "ALTER SYSTEM SET idle_replication_slot_timeout = '2d'; SELECT pg_reload_conf()", says: []string{"48h"}, cured: true},
	{code: "wal_sender_timeout", cause: "ALTER SYSTEM SET wal_sender_timeout = 0; SELECT pg_reload_conf()", cured: true},
	{code: "wal_sender_timeout", cause: "ALTER SYSTEM SET wal_sender_timeout = '15s'; SELECT pg_reload_conf()", says: []string{"15s", "status_interval 10s"}, cured: true},
	{code: "fsync_off", cause: "ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()", cured: true},
	{code: "full_page_writes_off", cause: "ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()", cured: true},
	{code: "synchronous_commit_off", cause: "ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()", says: []string{"whole server"}, cured: true},
	{code: "synchronous_commit_off", cause: "ALTER DATABASE postgres SET synchronous_commit = off", says: []string{"database postgres"}, cured: true},
	{code: "synchronous_commit_off", cause: `CREATE ROLE "hasty one"; ALTER ROLE "hasty one" SET synchronous_commit = off`, says: []string{"role hasty one"}, cured: true},
	{code: "synchronous_commit_off", cause: `ALTER ROLE "hasty one" IN DATABASE postgres SET synchronous_commit = off`, says: []string{"role hasty one in database"}, cured: true},
	{code: "managed_service", cause: "CREATE ROLE rds_superuser", says: []string{"Amazon RDS", "rds.logical_replication"}, cure: "DROP ROLE rds_superuser"},
	{code: "managed_service", cause: `ALTER DATABASE postgres SET "cloudsql.logical_decoding" = 'off'`, says: []string{"Google Cloud SQL", "gcloud sql instances patch"},
		cure: `ALTER DATABASE postgres RESET "cloudsql.logical_decoding"`},
	{code: "public_rights", cause: "GRANT SELECT ON outbox.subscriptions TO PUBLIC", says: []string{"outbox.subscriptions"}, cured: true},
	{code: "orphan_slot", cause: "SELECT pg_create_physical_replication_slot('orphan', true)", says: []string{"physical slot orphan"}, cure: "SELECT pg_drop_replication_slot('orphan')"},
	{code: "abandoned_slot", cause: "SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput'); INSERT INTO outbox.epochs VALUES ('left_behind', 0, 'v', 'h', 1)",
		says: []string{"left_behind"}, cure: "SELECT pg_drop_replication_slot('left_behind')"},
	{code: "slot_at_risk", cause: "ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; SELECT pg_reload_conf(); SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); " +
		"SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal()",
		cure: "ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf()"},
	{code: "standby_slots_broken", since: 17, cause: "SELECT pg_create_physical_replication_slot('standby_one'); ALTER SYSTEM SET synchronized_standby_slots = 'standby_one'; SELECT pg_reload_conf()",
		says: []string{"standby_one"}, cure: "ALTER SYSTEM RESET synchronized_standby_slots; SELECT pg_reload_conf(); SELECT pg_drop_replication_slot('standby_one')"},
	{code: "prepared_transaction", cause: "BEGIN; SELECT pg_logical_emit_message(true, 'x', 'x'); PREPARE TRANSACTION 'it''s'",
		options: func(o *ops.DoctorOptions) { o.Old = time.Nanosecond }, says: []string{"ROLLBACK PREPARED 'it''s'"}, cure: "ROLLBACK PREPARED 'it''s'"},
	{code: "schema_version", options: func(o *ops.DoctorOptions) { o.Schema++ }, says: []string{"walhook init"}},
	{code: "schema_version", severity: ops.SeverityWarning, options: func(o *ops.DoctorOptions) { o.Schema-- }, says: []string{"later"}},
	{code: "replica_identity", cause: "ALTER TABLE outbox.subscriptions REPLICA IDENTITY DEFAULT", cured: true},
	{code: "unlogged_table", cause: "ALTER TABLE outbox.deliveries SET UNLOGGED", says: []string{"deliveries"}, cured: true},
	{code: "row_security", cause: "ALTER TABLE outbox.deliveries ENABLE ROW LEVEL SECURITY", says: []string{"deliveries"}, cured: true},
	{code: "trigger_disabled", cause: "ALTER TABLE outbox.subscriptions DISABLE TRIGGER after_write", says: []string{"after_write"}, cured: true},
	{code: "default_partition_rows", cause: "INSERT INTO outbox.events (id, type) VALUES (gen_random_uuid(), 'x')", says: []string{"events_default holds 1 rows"}, cure: "DELETE FROM outbox.events"},
	{code: "epochs_alternate", cause: "INSERT INTO outbox.epochs SELECT 'SLOT', g, 'v', 'host-' || g % 2, g FROM generate_series(1, 6) AS g", says: []string{"6 times", "host-0, host-1"}, cure: "DELETE FROM outbox.epochs"},
	{code: "recovered_gap", cause: "INSERT INTO outbox.recoveries (slot_name, code, reason, from_lsn, to_lsn, events, deliveries) VALUES ('SLOT', 'slot_missing', 'r', '0/0', '0/1', 7, 3)",
		says: []string{"slot_missing", "7 events", "3 deliveries"}, cure: "DELETE FROM outbox.recoveries"},
	{code: "subscription_invalid", cause: "INSERT INTO outbox.subscriptions (name, url) VALUES ('bad', 'http://localhost/'); UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'because'",
		options: func(o *ops.DoctorOptions) { o.SkipURLs = true }, says: []string{"bad", "because"}, cure: "DELETE FROM outbox.subscriptions"},
	{code: "subscription_unverified", cause: "INSERT INTO outbox.subscriptions (name, url, verification) VALUES ('shy', 'http://localhost/', 'slack')",
		options: func(o *ops.DoctorOptions) { o.SkipURLs = true }, says: []string{"shy", "has not been asked"}, cure: "DELETE FROM outbox.subscriptions"},
	{code: "alerts_standing", cause: "INSERT INTO outbox.alerts (alert, message) VALUES ('slot_lag', 'far behind'), ('slot_recovered', 'filled')", says: []string{"slot_lag, one of 1", "far behind"}, cure: "DELETE FROM outbox.alerts"},
	{code: "secret_in_clear", cause: "INSERT INTO outbox.subscriptions (name, url, secret) VALUES ('s', 'http://localhost/', 'hush'), ('t', 'http://localhost/', 'env:HUSH')",
		options: func(o *ops.DoctorOptions) { o.SkipURLs, o.Keyset = true, true }, says: []string{"1 subscriptions", "reencrypt --plain"}, cure: "DELETE FROM outbox.subscriptions"},
	{code: "secret_unreadable", cause: "INSERT INTO outbox.subscriptions (name, url, secret) VALUES ('s', 'http://localhost/', 'hush'), ('t', 'http://localhost/', 'env:HUSH')",
		options: func(o *ops.DoctorOptions) {
			o.SkipURLs = true
			o.ReadSecret = func(stored string, _ uuid.UUID) error { return fmt.Errorf("no %s here", stored) }
		}, says: []string{"1 secrets", "no env:HUSH here"}, cure: "DELETE FROM outbox.subscriptions"},
	{code: "urls_unchecked", cause: "INSERT INTO outbox.subscriptions (name, url) VALUES ('s', 'https://example.invalid/')",
		options: func(o *ops.DoctorOptions) { o.Proxied = true }, cure: "DELETE FROM outbox.subscriptions"},
	{code: "listen_public", options: func(o *ops.DoctorOptions) { o.Listen = "0.0.0.0:8080" }, says: []string{"0.0.0.0:8080: plain HTTP", "TLS"}},
	{code: "listen_public", options: func(o *ops.DoctorOptions) { o.Listen, o.API = ":8080", true }, says: []string{"API and dashboard behind tokens", "TLS"}},
	{code: "api_token_missing", options: func(o *ops.DoctorOptions) { o.API = true }, says: []string{"walhook token create", "WALHOOK_API_TOKEN"},
		cause: token("revoked", "NULL", "now()") + token("old", "now() - interval '1 day'", "NULL"), cure: token("new", "NULL", "NULL")},
	{code: "api_token_expired", options: func(o *ops.DoctorOptions) { o.API = true }, says: []string{"1 tokens have expired: old", "walhook token revoke"},
		cure: "DELETE FROM outbox.api_tokens"},
	{code: "clock", options: func(o *ops.DoctorOptions) { o.Now = func() time.Time { return time.Now().Add(time.Minute) } }, says: []string{"1m0s behind"}},
	{code: "clock", options: func(o *ops.DoctorOptions) { o.Now = func() time.Time { return time.Now().Add(-time.Minute) } }, says: []string{"1m0s ahead of"}},
	{code: "version_end_of_life", options: func(o *ops.DoctorOptions) { o.Now = func() time.Time { return time.Now().Add(10 * 365 * day) } }, says: []string{"not been maintained since"}},
	{code: "slot_inactive"},
	{code: "superuser", says: []string{"walhook init --roles"}},
}

// token is the statement that makes a token with these SQL values of expires_at and revoked_at.
func token(name, expires, revoked string) string {
	return fmt.Sprintf("INSERT INTO outbox.api_tokens (name, hash, hint, scopes, expires_at, revoked_at) VALUES ('%[1]s', sha256('%[1]s'), '', '{read}', %[2]s, %[3]s);", name, expires, revoked)
}

// A token of the configuration is one, and where there is no API nobody needs any.
func TestDoctorAsksForATokenWhereOneIsMissing(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	o := p.options
	require.Empty(t, of(ops.Diagnose(t.Context(), o), "api_token_missing"))
	o.API = true
	require.Len(t, of(ops.Diagnose(t.Context(), o), "api_token_missing"), 1)
	o.Token = true
	require.Empty(t, of(ops.Diagnose(t.Context(), o), "api_token_missing"))
}

// Each disease is found, and gone again after its remedy. One after the other: they have one body.
func TestDoctorFindsAndMends(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	for _, c := range diseases {
		if p.server.Version() < c.since {
			continue
		}
		o := p.options
		if c.options != nil {
			c.options(&o)
		}
		p.do(t, strings.ReplaceAll(c.cause, "SLOT", o.Slot))
		f := p.eventually(t, o, c.code, 1)[0]
		row := ops.DoctorCodeOf(c.code)
		if c.severity != "" {
			row.Severity = c.severity
		}
		require.Equal(t, []any{row.Severity, row.Why}, []any{f.Severity, f.Explanation}, c.code)
		require.NotEmpty(t, f.Remedy, c.code)
		for _, text := range c.says {
			require.Contains(t, f.What+" | "+f.Remedy, text, c.code)
		}
		switch {
		case c.cured:
			p.do(t, statements(f.Remedy))
			p.eventually(t, o, c.code, 0)
		case c.cure != "":
			p.do(t, c.cure)
			p.eventually(t, o, c.code, 0)
		}
	}
}

// statements are what a remedy begins with, before prose follows.
func statements(remedy string) string {
	for _, prose := range []string{" (", ", or ", ", and ", ", then "} {
		remedy, _, _ = strings.Cut(remedy, prose)
	}
	return remedy
}

func TestDoctorFindsMissingPartitions(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	names, err := pgx.CollectRows(must(p.Query(t.Context(), "SELECT 'outbox.' || relname FROM pg_class WHERE relname ~ '^(events|attempts)_p[0-9]{8}$' AND relkind = 'r' ORDER BY 1")), pgx.RowTo[string])
	require.NoError(t, err)
	kept := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, "outbox.attempts") })[:2]
	for _, n := range names {
		if !slices.Contains(kept, n) {
			p.exec(t, "DROP TABLE "+n)
		}
	}
	found := of(ops.Diagnose(t.Context(), p.options), "partitions_ahead")
	require.Len(t, found, 2, "%+v", found)
	require.Equal(t, "outbox.attempts has partitions until "+time.Now().UTC().Add(2*day).Format(time.DateOnly)+" only", found[0].What)
	require.Equal(t, "outbox.events has no daily partition", found[1].What)
	p.do(t, statements(found[0].Remedy))
	require.Empty(t, of(ops.Diagnose(t.Context(), p.options), "partitions_ahead"))
}

func must(rows pgx.Rows, err error) pgx.Rows {
	if err != nil {
		panic(err)
	}
	return rows
}

func TestDoctorFindsWhatWaits(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	s := p.subscription(t, "slow")
	p.waiting(t, "deliveries", s, 3, "2 hours")
	p.waiting(t, "deliveries", s, 5, "1 minute")
	p.waiting(t, "dead_letters", s, 4, "1 minute")
	o := p.options
	o.SkipURLs = true
	found := ops.Diagnose(t.Context(), o)
	require.Len(t, of(found, "queue_old"), 1)
	require.Contains(t, of(found, "queue_old")[0].What, "3 deliveries")
	require.Len(t, of(found, "dead_letters"), 1)
	require.Contains(t, of(found, "dead_letters")[0].What, "4 dead letters of 1 subscriptions")
	require.Contains(t, of(found, "dead_letters")[0].Remedy, "walhook redeliver --dead --subscription <id>")
	p.exec(t, "UPDATE outbox.subscriptions SET is_active = false")
	require.Empty(t, of(ops.Diagnose(t.Context(), o), "queue_old"), "it waits for its subscription, as somebody wanted")
}

func TestDoctorFindsOldTransactions(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	o := p.options
	o.Old = time.Nanosecond
	require.Empty(t, of(ops.Diagnose(t.Context(), o), "long_transaction"), "its own does not count")
	conn, err := pgx.Connect(t.Context(), p.url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()")
	require.NoError(t, err)
	found := of(ops.Diagnose(t.Context(), o), "long_transaction")
	require.Len(t, found, 1)
	require.Contains(t, found[0].Remedy, fmt.Sprintf("pg_terminate_backend(%d)", conn.PgConn().PID()))
	require.Empty(t, of(ops.Diagnose(t.Context(), p.options), "long_transaction"), "it is no hour old")
}

// On a server that is too small, and not set up for logical decoding.
func TestDoctorFindsThatTheServerIsFull(t *testing.T) {
	t.Parallel()
	p := newPatient(t, map[string]string{"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"})
	standby(t, p.url)
	p.exec(t, "SELECT pg_create_physical_replication_slot('other', true)")
	found := ops.Diagnose(t.Context(), p.options)
	require.Subset(t, codesOf(found, ops.SeverityError), []string{"wal_level", "replication_slots", "wal_senders", "replication_connection"})
	require.Contains(t, of(found, "wal_level")[0].Remedy, "ALTER SYSTEM SET wal_level = 'logical', then restart Postgres")
	require.Contains(t, of(found, "replication_connection")[0].Remedy, "max_wal_senders")
	require.Subset(t, codesOf(found, ops.SeverityInfo), []string{"commit_timestamps"})
	require.Subset(t, codesOf(found, ops.SeverityWarning), []string{"slot_keep_size_unlimited", "orphan_slot"})
	p.exec(t, "CREATE ROLE azure_pg_admin")
	require.Contains(t, of(ops.Diagnose(t.Context(), p.options), "wal_level")[0].Remedy, "az postgres flexible-server parameter set")
}

// standby reads WAL as a standby server does, until the test ends.
func standby(t *testing.T, at string) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(at)
	require.NoError(t, err)
	cfg.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	results, err := conn.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	require.NoError(t, err)
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + string(results[0].Rows[0][2])})
	require.NoError(t, conn.Frontend().Flush())
	message, err := conn.ReceiveMessage(t.Context())
	require.NoError(t, err)
	require.IsType(t, &pgproto3.CopyBothResponse{}, message)
}

func TestDoctorFindsSlotsThatNoStandbyHas(t *testing.T) {
	t.Parallel()
	p := newPatient(t, healthy)
	require.Empty(t, of(ops.Diagnose(t.Context(), p.options), "slot_failover"), "there is no standby")
	standby(t, p.url)
	f := p.eventually(t, p.options, "slot_failover", 1)[0]
	if p.server.Version() < 17 {
		require.Contains(t, f.Remedy, "outbox.publish()")
		return
	}
	require.Contains(t, f.Remedy, "ALTER_REPLICATION_SLOT "+p.options.Slot+" (FAILOVER true);")
	cfg, err := pgconn.ParseConfig(p.url)
	require.NoError(t, err)
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), "ALTER_REPLICATION_SLOT "+p.options.Slot+" (FAILOVER true);").ReadAll()
	require.NoError(t, err)
	found := ops.Diagnose(t.Context(), p.options)
	require.Empty(t, of(found, "slot_failover"))
	require.Len(t, of(found, "standby_slots_unset"), 1)
}

// Every code has a test, or a reason why it cannot be brought about here.
func TestEveryCodeIsProvoked(t *testing.T) {
	t.Parallel()
	provoked := map[string]string{
		"database_tls":  "the server listens on loopback only",
		"version_minor": "depends on the server at hand", "check_failed": "TestDoctorAsARoleWithoutRights",
		"partitions_ahead": "TestDoctorFindsMissingPartitions", "queue_old": "TestDoctorFindsWhatWaits", "dead_letters": "TestDoctorFindsWhatWaits",
		"long_transaction": "TestDoctorFindsOldTransactions", "slot_failover": "TestDoctorFindsSlotsThatNoStandbyHas", "standby_slots_unset": "TestDoctorFindsSlotsThatNoStandbyHas",
		"wal_level": "TestDoctorFindsThatTheServerIsFull", "replication_slots": "TestDoctorFindsThatTheServerIsFull", "wal_senders": "TestDoctorFindsThatTheServerIsFull",
		"replication_connection": "TestDoctorFindsThatTheServerIsFull", "commit_timestamps": "TestDoctorFindsThatTheServerIsFull",
		"privileges": "TestDoctorNamesMissingRights", "monitoring_rights": "TestDoctorNamesMissingRights", "pooler": "TestDoctorFindsAPooler", "connection": "TestDoctorWithoutADatabase",
		"url_refused": "TestDoctorTriesReceivers", "url_unreachable": "TestDoctorTriesReceivers", "certificate_invalid": "TestDoctorTriesReceivers", "certificate_expires": "TestDoctorTriesReceivers",
	}
	for _, d := range diseases {
		provoked[d.code] = "TestDoctorFindsAndMends"
	}
	for _, c := range ops.DoctorCodes {
		if c.Check != "" {
			require.Contains(t, provoked, c.Code)
		}
	}
}

// as returns the URL of the same database for another role.
func as(t *testing.T, at, role string) string {
	t.Helper()
	u, err := url.Parse(at)
	require.NoError(t, err)
	u.User = url.User(role)
	return u.String()
}
