package ops_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/test/harness"
)

var thresholds = ops.Thresholds{NoActivity: day, SuccessRate: 90, ConsecutiveFailures: 10, Timeouts: 5, Lag: 5 * time.Minute, SlotLostWithin: 6 * time.Hour}

// watch is a database with a slot whose alerts are looked for.
type watch struct {
	database
	*ops.Alerts
	conn *pgx.Conn
}

func noForecast(context.Context, *pgx.Conn) (ops.Forecast, error) { return ops.Forecast{}, nil }

func newWatch(t *testing.T) watch {
	db := newDatabase(t)
	return watch{db, &ops.Alerts{Slot: db.slot(t), Thresholds: thresholds,
		State:    func() (string, string) { return "running", "" },
		Forecast: noForecast}, connect(t, db)}
}

// look looks once and returns what changed, as "raised timeouts". What becomes of the rows must be told by events.
func (w watch) look(t *testing.T) []string {
	t.Helper()
	alerts, err := w.Check(t.Context(), w.conn)
	require.NoError(t, err)
	changes := []string{}
	for _, a := range alerts {
		changes = append(changes, a.State+" "+a.Alert)
		require.Equal(t, 1, w.counted(t, `SELECT count(*) FROM outbox.events WHERE type = 'walhook.alert.' || $1 AND tenant = $2 AND key IS NOT DISTINCT FROM $3
			AND source = 'walhook' AND payload ->> 'state' = $4 AND payload ->> 'alert' = $1 AND payload ->> 'subscription_id' IS NOT DISTINCT FROM $3
			AND (payload ->> 'raised_at')::timestamptz = $5 AND (payload ->> 'resolved_at')::timestamptz IS NOT DISTINCT FROM $6
			AND payload ->> 'message' = $7 AND (payload ->> 'value')::float8 IS NOT DISTINCT FROM $8 AND (payload ->> 'threshold')::float8 IS NOT DISTINCT FROM $9
			AND payload ->> 'subscription' IS NOT DISTINCT FROM $10`,
			a.Alert, a.Tenant, a.SubscriptionID, a.State, a.RaisedAt, a.ResolvedAt, a.Message, a.Value, a.Threshold, a.Subscription), "%+v", a)
		require.Equal(t, a.State == ops.AlertResolved, a.ResolvedAt != nil)
	}
	return changes
}

