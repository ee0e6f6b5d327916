package admin_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestCountWebhooks(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	count := func(tenant ...string) admin.WebhookCounts {
		c, err := o.desk(tenant...).CountWebhooks(t.Context())
		require.NoError(t, err)
		return c
	}
	require.Zero(t, count())
	o.webhook(t, "clinic", "on")
	off, broken := o.webhook(t, "clinic", "off"), o.webhook(t, "lab", "broken")
	_, err := o.desk().SetActive(t.Context(), off.ID, false)
	require.NoError(t, err)
	o.exec(t, "UPDATE outbox.subscriptions SET status = 'invalid' WHERE id = $1", broken.ID)
	require.Equal(t, admin.WebhookCounts{Active: 2, Inactive: 1, Invalid: 1}, count())
	require.Equal(t, admin.WebhookCounts{Active: 1, Inactive: 1}, count("clinic"))
	require.Zero(t, count("nobody"))
}

// BenchmarkPulse shows what the dashboard's overview asks every few seconds, and what it asks now and then: both grow with
// the number of webhooks, the pulse also with queue and dead letters, and neither with attempts or events.
func BenchmarkPulse(b *testing.B) {
	many := 100_000
	if testing.Short() {
		many = 10_000
	}
	for _, n := range []int{1000, many} {
		o := newOffice(b)
		o.exec(b, `INSERT INTO outbox.subscriptions (tenant, name, url) SELECT 't' || g % 100, 'w' || g, 'http://localhost/' FROM generate_series(1, $1::int) AS g`, n)
		o.exec(b, `INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, consecutive_failures, last_attempt_at)
			SELECT id, 50, 45, 5, 45, 75000, array_fill(50::bigint, '{20}'), 0, now() FROM outbox.subscriptions`)
		for _, table := range []string{"deliveries", "dead_letters"} {
			o.wait(b, table, admin.Webhook{}, n)
		}
		o.exec(b, "VACUUM ANALYZE")
		o.store = admin.New(o.Pool, admin.Options{Slot: o.slot(b, false)})
		for what, ask := range map[string]func() error{
			"all":    func() error { _, err := o.desk().Pulse(b.Context()); return err },
			"tenant": func() error { _, err := o.desk("t7").Pulse(b.Context()); return err },
			"counts": func() error { _, err := o.desk().CountWebhooks(b.Context()); return err },
		} {
			b.Run(fmt.Sprintf("%s/webhooks=%d", what, n), func(b *testing.B) {
				for b.Loop() {
					require.NoError(b, ask())
				}
			})
		}
	}
}
