package ops

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// ReadAlerts counts the alerts that stand, by their kind. Every kind of AlertKinds is there.
func ReadAlerts(ctx context.Context, db DB) (map[string]int, error) {
	rows, err := db.Query(ctx, `SELECT kind, count(a.id) FROM unnest($1::text[]) AS kind
		LEFT JOIN outbox.alerts a ON a.alert = kind AND a.resolved_at IS NULL GROUP BY kind`, AlertKinds())
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	standing := map[string]int{}
	var kind string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&kind, &n}, func() error {
		standing[kind] = n
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	return standing, nil
}

var descAlerts = describe("alerts", "Alerts that stand, by kind: subscriptions, or 1 for the slot's.", "alert")

type alertsCollector func(context.Context) (map[string]int, error)

// NewAlertsCollector returns the gauge walhook_alerts. standing, such as ReadAlerts, is asked at every scrape.
func NewAlertsCollector(standing func(context.Context) (map[string]int, error)) prometheus.Collector {
	return alertsCollector(standing)
}

// Describe says which metric there is.
func (alertsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descAlerts }

// Collect leaves the gauge out when Postgres does not answer.
func (c alertsCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	standing, err := c(ctx)
	if err != nil {
		return
	}
	for kind, n := range standing {
		ch <- prometheus.MustNewConstMetric(descAlerts, prometheus.GaugeValue, float64(n), kind)
	}
}
