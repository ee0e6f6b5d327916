package admin_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestWebhookStats(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	none, err := o.desk().WebhookStats(t.Context(), w.ID)
	require.NoError(t, err)
	require.Equal(t, admin.Stats{WebhookID: &w.ID}, none, "before the first attempt")

	o.attempts(t, w, 210)
	o.wait(t, "deliveries", w, 3)
	o.wait(t, "dead_letters", w, 2)
	got, err := o.desk().WebhookStats(t.Context(), w.ID)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), *got.LastAttemptAt, time.Minute)
	numbers := func(total, success int64) admin.Numbers {
		return admin.Numbers{Total: total, Success: success, Failed: total - success,
			SuccessRate: ptr(float64(success*10000/total) / 10000), MeanMS: ptr(1.5), P95MS: ptr(2.0)}
	}
	require.Equal(t, admin.Stats{
		WebhookID: &w.ID, Numbers: numbers(210, 120), Pending: 3, Dead: 2, LastAttemptAt: got.LastAttemptAt,
		LastHour: numbers(105, 60), LastDay: numbers(210, 120), LastWeek: numbers(210, 120),
	}, rounded(got))
}

// rounded has success rates of four digits, cut and not rounded, as numbers in the test are.
func rounded(s admin.Stats) admin.Stats {
	for _, n := range []*admin.Numbers{&s.Numbers, &s.LastHour, &s.LastDay, &s.LastWeek} {
		*n.SuccessRate = float64(int64(*n.SuccessRate*10000)) / 10000
	}
	return s
}

func TestSystemStats(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	none, err := o.desk().SystemStats(t.Context())
	require.NoError(t, err)
	require.Equal(t, admin.Stats{Webhooks: ptr(int64(0)), ActiveWebhooks: ptr(int64(0))}, none)

	a, b, lab := o.webhook(t, "clinic", "a"), o.webhook(t, "clinic", "b"), o.webhook(t, "lab", "c")
	for _, w := range []admin.Webhook{a, b, lab} {
		o.attempts(t, w, 42)
		o.wait(t, "deliveries", w, 3)
		o.wait(t, "dead_letters", w, 2)
	}
	// Of b, all attempts took up to 4 s: they are half of the clinic's.
	o.exec(t, `UPDATE outbox.subscription_totals SET latency = array_fill(0::bigint, '{12}') || 42::bigint || array_fill(0::bigint, '{7}'), total_us = 42 * 4000000,
		consecutive_failures = 5 WHERE subscription_id = $1`, b.ID)
	_, err = o.desk().SetActive(t.Context(), b.ID, false)
	require.NoError(t, err)

	all, err := o.desk().SystemStats(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{126, 72, 54, 9, 6, 3, 2, 5, 63, 126, 126}, []int64{all.Total, all.Success, all.Failed, all.Pending, all.Dead,
		*all.Webhooks, *all.ActiveWebhooks, all.ConsecutiveFailures, all.LastHour.Total, all.LastDay.Total, all.LastWeek.Total})
	clinic, err := o.desk("clinic").SystemStats(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{84, 48, 36, 6, 4, 2, 1, 42, 84}, []int64{clinic.Total, clinic.Success, clinic.Failed, clinic.Pending, clinic.Dead,
		*clinic.Webhooks, *clinic.ActiveWebhooks, clinic.LastHour.Total, clinic.LastDay.Total})
	require.Equal(t, 4096.0, *clinic.P95MS, "of both histograms together")
	require.Equal(t, 2000.75, *clinic.MeanMS)
	require.InDelta(t, 48.0/84, *clinic.SuccessRate, 1e-4)
	lone, err := o.desk("lab").SystemStats(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2.0, *lone.P95MS)
}

func TestHealths(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	quiet, busy := o.webhook(t, "", "quiet"), o.webhook(t, "", "busy")
	o.attempts(t, busy, 42)
	o.wait(t, "deliveries", busy, 3)
	o.wait(t, "dead_letters", busy, 2)
	o.exec(t, "UPDATE outbox.subscription_totals SET consecutive_failures = 4")
	o.exec(t, `INSERT INTO outbox.alerts (alert, subscription_id, message, resolved_at) VALUES
		('timeouts', $1, 'late', NULL), ('success_rate', $1, 'few', NULL), ('no_activity', $1, 'over', now()), ('slot_lag', NULL, 'slot', NULL)`, busy.ID)

	page, err := o.desk().Healths(t.Context(), nil, 1, "")
	require.NoError(t, err)
	requireNoSecret(t, page)
	require.Len(t, page.Items, 1)
	h := page.Items[0]
	require.Equal(t, busy, h.Webhook)
	require.Equal(t, []int64{21, 12, 9, 3, 2, 4}, []int64{h.Hour.Total, h.Hour.Success, h.Hour.Failed, h.Pending, h.Dead, h.ConsecutiveFailures})
	require.ElementsMatch(t, []string{"late", "few"}, h.Alerts)
	require.WithinDuration(t, time.Now(), *h.LastAttemptAt, time.Minute)

	page, err = o.desk().Healths(t.Context(), nil, 1, page.Next)
	require.NoError(t, err)
	require.Equal(t, []admin.Health{{Webhook: quiet, Alerts: []string{}}}, page.Items)
	require.Empty(t, page.Next)
	page, err = o.desk().Healths(t.Context(), ptr(false), 0, "")
	require.NoError(t, err)
	require.Equal(t, []admin.Health{}, page.Items)
}

// One page of healths is each webhook's own numbers.
func TestHealthsOfMany(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	want := map[uuid.UUID]int64{}
	for i := range 7 {
		w := o.webhook(t, "", fmt.Sprint("w", i))
		o.attempts(t, w, 2*i)
		want[w.ID] = int64(i)
	}
	page, err := o.desk().Healths(t.Context(), nil, 0, "")
	require.NoError(t, err)
	require.Len(t, page.Items, 7)
	for _, h := range page.Items {
		require.Equal(t, want[h.ID], h.Hour.Total)
	}
}

// BenchmarkStats shows that statistics cost the same whatever the number of attempts was: compare the two sizes.
func BenchmarkStats(b *testing.B) {
	many := 10_000_000
	if testing.Short() {
		many = 100_000
	}
	for _, n := range []int{1000, many} {
		o := newOffice(b)
		w := o.webhook(b, "", "a")
		o.attempts(b, w, n)
		o.exec(b, "ANALYZE")
		for what, read := range map[string]func() error{
			"webhook": func() error { _, err := o.desk().WebhookStats(b.Context(), w.ID); return err },
			"system":  func() error { _, err := o.desk().SystemStats(b.Context()); return err },
		} {
			b.Run(fmt.Sprintf("%s/attempts=%d", what, n), func(b *testing.B) {
				for b.Loop() {
					require.NoError(b, read())
				}
			})
		}
	}
}
