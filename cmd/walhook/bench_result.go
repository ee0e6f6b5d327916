package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// benchSpread is the lowest and the highest figure of the rounds.
type benchSpread [2]float64

// benchResult is what the benchmark prints. The figures are medians over the rounds.
type benchResult struct {
	RawPostsPerS            float64     `json:"raw_posts_per_s"`
	DeliveriesPerS          float64     `json:"deliveries_per_s"`
	Ratio                   float64     `json:"ratio"` // deliveries_per_s / raw_posts_per_s
	DecodeRowsPerS          float64     `json:"decode_rows_per_s"`
	BatchedEventsPerS       float64     `json:"batched_events_per_s"` // in requests of 100
	FloorP50                float64     `json:"floor_p50_ms"`
	FloorP99                float64     `json:"floor_p99_ms"`
	P50                     float64     `json:"p50_ms"`
	P99                     float64     `json:"p99_ms"`
	PgCPU                   float64     `json:"pg_cpu_us_per_delivery"` // beyond decoding
	WAL                     float64     `json:"wal_bytes_per_delivery"`
	RelayCPU                float64     `json:"relay_cpu_us_per_delivery"`
	PeakRSS                 float64     `json:"peak_rss_mb"` // of 10^6 bytes, the highest of the throughput rounds
	HeldLagMax              *int64      `json:"held_lag_max_bytes"`
	HeldSeconds             *float64    `json:"held_seconds"`
	HeldPeakRSS             *float64    `json:"held_peak_rss_mb"`
	Idle                    *benchIdle  `json:"idle"`
	Flood                   *benchFlood `json:"flood"`
	StartupMS               float64     `json:"startup_ms"` // from executing the relay to the first delivery of the backlog
	PgCPUDecode             float64     `json:"pg_cpu_decode_us_per_row"`
	RawCPU                  float64     `json:"raw_cpu_us_per_post"`       // of client and receiver
	TotalCPU                float64     `json:"total_cpu_us_per_delivery"` // of relay, receiver and Postgres, decoding included
	RawPostsPerSSpread      benchSpread `json:"raw_posts_per_s_spread"`
	DeliveriesPerSSpread    benchSpread `json:"deliveries_per_s_spread"`
	RatioSpread             benchSpread `json:"ratio_spread"` // of each round's own
	DecodeRowsPerSSpread    benchSpread `json:"decode_rows_per_s_spread"`
	BatchedEventsPerSSpread benchSpread `json:"batched_events_per_s_spread"`
	FloorP50Spread          benchSpread `json:"floor_p50_ms_spread"`
	FloorP99Spread          benchSpread `json:"floor_p99_ms_spread"`
	P50Spread               benchSpread `json:"p50_ms_spread"`
	P99Spread               benchSpread `json:"p99_ms_spread"`
	PgCPUSpread             benchSpread `json:"pg_cpu_us_per_delivery_spread"`
	WALSpread               benchSpread `json:"wal_bytes_per_delivery_spread"`
	RelayCPUSpread          benchSpread `json:"relay_cpu_us_per_delivery_spread"`
	Events                  int         `json:"events"`
	Rounds                  int         `json:"rounds"`
	LatencyEvents           int         `json:"latency_events"`
	LatencyRounds           int         `json:"latency_rounds"`
	DeadEvents              int         `json:"dead_events"`
	Rate                    int         `json:"rate"`
	Connections             int         `json:"connections"`
	MaxInFlight             int         `json:"max_in_flight"`
	Signed                  bool        `json:"signed"` // the relay signs, the raw client does not
	BodyBytes               int         `json:"body_bytes"`
	Version                 string      `json:"version"`
	Go                      string      `json:"go"`
	Postgres                string      `json:"postgres_version"`
	CPUs                    int         `json:"cpus"`
	MeasuredAt              string      `json:"measured_at"`
	PgCPUMethod             string      `json:"pg_cpu_method"`
}

// benchIdle is what a relay costs that has nothing to do, for an hour, measured over a shorter time. What the database
// does without a relay is taken off.
type benchIdle struct {
	Seconds  float64 `json:"seconds"`
	RelayCPU float64 `json:"relay_cpu_s_per_hour"`
	PgCPU    float64 `json:"pg_cpu_s_per_hour"`
	WAL      float64 `json:"wal_bytes_per_hour"`
	WALAlone float64 `json:"wal_bytes_per_hour_without"`
	RSS      float64 `json:"rss_mb"` // of 10^6 bytes
}

// benchFlood is how far the slot of an idle outbox falls behind while unrelated rows are written; floor is a bare loop that
// confirms whatever it is sent. Medians over the rounds.
type benchFlood struct {
	Seconds      float64 `json:"seconds"` // of a round
	WAL          float64 `json:"wal_mb_per_s"`
	LagMax       float64 `json:"lag_max_bytes"`
	Lag          float64 `json:"lag_bytes"`
	CatchUp      float64 `json:"catch_up_ms"` // from the last write until it is confirmed
	FloorLagMax  float64 `json:"floor_lag_max_bytes"`
	FloorLag     float64 `json:"floor_lag_bytes"`
	FloorCatchUp float64 `json:"floor_catch_up_ms"`
}