func (db database) counted(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, db.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

// did sets what a subscription has done, all of it within the last hour.
func (db database) did(t *testing.T, subscription uuid.UUID, succeeded, failed, timeouts, streak int) {
	t.Helper()
	db.exec(t, `INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, timeouts, consecutive_failures, last_attempt_at)
		VALUES ($1, $2::int + $3::int, $2, $3, $2, 0, array_fill(0::bigint, '{20}'), $4, $5, now())
		ON CONFLICT (subscription_id) DO UPDATE SET attempts = excluded.attempts, succeeded = excluded.succeeded, failed = excluded.failed,
			timeouts = excluded.timeouts, consecutive_failures = excluded.consecutive_failures, last_attempt_at = excluded.last_attempt_at`,
		subscription, succeeded, failed, timeouts, streak)
}

// Each alert is raised once, stands, and ends once.
func TestAlertsOfASubscription(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	s := w.subscription(t, "s")
	w.exec(t, "UPDATE outbox.subscriptions SET tenant = 'north' WHERE id = $1", s)
	w.did(t, s, 100, 10, 5, 10)
	require.Empty(t, w.look(t), "everything is at its threshold")

	for _, step := range []struct {
		alert                               string
		succeeded, failed, timeouts, streak int
		value, threshold                    float64
		message                             string
		keptBy, endedBy                     [4]int
	}{
		{"success_rate", 89, 11, 0, 0, 89, 90, "89.0 % of 100 attempts of the last hour succeeded, fewer than 90 %", [4]int{919, 81, 0, 0}, [4]int{92, 8, 0, 0}},
		{"success_rate", 0, 10, 0, 0, 0, 90, "0.0 % of 10 attempts of the last hour succeeded, fewer than 90 %", [4]int{2, 9, 0, 0}, [4]int{0, 9, 0, 0}},
		{"consecutive_failures", 1000, 11, 0, 11, 11, 10, "11 attempts in a row failed", [4]int{1000, 12, 0, 12}, [4]int{1000, 12, 0, 0}},
		{"timeouts", 1000, 11, 6, 0, 6, 5, "6 attempts of the last hour had no answer in time", [4]int{1000, 11, 7, 0}, [4]int{1000, 12, 5, 0}},
	} {
		w.did(t, s, step.succeeded, step.failed, step.timeouts, step.streak)
		alerts, err := w.Check(t.Context(), w.conn)
		require.NoError(t, err)
		require.Len(t, alerts, 1)
		id, name := s.String(), "s"
		require.WithinDuration(t, time.Now(), alerts[0].RaisedAt, time.Minute)
		alerts[0].RaisedAt = time.Time{}
		require.Equal(t, ops.Alert{Alert: step.alert, State: ops.AlertRaised, SubscriptionID: &id, Subscription: &name, Tenant: "north",
			Message: step.message, Value: &step.value, Threshold: &step.threshold}, alerts[0])
		require.Empty(t, w.look(t), "it stands")
		w.did(t, s, step.keptBy[0], step.keptBy[1], step.keptBy[2], step.keptBy[3])
		require.Empty(t, w.look(t), "it is not clearly better: %s", step.alert)
		w.did(t, s, step.endedBy[0], step.endedBy[1], step.endedBy[2], step.endedBy[3])
		require.Equal(t, []string{"resolved " + step.alert}, w.look(t))
		require.Empty(t, w.look(t))
		w.exec(t, "TRUNCATE outbox.alerts")
		w.exec(t, "DELETE FROM outbox.events")
	}
}

// Without attempts for a day, counted from the last one or from when it was made, changed or activated.
func TestAlertOfNoActivity(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	s, quiet := w.subscription(t, "s"), w.subscription(t, "quiet")
	w.exec(t, "UPDATE outbox.subscriptions SET event_types = '{walhook.alert.*,walhook.x}' WHERE id = $1", quiet)
	old := func() {
		// Only the relay's columns can change without making it a new revision.
		w.exec(t, "UPDATE outbox.subscriptions SET updated_at = now() - interval '25 hours'")
		w.exec(t, "ALTER TABLE outbox.subscriptions DISABLE TRIGGER USER")
		w.exec(t, "UPDATE outbox.subscriptions SET created_at = now() - interval '25 hours'")
		w.exec(t, "ALTER TABLE outbox.subscriptions ENABLE TRIGGER USER")
	}
	require.Empty(t, w.look(t))
	old()
	require.Equal(t, []string{"raised no_activity"}, w.look(t), "who waits for alerts alone waits for nothing")
	require.Equal(t, 1, w.counted(t, "SELECT count(*) FROM outbox.alerts WHERE message ~ '^no attempt since it was made or changed at 2' AND value BETWEEN 89999 AND 90999 AND threshold = 86400"))
	w.did(t, s, 1, 0, 0, 0)
	require.Equal(t, []string{"resolved no_activity"}, w.look(t))
	w.exec(t, "UPDATE outbox.subscription_totals SET last_attempt_at = now() - interval '24 hours 1 second'")
	require.Equal(t, []string{"raised no_activity"}, w.look(t))
	require.Equal(t, 1, w.counted(t, "SELECT count(*) FROM outbox.alerts WHERE message ~ '^no attempt since 2'"))
	w.exec(t, "SELECT outbox.deactivate($1)", s)
	require.Equal(t, []string{"resolved no_activity"}, w.look(t))
	w.exec(t, "SELECT outbox.activate($1)", s)
	require.Empty(t, w.look(t), "it begins anew")
}

// Who is invalid gets nothing, and nobody expects attempts. Neither alert tells what the row says, which may be a URL.
func TestAlertsOfInvalidAndGoneSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	s := w.subscription(t, "s")
	w.exec(t, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'url http://localhost/private is bad'")
	require.Equal(t, []string{"raised subscription_invalid"}, w.look(t))
	w.exec(t, "UPDATE outbox.subscriptions SET url = 'http://localhost/other', is_active = false")
	require.Equal(t, []string{"resolved subscription_invalid"}, w.look(t))
	w.exec(t, "UPDATE outbox.subscriptions SET status_reason = 'deactivated: the receiver answered 410 Gone'") // as the relay does
	require.Equal(t, []string{"raised subscription_gone"}, w.look(t))
	require.Zero(t, w.counted(t, "SELECT count(*) FROM outbox.alerts WHERE message LIKE '%http%'"))
	w.exec(t, "SELECT outbox.activate($1)", s)
	require.Equal(t, []string{"resolved subscription_gone"}, w.look(t))
}

// Nobody waits for what is deleted or inactive. Its tenant hears of it all the same.
func TestAlertsEndWithTheirSubscription(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	deleted, inactive := w.subscription(t, "deleted"), w.subscription(t, "inactive")
	w.exec(t, "UPDATE outbox.subscriptions SET tenant = name")
	for _, s := range []uuid.UUID{deleted, inactive} {
		w.did(t, s, 0, 20, 20, 20)
	}
	all := []string{"raised consecutive_failures", "raised consecutive_failures", "raised success_rate", "raised success_rate", "raised timeouts", "raised timeouts"}
	require.Equal(t, all, w.look(t))
	w.exec(t, "DELETE FROM outbox.subscriptions WHERE id = $1", deleted)
	w.exec(t, "SELECT outbox.deactivate($1)", inactive)
	for i := range all {
		all[i] = strings.Replace(all[i], "raised", "resolved", 1)
	}
	require.Equal(t, all, w.look(t))
	require.Equal(t, 3, w.counted(t, "SELECT count(*) FROM outbox.events WHERE tenant = 'deleted' AND payload ->> 'state' = 'resolved' AND payload -> 'subscription' = 'null'"))
}

func TestAlertsCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	w.Thresholds = ops.Thresholds{}
	w.did(t, w.subscription(t, "s"), 0, 20, 20, 20)
	w.exec(t, "UPDATE outbox.subscription_totals SET last_attempt_at = now() - interval '30 minutes'")
	w.exec(t, "ALTER TABLE outbox.subscriptions DISABLE TRIGGER USER")
	w.exec(t, "UPDATE outbox.subscriptions SET created_at = '-infinity', updated_at = '-infinity'")
	w.exec(t, "UPDATE outbox.checkpoint SET recorded_through = now() - interval '1 day'")
	w.exec(t, "SELECT outbox.publish('old', '{}')")
	w.exec(t, "UPDATE outbox.events SET created_at = now() - interval '20 hours'")
	require.Empty(t, w.look(t))
	w.Thresholds = thresholds
	require.Equal(t, []string{"raised consecutive_failures", "raised slot_lag", "raised success_rate", "raised timeouts"}, w.look(t))
}

