package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/ops"
)

// promised are the metrics of the public contract.
var promised = []string{"replication_lag_bytes", "replication_lag_seconds", "slot_retained_bytes", "slot_safe_bytes", "slot_active",
	"checkpoint_lsn", "events_total", "deliveries_total", "delivery_duration_seconds", "commit_to_delivery_seconds", "queue_depth",
	"queue_oldest_seconds", "dead_letters", "record_duration_seconds", "record_batch_size", "inflight_deliveries", "subscriptions", "circuit_open"}

func number(n int64) *int64 { return &n }

var someLag = ops.Lag{Active: true, LagBytes: number(1), RetainedBytes: number(2), SafeBytes: number(3), LagSeconds: 4.5, CheckpointBytes: 5,
	QueueDepth: 6, OldestPendingSeconds: 7.5, DeadLetters: 8}

func newMetrics(lag ops.Lag, err error) *ops.Metrics {
	return ops.NewMetrics(func() ops.Lanes { return ops.Lanes{InFlight: 1, Active: 2, Inactive: 3, Invalid: 4, Circuits: 5} },
		func(context.Context) (ops.Lag, error) { return lag, err })
}

// gather returns our families by name, without the prefix, which every one of them has. The others are the
// standard ones of the runtime and the process.
func gather(t *testing.T, m *ops.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := m.Registry().Gather()
	require.NoError(t, err)
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "go_") || strings.HasPrefix(f.GetName(), "process_") {
			continue
		}
		name, ours := strings.CutPrefix(f.GetName(), "walhook_")
		require.True(t, ours, f.GetName())
		require.NotEmpty(t, f.GetHelp(), name)
		all[name] = f
	}
	return all
}

