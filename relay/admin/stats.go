package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// windows are the times that statistics are about, besides the whole, in the order of Stats.
var windows = []struct{ name, interval string }{{"hour", "1 hour"}, {"day", "1 day"}, {"week", "7 days"}}

// numberColumns are what Numbers are made of, of rows with the columns of outbox.subscription_activity.
const numberColumns = "%[1]s.attempts, %[1]s.succeeded, %[1]s.failed, %[1]s.success_rate, %[1]s.mean_ms, %[1]s.p95_ms"

func (n *Numbers) targets() []any {
	return []any{&n.Total, &n.Success, &n.Failed, &n.SuccessRate, &n.MeanMS, &n.P95MS}
}

// selectStats reads the roll-ups of webhook $1 of tenant $2 (null: any). No attempt is counted: it costs the same whatever
// there were.
var selectStats = func() string {
	sql := `SELECT st.succeeded + st.failed, st.succeeded, st.failed, st.success_rate, st.mean_ms, st.p95_ms,
	st.pending, st.dead, st.last_attempt_at, st.consecutive_failures`
	from := `
FROM outbox.subscriptions s
JOIN outbox.subscription_stats st ON st.subscription_id = s.id`
	for _, w := range windows {
		sql += ", " + fmt.Sprintf(numberColumns, w.name)
		from += fmt.Sprintf("\nJOIN outbox.subscription_activity('%s') AS %s ON %[2]s.subscription_id = s.id", w.interval, w.name)
	}
	return sql + from + "\nWHERE s.id = $1 AND ($2::text IS NULL OR s.tenant = $2)"
}()

// WebhookStats returns the statistics of one webhook.
func (d *Desk) WebhookStats(ctx context.Context, id uuid.UUID) (Stats, error) {
	s := Stats{WebhookID: &id}
	err := d.db.QueryRow(ctx, selectStats, id, d.who.Tenant).Scan(s.targets()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return Stats{}, noWebhook(id)
	}
	s.LastAttemptAt = inUTC(s.LastAttemptAt)
	return s, explained("read the statistics of a webhook", err)
}

func (s *Stats) targets() []any {
	all := append(s.Numbers.targets(), &s.Pending, &s.Dead, &s.LastAttemptAt, &s.ConsecutiveFailures)
	for _, window := range []*Numbers{&s.LastHour, &s.LastDay, &s.LastWeek} {
		all = append(all, window.targets()...)
	}
	return all
}

// summed adds rows with the columns of outbox.subscription_activity up to one; histograms element by element, as sums of
// their own, which costs a fraction of taking them apart.
func summed(from string) string {
	counts := make([]string, 20) // as many as a histogram has
	for i := range counts {
		counts[i] = fmt.Sprintf("coalesce(sum(r.latency[%d]), 0)::bigint", i+1)
	}
	return `SELECT a.attempts, a.succeeded, a.failed, round(a.succeeded::numeric / nullif(a.attempts, 0), 4)::float8 AS success_rate,
	round(a.total_us::numeric / nullif(a.attempts, 0) / 1000, 3)::float8 AS mean_ms, outbox.latency_quantile(a.latency, 0.95) AS p95_ms, a.last, a.streak
FROM (SELECT coalesce(sum(r.attempts), 0)::bigint AS attempts, coalesce(sum(r.succeeded), 0)::bigint AS succeeded,
	coalesce(sum(r.failed), 0)::bigint AS failed, coalesce(sum(r.total_us), 0)::bigint AS total_us,
	ARRAY[` + strings.Join(counts, ", ") + `] AS latency, max(r.last_attempt_at) AS last, coalesce(max(r.consecutive_failures), 0) AS streak
	FROM ` + from + `) AS a`
}

// selectSystemStats adds up the roll-ups of the webhooks of tenant $1 (null: all). What waits and what is dead is counted:
// of a tenant by its webhooks, which have indexes.
var selectSystemStats = func() string {
	const of = "(SELECT s.id, s.is_active FROM outbox.subscriptions s WHERE $1::text IS NULL OR s.tenant = $1)"
	sql := `SELECT total.attempts, total.succeeded, total.failed, total.success_rate, total.mean_ms, total.p95_ms,
	(SELECT count(*) FROM outbox.deliveries d WHERE $1::text IS NULL OR d.subscription_id IN (SELECT own.id FROM ` + of + ` AS own)),
	(SELECT count(*) FROM outbox.dead_letters d WHERE $1::text IS NULL OR d.subscription_id IN (SELECT own.id FROM ` + of + ` AS own)),
	total.last, total.streak`
	from := "\nFROM (" + summed("outbox.subscription_totals r JOIN "+of+" AS own ON own.id = r.subscription_id") + ") AS total"
	for _, w := range windows {
		sql += ", " + fmt.Sprintf(numberColumns, w.name)
		recent := "(SELECT r.*, NULL::timestamptz AS last_attempt_at, NULL::bigint AS consecutive_failures FROM outbox.subscription_activity('" +
			w.interval + "') AS r JOIN " + of + " AS own ON own.id = r.subscription_id) AS r"
		from += "\nCROSS JOIN (" + summed(recent) + ") AS " + w.name
	}
	return sql + `, (SELECT count(*) FROM ` + of + ` AS own), (SELECT count(*) FROM ` + of + ` AS own WHERE own.is_active)` + from
}()

// SystemStats returns the sums over all webhooks (of the principal's tenant). ConsecutiveFailures is that of the webhook that
// has most. The query is not compiled (jit): with thousands of webhooks that would take longer than what it does.
func (d *Desk) SystemStats(ctx context.Context) (Stats, error) {
	var s Stats
	s.Webhooks, s.ActiveWebhooks = new(int64), new(int64)
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL jit = off"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, selectSystemStats, d.who.Tenant).Scan(append(s.targets(), s.Webhooks, s.ActiveWebhooks)...)
	})
	s.LastAttemptAt = inUTC(s.LastAttemptAt)
	return s, explained("read the statistics of all webhooks", err)
}

func inUTC(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	utc := at.UTC()
	return &utc
}