// A threshold of 100 percent can be reached again.
func TestAlertOfASuccessRateOfAll(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	w.Thresholds.SuccessRate = 100
	s := w.subscription(t, "s")
	w.did(t, s, 99, 1, 0, 0)
	require.Equal(t, []string{"raised success_rate"}, w.look(t))
	w.did(t, s, 100, 0, 0, 0)
	require.Equal(t, []string{"resolved success_rate"}, w.look(t))
}

// A recovery is told of when it has happened, each once, and that ends after an hour.
func TestAlertOfARecovery(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	recovered := func(slot, age string) {
		w.exec(t, `INSERT INTO outbox.recoveries (slot_name, code, reason, from_lsn, to_lsn, events, deliveries, recovered_at)
			VALUES ($1, 'slot_missing', 'it was dropped', '0/1', '0/2', 7, 3, now() - $2::text::interval)`, slot, age)
	}
	recovered(w.Slot, "61 minutes")
	recovered("another", "1 second")
	require.Empty(t, w.look(t))
	recovered(w.Slot, "2 seconds")
	require.Equal(t, []string{"raised slot_recovered"}, w.look(t))
	require.Equal(t, 1, w.counted(t, "SELECT count(*) FROM outbox.alerts WHERE value = 3 AND message LIKE '%(slot_missing)%7 events looked at, 3 deliveries queued'"))
	require.Empty(t, w.look(t))
	recovered(w.Slot, "1 second")
	require.Equal(t, []string{"resolved slot_recovered"}, w.look(t))
	require.Equal(t, []string{"raised slot_recovered"}, w.look(t))
	w.exec(t, "UPDATE outbox.recoveries SET recovered_at = recovered_at - interval '1 hour'")
	require.Equal(t, []string{"resolved slot_recovered"}, w.look(t))
	require.Empty(t, w.look(t))
}