// values are those of a family's counters or gauges by their labels, "a=b".
func values(f *dto.MetricFamily) map[string]float64 {
	all := map[string]float64{}
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		all[strings.Join(labels, ",")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return all
}

func TestPromisedMetricsAreThereFromTheStart(t *testing.T) {
	families := gather(t, newMetrics(someLag, nil))
	for _, name := range promised {
		require.Contains(t, families, name)
	}
}

func TestGauges(t *testing.T) {
	families := gather(t, newMetrics(someLag, nil))
	for name, want := range map[string]float64{"replication_lag_bytes": 1, "slot_retained_bytes": 2, "slot_safe_bytes": 3, "replication_lag_seconds": 4.5,
		"checkpoint_lsn": 5, "queue_depth": 6, "queue_oldest_seconds": 7.5, "dead_letters": 8, "slot_active": 1, "inflight_deliveries": 1, "circuit_open": 5} {
		require.Equal(t, map[string]float64{"": want}, values(families[name]), name)
	}
	require.Equal(t, map[string]float64{"state=active": 2, "state=inactive": 3, "state=invalid": 4}, values(families["subscriptions"]))
	inactive := someLag
	inactive.Active = false
	require.Equal(t, map[string]float64{"": 0}, values(gather(t, newMetrics(inactive, nil))["slot_active"]))
}

// An absent value raises an alert, an old or invented one lies.
func TestUnknownValuesAreAbsent(t *testing.T) {
	lost := ops.Lag{WALStatus: "lost", CheckpointBytes: 5}
	families := gather(t, newMetrics(lost, nil))
	for _, name := range []string{"replication_lag_bytes", "slot_retained_bytes"} {
		require.NotContains(t, families, name)
	}
	require.Equal(t, map[string]float64{"": 5}, values(families["checkpoint_lsn"]))
	require.Equal(t, map[string]float64{"": 0}, values(families["slot_safe_bytes"]), "nothing more may be written")
	unlimited := ops.Lag{WALStatus: "reserved"}
	require.Equal(t, map[string]float64{"": math.Inf(1)}, values(gather(t, newMetrics(unlimited, nil))["slot_safe_bytes"]))

	families = gather(t, newMetrics(someLag, errors.New("Postgres is away")))
	require.NotContains(t, families, "checkpoint_lsn")
	require.Contains(t, families, "events_total", "what we know ourselves stays")
	require.Contains(t, families, "inflight_deliveries")
}

func TestCounters(t *testing.T) {
	m := newMetrics(someLag, nil)
	m.Event()
	m.Event()
	m.Attempt(nil, &delivery.Outcome{Duration: time.Second}, delivery.Delivered, 2*time.Second)
	m.Attempt(nil, &delivery.Outcome{Reason: delivery.ReasonTimeout, Duration: 4 * time.Second}, delivery.Waiting, 8*time.Second)
	m.Attempt(nil, &delivery.Outcome{Reason: delivery.ReasonStatus, Duration: 16 * time.Second}, delivery.Dead, 32*time.Second)
	m.Recorded(100, 64*time.Second)
	families := gather(t, m)
	require.Equal(t, map[string]float64{"": 2}, values(families["events_total"]))
	require.Equal(t, map[string]float64{"outcome=delivered": 1, "outcome=retried": 1, "outcome=dead": 1}, values(families["deliveries_total"]))
	require.Equal(t, map[string]float64{"reason=timeout": 1, "reason=status": 1}, values(families["failures_total"]))
	for name, want := range map[string]struct {
		n   uint64
		sum float64
	}{
		"delivery_duration_seconds":  {3, 21},
		"commit_to_delivery_seconds": {1, 2}, // of deliveries, not of attempts
		"record_duration_seconds":    {1, 64},
		"record_batch_size":          {1, 100},
	} {
		h := families[name].GetMetric()[0].GetHistogram()
		require.Equal(t, want.n, h.GetSampleCount(), name)
		require.InDelta(t, want.sum, h.GetSampleSum(), 1e-9, name)
	}
}

// gathered is what collectors beside the others show, by name.
func gathered(t *testing.T, more ...prometheus.Collector) map[string]*dto.MetricFamily {
	t.Helper()
	return gather(t, ops.NewMetrics(func() ops.Lanes { return ops.Lanes{} }, func(context.Context) (ops.Lag, error) { return someLag, nil }, more...))
}

func TestForecastGauges(t *testing.T) {
	t.Parallel()
	one, two, three := 1.0, 2.0, 3.0
	for name, tt := range map[string]struct {
		f                     ops.Forecast
		wal, lost, full       float64
		walIs, lostIs, fullIs bool
	}{
		"both approach": {ops.Forecast{WALBytesPerSecond: &one, Slot: ops.OutlookApproaching, SecondsUntilLost: &two, Disk: ops.OutlookApproaching, SecondsUntilDiskFull: &three},
			1, 2, 3, true, true, true},
		"never":   {ops.Forecast{WALBytesPerSecond: &one, Slot: ops.OutlookUnlimited, Disk: ops.OutlookSteady}, 1, math.Inf(1), math.Inf(1), true, true, true},
		"neither": {ops.Forecast{WALBytesPerSecond: &one, Slot: ops.OutlookSteady, Disk: ops.OutlookSlotFirst}, 1, math.Inf(1), math.Inf(1), true, true, true},
		"unknown": {ops.Forecast{Slot: ops.OutlookUnknownRate, Disk: ops.OutlookUnknownRoom}, 0, 0, 0, false, false, false},
		"lost":    {ops.Forecast{Slot: ops.OutlookLost, SecondsUntilLost: new(float64), Disk: ops.OutlookUnknownRate}, 0, 0, 0, false, true, false},
	} {
		families := gathered(t, ops.NewForecastCollector(func(context.Context) (ops.Forecast, error) { return tt.f, nil }))
		for metric, want := range map[string]struct {
			v  float64
			is bool
		}{"wal_bytes_per_second": {tt.wal, tt.walIs}, "slot_seconds_until_lost": {tt.lost, tt.lostIs}, "disk_seconds_until_full": {tt.full, tt.fullIs}} {
			if want.is {
				require.Equal(t, map[string]float64{"": want.v}, values(families[metric]), "%s: %s", name, metric)
			} else {
				require.NotContains(t, families, metric, name)
			}
		}
	}
	families := gathered(t, ops.NewForecastCollector(func(ctx context.Context) (ops.Forecast, error) {
		_, bounded := ctx.Deadline()
		require.True(t, bounded)
		return ops.Forecast{WALBytesPerSecond: &one}, errors.New("Postgres is away")
	}))
	require.NotContains(t, families, "wal_bytes_per_second")
	require.Contains(t, families, "queue_depth")
}

func TestStateOfTheRelay(t *testing.T) {
	t.Parallel()
	present := "running"
	state := ops.NewStateCollector(func() string { return present }, "starting", "running", "halted")
	require.Equal(t, map[string]float64{"state=starting": 0, "state=running": 1, "state=halted": 0}, values(gathered(t, state)["relay_state"]))
	present = "halted"
	require.Equal(t, map[string]float64{"state=starting": 0, "state=running": 0, "state=halted": 1}, values(gathered(t, state)["relay_state"]))
	present = "thinking"
	require.Equal(t, map[string]float64{"state=starting": 0, "state=running": 0, "state=halted": 0, "state=thinking": 1}, values(gathered(t, state)["relay_state"]))
}

// Labels carry nothing of a subscription and only values of a small set.
func TestLabelsAreBounded(t *testing.T) {
	m := newMetrics(someLag, nil)
	secret := &delivery.Settings{Name: "canary", URL: "http://canary/", Secret: "canary"}
	m.Attempt(secret, &delivery.Outcome{Reason: delivery.ReasonStatus, Error: "canary", Body: "canary"}, delivery.Dead, 0)
	allowed := map[string]bool{"outcome": true, "state": true, "reason": true}
	for name, f := range gather(t, m) {
		require.NotContains(t, f.String(), "canary")
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				require.True(t, allowed[l.GetName()], "%s has the label %s", name, l.GetName())
			}
		}
	}
}

