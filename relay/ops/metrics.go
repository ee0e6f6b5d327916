package ops

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/walhook/walhook/relay/delivery"
)

// Metrics observes a relay for Prometheus. No label carries a subscription's id, URL or anything unbounded.
type Metrics struct {
	registry      *prometheus.Registry
	events        prometheus.Counter
	deliveries    *prometheus.CounterVec
	duration      prometheus.Histogram
	sinceCommit   prometheus.Histogram
	recordTook    prometheus.Histogram
	recordSize    prometheus.Histogram
	byState       [3]prometheus.Counter
	failedReasons *prometheus.CounterVec
	roundTrip     prometheus.Gauge
}

// Lanes is what a relay's lanes hold at a moment.
type Lanes struct{ InFlight, Active, Inactive, Invalid, Circuits int }

var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// NewMetrics returns metrics with a registry of their own. lanes is asked at every scrape, lag as well, within 3 s. more are
// what only some relays have.
func NewMetrics(lanes func() Lanes, lag func(context.Context) (Lag, error), more ...prometheus.Collector) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		events:   prometheus.NewCounter(prometheus.CounterOpts{Name: "walhook_events_total", Help: "Committed events read from the stream."}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walhook_deliveries_total",
			Help: "Attempts by what followed: delivered, retried (another attempt will be made), dead (retries are exhausted)."}, []string{"outcome"}),
		duration:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "walhook_delivery_duration_seconds", Help: "Duration of an attempt.", Buckets: seconds}),
		sinceCommit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "walhook_commit_to_delivery_seconds", Help: "From the event's commit to its successful delivery.", Buckets: seconds}),
		recordTook:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "walhook_record_duration_seconds", Help: "Duration of a record transaction.", Buckets: seconds}),
		recordSize: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "walhook_record_batch_size", Help: "Attempts in a record transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8)}),
		roundTrip:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "walhook_heartbeat_seconds", Help: "Duration of the last heartbeat's way through the WAL, from before its commit until the stream yielded it."}),
		failedReasons: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walhook_failures_total", Help: "Failed attempts by reason."}, []string{"reason"}),
	}
	m.byState[delivery.Delivered] = m.deliveries.WithLabelValues("delivered")
	m.byState[delivery.Waiting] = m.deliveries.WithLabelValues("retried")
	m.byState[delivery.Dead] = m.deliveries.WithLabelValues("dead")
	m.registry.MustRegister(m.events, m.deliveries, m.duration, m.sinceCommit, m.recordTook, m.recordSize, m.failedReasons, m.roundTrip,
		lanesCollector(lanes), lagCollector(lag),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(more...)
	return m
}

// Registry holds the metrics.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Event counts an event.
func (m *Metrics) Event() { m.events.Inc() }

// Attempt counts an attempt.
func (m *Metrics) Attempt(_ *delivery.Settings, o *delivery.Outcome, next delivery.State, sinceCommit time.Duration) {
	m.byState[next].Inc()
	m.duration.Observe(o.Duration.Seconds())
	if o.Succeeded() {
		m.sinceCommit.Observe(sinceCommit.Seconds())
	} else {
		m.failedReasons.WithLabelValues(string(o.Reason)).Inc()
	}
}

// Recorded observes a record transaction.
func (m *Metrics) Recorded(attempts int, took time.Duration) {
	m.recordSize.Observe(float64(attempts))
	m.recordTook.Observe(took.Seconds())
}

// Heartbeat notes how long a heartbeat took through the WAL.
func (m *Metrics) Heartbeat(roundTrip time.Duration) { m.roundTrip.Set(roundTrip.Seconds()) }

// gauge is a value read at scrape time.
type gauge[T any] struct {
	desc  *prometheus.Desc
	value func(T) (float64, bool)
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("walhook_"+name, help, labels, nil)
}

type lanesCollector func() Lanes

var (
	descInFlight      = describe("inflight_deliveries", "Attempts under way.")
	descSubscriptions = describe("subscriptions", "Subscriptions by state: active, inactive, invalid.", "state")
	descCircuits      = describe("circuit_open", "Subscriptions whose circuit is open.")
)

func (lanesCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descInFlight
	ch <- descSubscriptions
	ch <- descCircuits
}

func (c lanesCollector) Collect(ch chan<- prometheus.Metric) {
	l := c()
	put := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	put(descInFlight, l.InFlight)
	put(descSubscriptions, l.Active, "active")
	put(descSubscriptions, l.Inactive, "inactive")
	put(descSubscriptions, l.Invalid, "invalid")
	put(descCircuits, l.Circuits)
}

type lagCollector func(context.Context) (Lag, error)

var lagGauges = []gauge[Lag]{
	{desc: describe("replication_lag_bytes", "WAL between the server's position and the slot's confirmed one."), value: func(l Lag) (float64, bool) { return optional(l.LagBytes) }},
	{desc: describe("replication_lag_seconds", "Age of the oldest committed event that is not recorded yet."), value: func(l Lag) (float64, bool) { return l.LagSeconds, true }},
	{desc: describe("slot_retained_bytes", "WAL that the slot makes the server keep."), value: func(l Lag) (float64, bool) { return optional(l.RetainedBytes) }},
	{desc: describe("slot_safe_bytes", "WAL that may still be written before the slot is lost; 0 when it is, +Inf without max_slot_wal_keep_size."), value: func(l Lag) (float64, bool) {
		if l.WALStatus == "lost" {
			return 0, true // Postgres says nothing of a lost slot, as if no limit were set
		}
		if l.SafeBytes == nil {
			return math.Inf(1), true
		}
		return optional(l.SafeBytes)
	}},
	{desc: describe("slot_active", "1 when a relay reads the slot."), value: func(l Lag) (float64, bool) {
		if l.Active {
			return 1, true
		}
		return 0, true
	}},
	{desc: describe("checkpoint_lsn", "The recorded position, in bytes of WAL."), value: func(l Lag) (float64, bool) { return float64(l.CheckpointBytes), true }},
	{desc: describe("queue_depth", "Deliveries that wait in the queue."), value: func(l Lag) (float64, bool) { return float64(l.QueueDepth), true }},
	{desc: describe("queue_oldest_seconds", "Age of the oldest event in the queue, since its commit."), value: func(l Lag) (float64, bool) { return l.OldestPendingSeconds, true }},
	{desc: describe("dead_letters", "Dead letters kept."), value: func(l Lag) (float64, bool) { return float64(l.DeadLetters), true }},
}

func optional(n *int64) (float64, bool) {
	if n == nil {
		return 0, false
	}
	return float64(*n), true
}

func (lagCollector) Describe(ch chan<- *prometheus.Desc) { describeGauges(ch, lagGauges) }

// Collect leaves the gauges out when Postgres does not answer: an absent value alerts, an old one lies.
func (c lagCollector) Collect(ch chan<- prometheus.Metric) { collectGauges(ch, lagGauges, c) }

func describeGauges[T any](ch chan<- *prometheus.Desc, gauges []gauge[T]) {
	for _, g := range gauges {
		ch <- g.desc
	}
}

// scrapeTimeout bounds what one scrape asks of Postgres.
const scrapeTimeout = 3 * time.Second

func collectGauges[T any](ch chan<- prometheus.Metric, gauges []gauge[T], read func(context.Context) (T, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	seen, err := read(ctx)
	if err != nil {
		return
	}
	for _, g := range gauges {
		if v, ok := g.value(seen); ok {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, v)
		}
	}
}
