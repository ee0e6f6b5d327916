package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestBenchMeasuresEverything runs the benchmark with small numbers, yet with enough deliveries that their CPU
// time is many of the kernel's clock ticks (10 ms).
func TestBenchMeasuresEverything(t *testing.T) {
	p := harness.StartProcess(t, harness.BuildWalhook(t), nil, "bench", "--json", "--events", "5000", "--rounds", "1",
		"--latency-events", "20", "--latency-rounds", "2", "--dead-events", "105",
		"--idle", "1s", "--flood", "1s")
	require.Zero(t, p.Wait(2*time.Minute))
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(p.Stdout()), &got))
	for _, name := range []string{"raw_posts_per_s", "deliveries_per_s", "ratio", "decode_rows_per_s", "batched_events_per_s", "floor_p50_ms", "floor_p99_ms",
		"p50_ms", "p99_ms", "wal_bytes_per_delivery", "relay_cpu_us_per_delivery", "peak_rss_mb", "held_lag_max_bytes", "held_seconds", "cpus"} {
		require.Positive(t, got[name], name)
	}
	require.Contains(t, got, "pg_cpu_us_per_delivery", "so few events cost less than a clock tick")
	for _, name := range []string{"wal_mb_per_s", "lag_max_bytes", "catch_up_ms", "floor_lag_max_bytes", "floor_catch_up_ms"} {
		require.Positive(t, got["flood"].(map[string]any)[name], name)
	}
	require.Positive(t, got["idle"].(map[string]any)["rss_mb"])
	require.NotEmpty(t, got["postgres_version"])
	require.Contains(t, p.Stderr(), "bench: round 1: raw ", "each round's figures")
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	for _, args := range [][]string{{"--events", "1"}, {"--rate", "0"}, {"--connections", "1001"}, {"--dead-events", "-1"},
		{"--latency-events", "3", "--latency-rounds", "4"}} {
		var stderr bytes.Buffer
		a := &app{stdout: &bytes.Buffer{}, stderr: &stderr}
		require.Equal(t, exitUsage, a.execute(t.Context(), append([]string{"bench"}, args...)), args)
		require.Contains(t, stderr.String(), args[0]+" "+args[1]+": give a number from ")
	}
}

func TestBenchPayloadTellsWhenItWasSent(t *testing.T) {
	sent := time.Unix(1_700_000_000, 123_456_789)
	at, ok := sentAt([]byte(`{"event_type":"a","event_data":` + benchPayload(7, sent) + `,"attempt":1}`))
	require.True(t, ok)
	require.True(t, sent.Equal(at), at)
	for _, body := range []string{benchPayload(7, time.Time{}), `{}`, `{"sent": 17`, `{"sent": x}`} {
		_, ok := sentAt([]byte(body))
		require.False(t, ok, body)
	}
}

func TestBenchReceiverCounts(t *testing.T) {
	r := &benchReceiver{}
	control := r.control()
	ask := func(method, path string, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		handler := http.Handler(r)
		if path != "/hook" {
			handler = control
		}
		handler.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w
	}
	require.Equal(t, http.StatusBadRequest, ask("POST", "/expect?want=0", "").Code)
	require.Equal(t, http.StatusOK, ask("POST", "/expect?want=2&timed=true", "").Code)
	require.Equal(t, http.StatusOK, ask("POST", "/hook", benchPayload(1, time.Time{})).Code, "one that warms up")
	for seq := range 2 {
		ask("POST", "/hook", benchPayload(seq, time.Now().Add(-time.Hour)))
	}
	var got benchReceipts
	require.NoError(t, json.Unmarshal(ask("GET", "/result", "").Body.Bytes(), &got))
	require.True(t, got.Complete)
	require.Equal(t, int64(2), got.Count)
	require.Equal(t, int64(2*len(benchPayload(0, time.Now()))), got.Bytes)
	require.Len(t, got.Latencies, 2)
	for _, latency := range got.Latencies {
		require.InDelta(t, time.Hour, latency, float64(time.Minute))
	}
}

func TestBenchStatistics(t *testing.T) {
	middle, extremes := benchMedian([]float64{3, 1, 2})
	require.Equal(t, 2.0, middle)
	require.Equal(t, benchSpread{1, 3}, extremes)
	middle, _ = benchMedian([]float64{4, 1, 2, 3})
	require.Equal(t, 2.5, middle)

	latencies := make([]time.Duration, 0, 100)
	for i := 100; i > 0; i-- {
		latencies = append(latencies, time.Duration(i)*time.Millisecond)
	}
	require.Equal(t, 50.0, benchQuantile(latencies, 0.5))
	require.Equal(t, 99.0, benchQuantile(latencies, 0.99))
	require.Equal(t, 7.0, benchQuantile([]time.Duration{7 * time.Millisecond}, 0.99))
}

func TestParseStat(t *testing.T) {
	times, err := parseStat("42 (odd) name) S 7 42 42 0 -1 4194560 9 8 7 6 11 12 13 14 20 0 1 0 555 1 2")
	require.NoError(t, err)
	require.Equal(t, cpuTimes{parent: 7, own: 230 * time.Millisecond, children: 270 * time.Millisecond}, times)
	for _, line := range []string{"", "42 (name) S 7", "42 (name) S x 42 42 0 -1 4194560 9 8 7 6 11 12 13 14", "42 (name) S 7 42 42 0 -1 4194560 9 8 7 6 x 12 13 14"} {
		_, err := parseStat(line)
		require.Error(t, err, strconv.Quote(line))
	}
}

func TestPeakMemoryAndCPUOfThisProcess(t *testing.T) {
	before, err := familyCPU(os.Getpid())
	require.NoError(t, err)
	for spinning := time.Now(); time.Since(spinning) < 50*time.Millisecond; {
		_ = benchBodies(10)
	}
	after, err := familyCPU(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before)
	peak, err := peakMemory(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, peak, 1.0)
	_, err = processCPU(1 << 30)
	require.Error(t, err, "no such process")
}