// A scrape of a Postgres that does not answer ends soon.
func TestScrapeBoundsItsTime(t *testing.T) {
	left := time.Duration(-1)
	m := ops.NewMetrics(func() ops.Lanes { return ops.Lanes{} }, func(ctx context.Context) (ops.Lag, error) {
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		return ops.Lag{}, context.DeadlineExceeded
	})
	gather(t, m)
	require.Positive(t, left)
	require.LessOrEqual(t, left, 3*time.Second)
}

// A dashboard for Go services finds what it looks for.
func TestStandardMetrics(t *testing.T) {
	families, err := newMetrics(someLag, nil).Registry().Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Subset(t, names, []string{"go_goroutines", "process_open_fds", "process_resident_memory_bytes"})
}

func TestHandler(t *testing.T) {
	ready := ops.Ready{Ready: true, State: "running"}
	h := ops.Handler(func() ops.Ready { return ready }, newMetrics(someLag, nil))
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		body, err := io.ReadAll(w.Result().Body)
		require.NoError(t, err)
		return w.Code, string(body)
	}
	status, body := get("/healthz")
	require.Equal(t, []any{200, "ok\n"}, []any{status, body})

	for _, c := range []struct {
		is     ops.Ready
		status int
	}{
		{ops.Ready{Ready: true, State: "running"}, 200},
		{ops.Ready{Ready: true, State: "standby"}, 200},
		{ops.Ready{State: "reconnecting", Error: "connection refused"}, 503},
	} {
		ready = c.is
		status, body := get("/readyz")
		require.Equal(t, c.status, status)
		var got ops.Ready
		require.NoError(t, json.Unmarshal([]byte(body), &got))
		require.Equal(t, c.is, got)
		status, _ = get("/healthz")
		require.Equal(t, 200, status, "alive all the same")
	}

	status, body = get("/metrics")
	require.Equal(t, 200, status)
	for _, name := range promised {
		require.Contains(t, body, "\n# TYPE walhook_"+name+" ")
	}
	require.Contains(t, body, `walhook_deliveries_total{outcome="dead"} 0`)
	status, _ = get("/elsewhere")
	require.Equal(t, 404, status)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	require.Equal(t, 405, w.Code)
}