// describe fills in what was measured, and on what.
func (b *bench) describe(ctx context.Context) error {
	r := &b.result
	r.Events, r.Rounds, r.LatencyEvents, r.LatencyRounds, r.DeadEvents = b.events, b.rounds, b.latencyEvents, b.latencyRounds, b.deadEvents
	r.Rate, r.Connections, r.MaxInFlight, r.Signed = b.rate, b.connections, b.connections, true
	r.BodyBytes = len(benchBodies(1)[0])
	r.Version, r.Go, r.CPUs, r.MeasuredAt = version, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.RFC3339)
	r.PgCPUMethod = "utime+stime of the postmaster and its children in /proc, with cutime+cstime for those that ended, from before the relay " +
		"starts until its last delivery is recorded; minus the same while another slot is drained of the same rows, at the same pace, and they are thrown away"
	var err error
	r.Postgres, err = b.db.version(ctx)
	return err
}

// benchMedian returns the middle of the figures and their extremes. There is at least one.
func benchMedian(figures []float64) (float64, benchSpread) {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	middle := (sorted[(n-1)/2] + sorted[n/2]) / 2
	return middle, benchSpread{sorted[0], sorted[n-1]}
}

// benchQuantile returns the smallest latency that the given share of all does not exceed, in milliseconds.
func benchQuantile(latencies []time.Duration, share float64) float64 {
	sorted := slices.Sorted(slices.Values(latencies))
	i := max(int(share*float64(len(sorted))+0.999999)-1, 0)
	return benchMS(sorted[min(i, len(sorted)-1)])
}

func benchMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func benchUS(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// text is the result for people.
func (r *benchResult) text() string {
	var t strings.Builder
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(&t, "%-24s "+format+"\n", append([]any{name}, args...)...)
	}
	line("machine", "%d CPUs, Postgres %s, %s", r.CPUs, r.Postgres, r.Go)
	line("workload", "%d rounds of %d events, one request of %d bytes each, %d connections (max_in_flight %d), signed", r.Rounds, r.Events, r.BodyBytes, r.Connections, r.MaxInFlight)
	line("raw posts", "%.0f/s (%.0f-%.0f), plain client, unsigned", r.RawPostsPerS, r.RawPostsPerSSpread[0], r.RawPostsPerSSpread[1])
	line("deliveries", "%.0f/s (%.0f-%.0f), %.2f of raw; first one %.0f ms after the start", r.DeliveriesPerS, r.DeliveriesPerSSpread[0], r.DeliveriesPerSSpread[1], r.Ratio, r.StartupMS)
	line("decoding alone", "%.0f rows/s", r.DecodeRowsPerS)
	line("CPU, all processes", "%.1f µs a raw post, %.1f µs a delivery with all that Postgres does for it", r.RawCPU, r.TotalCPU)
	line("batched events", "%.0f/s (%.0f-%.0f), %d in a request", r.BatchedEventsPerS, r.BatchedEventsPerSSpread[0], r.BatchedEventsPerSSpread[1], benchBatch)
	line("latency at "+fmt.Sprint(r.Rate)+"/s", "p50 %.2f ms, p99 %.2f ms", r.P50, r.P99)
	line("its floor", "p50 %.2f ms, p99 %.2f ms, bare loop from the stream to a POST", r.FloorP50, r.FloorP99)
	line("Postgres, a delivery", "%.1f µs of CPU beyond decoding (%.1f µs), %.0f bytes of WAL", r.PgCPU, r.PgCPUDecode, r.WAL)
	line("relay, a delivery", "%.1f µs of CPU", r.RelayCPU)
	line("relay, peak memory", "%.0f MB", r.PeakRSS)
	if i := r.Idle; i != nil {
		line("idle, an hour", "relay %.1f s of CPU and %.0f MB, Postgres %.1f s, %.0f kB of WAL (%.0f kB without a relay)", i.RelayCPU, i.RSS, i.PgCPU, i.WAL/1e3, i.WALAlone/1e3)
	}
	if f := r.Flood; f != nil {
		line("unrelated writes", "at %.0f MB/s of WAL the slot lags by %.2f MB (at most %.2f; a bare loop %.2f, %.2f) and has caught up %.0f ms later (%.0f)",
			f.WAL, f.Lag/1e6, f.LagMax/1e6, f.FloorLag/1e6, f.FloorLagMax/1e6, f.CatchUp, f.FloorCatchUp)
	}
	if r.HeldLagMax != nil {
		line("all receivers dead", "the slot lagged by %.1f MB at most while %d events arrived in %.1f s; peak memory %.0f MB", float64(*r.HeldLagMax)/1e6, r.DeadEvents, *r.HeldSeconds, *r.HeldPeakRSS)
	}
	return t.String()
}
