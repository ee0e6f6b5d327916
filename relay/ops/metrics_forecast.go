package ops

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

var forecastGauges = []gauge[Forecast]{
	{desc: describe("wal_bytes_per_second", "WAL that the server writes, whoever writes it."), value: func(f Forecast) (float64, bool) {
		if f.WALBytesPerSecond == nil {
			return 0, false
		}
		return *f.WALBytesPerSecond, true
	}},
	{desc: describe("slot_seconds_until_lost", "At the present rate, until max_slot_wal_keep_size takes the slot; 0 when it is lost, +Inf when it never happens, absent when unknown."),
		value: func(f Forecast) (float64, bool) { return f.Slot.gauge(f.SecondsUntilLost) }},
	{desc: describe("disk_seconds_until_full", "At the present rate, until WAL fills the server's disk; +Inf when it never happens, absent when unknown."),
		value: func(f Forecast) (float64, bool) { return f.Disk.gauge(f.SecondsUntilDiskFull) }},
}

// gauge is what a metric shows of an outlook.
func (o Outlook) gauge(seconds *float64) (float64, bool) {
	switch {
	case seconds != nil:
		return *seconds, true
	case o.Never():
		return math.Inf(1), true
	}
	return 0, false
}

type forecastCollector func(context.Context) (Forecast, error)

// NewForecastCollector returns the gauges of the forecast, which is asked for at every scrape, within 3 s: it should not
// wait for a second look.
func NewForecastCollector(read func(context.Context) (Forecast, error)) prometheus.Collector {
	return forecastCollector(read)
}

// Describe says which metrics there are.
func (forecastCollector) Describe(ch chan<- *prometheus.Desc) { describeGauges(ch, forecastGauges) }

// Collect leaves the gauges out when Postgres does not answer.
func (c forecastCollector) Collect(ch chan<- prometheus.Metric) {
	collectGauges(ch, forecastGauges, c)
}

var descState = describe("relay_state", "1 for the state that the relay is in, 0 for the others.", "state")

type stateCollector struct {
	present func() string
	known   []string
}

// NewStateCollector returns the gauge walhook_relay_state. known are the states that there are, and present is asked at
// every scrape.
func NewStateCollector(present func() string, known ...string) prometheus.Collector {
	return stateCollector{present, known}
}

// Describe says which metric there is.
func (stateCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descState }

// Collect tells of every state, so that one which was left does not seem to last.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	present, states := c.present(), c.known
	if !slices.Contains(states, present) {
		states = append(slices.Clone(states), present)
	}
	for _, state := range states {
		v := 0.0
		if state == present {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(descState, prometheus.GaugeValue, v, state)
	}
}