// What the relay and the forecast say of the slot comes to the same rows and events.
func TestAlertsOfASlot(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	require.Empty(t, w.look(t), "nobody has read it since a moment ago")
	w.UnreadSince(time.Now().Add(-2 * time.Minute))
	w.State = func() (string, string) { return "halted", "slot_missing" }
	w.Forecast = func(context.Context, *pgx.Conn) (ops.Forecast, error) {
		return ops.Forecast{SecondsUntilDiskFull: in(time.Hour)}, nil
	}
	require.Equal(t, []string{"raised relay_halted", "raised slot_at_risk", "raised slot_inactive"}, w.look(t))
	w.State = func() (string, string) { return "running", "" }
	w.Forecast = noForecast
	require.Equal(t, []string{"resolved slot_at_risk"}, w.look(t), "the slot is still read by nobody")

	w.Forecast = func(context.Context, *pgx.Conn) (ops.Forecast, error) {
		return ops.Forecast{}, errors.New("no samples")
	}
	w.exec(t, "SELECT pg_drop_replication_slot($1)", w.Slot)
	alerts, err := w.Check(t.Context(), w.conn)
	require.ErrorContains(t, err, "forecast for alerts: no samples")
	require.Len(t, alerts, 1, "what else there is to say is said")
	require.Equal(t, "replication slot "+w.Slot+" is gone or lost: walhook doctor says what mends it", alerts[0].Message)
}

// Of several relays one looks at a time, so that nothing is told twice.
func TestOneRelayLooksForAlertsAtATime(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	w.did(t, w.subscription(t, "s"), 100, 11, 0, 11)
	other, err := w.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtext('outbox.alerts'))")
	require.NoError(t, err)
	require.Empty(t, w.look(t))
	require.NoError(t, other.Rollback(t.Context()))
	require.Equal(t, []string{"raised consecutive_failures"}, w.look(t))
}

func TestOldAlertsAreRemoved(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	for _, age := range []any{"29 days", "31 days", nil} {
		w.exec(t, "INSERT INTO outbox.alerts (alert, message, raised_at, resolved_at) VALUES ('slot_lag', 'x', now() - interval '40 days', now() - $1::text::interval)", age)
	}
	require.Equal(t, []string{"resolved slot_lag"}, w.look(t))
	require.Equal(t, 2, w.counted(t, "SELECT count(*) FROM outbox.alerts"))
}

func TestAlertsNameWhatFailed(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	w.Slot = "nobody"
	_, err := w.Check(t.Context(), w.conn)
	require.ErrorIs(t, err, ops.ErrNoSlot)
	require.ErrorContains(t, err, "check alerts")
}

// lines are log lines, handed over one by one.
type lines chan map[string]any

func (l lines) Write(p []byte) (int, error) {
	line := map[string]any{}
	err := json.NewDecoder(bytes.NewReader(p)).Decode(&line)
	l <- line
	return len(p), err
}

