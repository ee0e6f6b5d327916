package acceptance_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// The contract's metrics. Histograms have _count, _sum and _bucket.
var metricNames = []string{
	"replication_lag_bytes", "replication_lag_seconds", "slot_retained_bytes", "slot_safe_bytes", "slot_active",
	"checkpoint_lsn", "events_total", "deliveries_total", "delivery_duration_seconds_count",
	"commit_to_delivery_seconds_count", "queue_depth", "queue_oldest_seconds", "dead_letters",
	"record_duration_seconds_count", "record_batch_size_count", "inflight_deliveries", "subscriptions", "circuit_open",
}

func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	receiver.Script(harness.Response{}, harness.Response{Status: 500})
	const secret = "a-secret-that-nobody-reads"
	id := db.subscribe(receiver.URL()+"/path-of-the-hook", "max_retries", "0", "max_in_flight", "1", "secret", "'"+secret+"'")
	db.subscribe(receiver.URL(), "is_active", "false")

	r := db.start()
	status, body := r.get("/healthz")
	require.Equal(t, 200, status)
	require.Equal(t, "ok\n", body)
	r.waitReady(200, "running")
	_, body = r.get("/readyz")
	var ready struct {
		Ready bool
		State string
	}
	require.NoError(t, json.Unmarshal([]byte(body), &ready))
	require.True(t, ready.Ready)

	db.publish(2)
	receiver.Wait(2, soon)
	db.settled(soon)
	status, metrics := r.get("/metrics")
	require.Equal(t, 200, status)
	for _, name := range metricNames {
		require.Regexp(t, `(?m)^walhook_`+name+`(\{[^}]*\})? `, metrics)
	}
	for _, line := range []string{
		"walhook_events_total 2", `walhook_deliveries_total{outcome="delivered"} 1`, `walhook_deliveries_total{outcome="dead"} 1`,
		"walhook_delivery_duration_seconds_count 2", "walhook_commit_to_delivery_seconds_count 1", "walhook_queue_depth 0",
		"walhook_dead_letters 1", "walhook_slot_active 1", "walhook_inflight_deliveries 0", `walhook_subscriptions{state="active"} 1`,
		`walhook_subscriptions{state="inactive"} 1`, `walhook_subscriptions{state="invalid"} 0`,
		`walhook_relay_state{state="running"} 1`, `walhook_relay_state{state="halted"} 0`, "walhook_slot_seconds_until_lost +Inf",
	} {
		require.Contains(t, metrics, line+"\n")
	}
	for _, leak := range []string{"path-of-the-hook", secret, id.String()} {
		require.NotContains(t, metrics, leak)
		require.NotContains(t, r.Stderr(), secret)
	}
	for _, line := range strings.Split(strings.TrimSpace(metrics), "\n") {
		require.True(t, strings.HasPrefix(line, "#") || regexp.MustCompile(`^(walhook|go|process)_`).MatchString(line), line)
	}
	r.terminate(soon)
}