// The loop survives a Postgres that is away, which it says once, goes on every interval, and ends with its context.
func TestAlertsAreLookedForRegularly(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	s := w.subscription(t, "s")
	w.did(t, s, 100, 11, 0, 11)
	var calls atomic.Int64
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		if calls.Add(1) <= 2 {
			return nil, errors.New("connection refused")
		}
		return pgx.Connect(ctx, w.url)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log, done := make(lines, 100), make(chan struct{})
	go func() {
		defer close(done)
		ops.AlertRegularly(ctx, connect, w.Alerts, 20*time.Millisecond, zerolog.New(log))
	}()
	require.Equal(t, map[string]any{"level": "warn", "message": "look for alerts, trying again later", "error": "connection refused"}, <-log)
	want := map[string]any{"level": "warn", "message": "alert raised", "alert": "consecutive_failures", "subscription": s.String(), "name": "s",
		"value": 11.0, "threshold": 10.0, "reason": "11 attempts in a row failed"}
	require.Equal(t, want, <-log)
	w.did(t, s, 100, 11, 0, 0)
	want["level"], want["message"] = "info", "alert resolved"
	require.Equal(t, want, <-log)
	cancel()
	<-done
	require.Empty(t, log)
}

func TestAlertsAsMetric(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `INSERT INTO outbox.alerts (alert, subscription_id, message, resolved_at) VALUES ('timeouts', gen_random_uuid(), '', NULL),
		('timeouts', gen_random_uuid(), '', NULL), ('timeouts', gen_random_uuid(), '', now()), ('slot_lag', NULL, '', NULL), ('unknown', NULL, '', NULL)`)
	m := newMetrics(someLag, nil)
	m.Registry().MustRegister(ops.NewAlertsCollector(func(ctx context.Context) (map[string]int, error) { return ops.ReadAlerts(ctx, db) }))
	want := map[string]float64{}
	for _, kind := range ops.AlertKinds() {
		want["alert="+kind] = 0
	}
	want["alert=timeouts"], want["alert=slot_lag"] = 2, 1
	require.Equal(t, want, values(gather(t, m)["alerts"]))

	m = newMetrics(someLag, nil)
	m.Registry().MustRegister(ops.NewAlertsCollector(func(ctx context.Context) (map[string]int, error) {
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		return ops.ReadAlerts(canceled, db)
	}))
	require.NotContains(t, gather(t, m), "alerts", "an absent value says that it is unknown")
}

// BenchmarkAlerts measures a look at 100,000 subscriptions that all had attempts lately, of which a tenth is in trouble.
func BenchmarkAlerts(b *testing.B) {
	url := harness.Database(b)
	pool := harness.Connect(b, url)
	for _, sql := range []string{
		"INSERT INTO outbox.subscriptions (name, url) SELECT g, 'http://localhost/' FROM generate_series(1, 100000) AS g",
		`INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, timeouts, consecutive_failures, last_attempt_at)
			SELECT id, 100, 100, 0, 100, 0, array_fill(0::bigint, '{20}'), 0, CASE WHEN name LIKE '%0' THEN 100 ELSE 0 END, now() FROM outbox.subscriptions`,
		`INSERT INTO outbox.subscription_samples SELECT now() - interval '90 minutes', subscription_id, 10, 10, 0, 10, 0, 0, latency FROM outbox.subscription_totals`,
		`INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline) VALUES ('s', '0/1', '0/1', now(), 'x', 1)`,
		"ANALYZE",
	} {
		_, err := pool.Exec(b.Context(), sql)
		require.NoError(b, err)
	}
	conn, err := pgx.Connect(b.Context(), url)
	require.NoError(b, err)
	defer func() { _ = conn.Close(context.WithoutCancel(b.Context())) }()
	a := ops.Alerts{Slot: "s", Thresholds: thresholds, State: func() (string, string) { return "running", "" },
		Forecast: noForecast}
	began := time.Now()
	changed, err := a.Check(b.Context(), conn)
	require.NoError(b, err)
	require.Len(b, changed, 10_001) // and the slot that is not there
	raising := time.Since(began)
	for b.Loop() {
		_, err := a.Check(b.Context(), conn)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(raising.Milliseconds()), "ms/10000-raised")
}
