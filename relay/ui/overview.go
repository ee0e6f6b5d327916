package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// chartedFor is how far back the charts go.
const chartedFor = time.Hour

func (u *UI) overviewRoutes() []route {
	return []route{
		{pattern: "GET /{$}", scope: admin.ScopeRead, handle: u.overview},
		{pattern: "GET /overview/live", scope: admin.ScopeRead, handle: u.overviewLive},
		{pattern: "GET /overview/history", scope: admin.ScopeRead, handle: u.overviewHistory},
	}
}

// overview is what the first page shows of now.
type overview struct {
	Pulse    admin.Pulse
	Slots    []admin.Replication // none for one tenant
	Alerts   []admin.Alert
	Webhooks admin.WebhookCounts
	Charts   []chart

	looks int
}

// Oldest is how long the oldest delivery has waited, in seconds; nil: unknown.
func (o *overview) Oldest() *float64 {
	if len(o.Slots) == 0 {
		return nil
	}
	return &o.Slots[0].OldestPendingSeconds
}

// MoreAlerts reports that only the latest alerts are listed.
func (o *overview) MoreAlerts() bool { return len(o.Alerts) == admin.MaxAlerts }

// chart is one of the charts, which charts.js draws. What a series shows is a field of admin.Pulse, or how fast it grows.
type chart struct {
	ID, Title, Label, Unit string // unit: rate, bytes, seconds or count
	Series                 []series
}

type series struct {
	Field, Label, Class string
	Rate                bool
}

// charts are those that somebody may see: the lag and the commits concern the whole system.
func charts(everywhere bool) []chart {
	delivered := series{"succeeded", text("chart.delivered"), "two", true}
	throughput := chart{"throughput", text("chart.throughput"), text("chart.throughput.label"), "rate", []series{delivered}}
	if everywhere {
		throughput.Series = []series{{"events", text("chart.committed"), "one", true}, delivered}
	}
	all := []chart{
		throughput,
		{"failures", text("chart.failures"), text("chart.failures.label"), "rate", []series{{"failed", text("chart.failed"), "three", true}}},
		{"queue", text("chart.queue"), text("chart.queue.label"), "count", []series{{"queue_depth", text("chart.waiting"), "one", false}}},
	}
	if !everywhere {
		return all
	}
	return append(all,
		chart{"lag-bytes", text("chart.lag_bytes"), text("chart.lag_bytes.label"), "bytes", []series{{"lag_bytes", text("chart.lag"), "one", false}}},
		chart{"lag-seconds", text("chart.lag_seconds"), text("chart.lag_seconds.label"), "seconds", []series{{"lag_seconds", text("chart.lag"), "one", false}}},
	)
}

func (u *UI) overview(w http.ResponseWriter, v *visit) error {
	o := &overview{Charts: charts(v.who.Everywhere())}
	if err := o.loadAll(v.Context(), v); err != nil {
		return err
	}
	return u.page(w, v, "overview", view{Title: text("nav.overview"), Section: "overview", Data: o})
}

func (u *UI) overviewLive(w http.ResponseWriter, v *visit) error {
	return u.hub.serve(w, v, "overview", u.overviewLook(v))
}

// overviewLook returns what looks for an open page. But for the first, a look is one query: mostly the pulse, now and then
// something that changes more slowly instead.
func (u *UI) overviewLook(v *visit) func(context.Context) ([]message, error) {
	var o *overview
	return func(ctx context.Context) ([]message, error) {
		if o == nil {
			first := &overview{}
			if err := first.loadAll(ctx, v); err != nil {
				return nil, err
			}
			o = first
		} else if err := o.loadNext(ctx, v); err != nil {
			return nil, err
		}
		pulse, err := json.Marshal(o.Pulse)
		if err != nil {
			return nil, fmt.Errorf("encode a pulse: %w", err)
		}
		cards, err := u.html(v, "overview", "now", o)
		return []message{{data: cards}, {name: "pulse", data: string(pulse)}}, err
	}
}

func (o *overview) loadAll(ctx context.Context, v *visit) error {
	for _, load := range []func(context.Context, *visit) error{o.loadPulse, o.loadSlots, o.loadAlerts, o.loadWebhooks} {
		if err := load(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// loadNext does what is due.
func (o *overview) loadNext(ctx context.Context, v *visit) error {
	switch o.turn(v.who.Everywhere()) {
	case "webhooks":
		return o.loadWebhooks(ctx, v)
	case "slots":
		return o.loadSlots(ctx, v)
	case "alerts":
		return o.loadAlerts(ctx, v)
	}
	return o.loadPulse(ctx, v)
}

// turn tells what the next look is at: of 30, which take a minute and a half, 21 are at the pulse.
func (o *overview) turn(everywhere bool) string {
	o.looks = (o.looks + 1) % 30
	switch {
	case o.looks == 0:
		return "webhooks"
	case o.looks%7 == 3 && everywhere:
		return "slots"
	case o.looks%7 == 6:
		return "alerts"
	}
	return "pulse"
}

func (o *overview) loadPulse(ctx context.Context, v *visit) (err error) {
	o.Pulse, err = v.desk.Pulse(ctx)
	return err
}

func (o *overview) loadSlots(ctx context.Context, v *visit) (err error) {
	if v.who.Everywhere() {
		o.Slots, err = v.desk.Replication(ctx)
	}
	return err
}

func (o *overview) loadAlerts(ctx context.Context, v *visit) (err error) {
	o.Alerts, err = v.desk.Alerts(ctx)
	return err
}

func (o *overview) loadWebhooks(ctx context.Context, v *visit) (err error) {
	o.Webhooks, err = v.desk.CountWebhooks(ctx)
	return err
}

// overviewHistory is what the charts begin with.
func (u *UI) overviewHistory(w http.ResponseWriter, v *visit) error {
	points, err := v.desk.History(v.Context(), chartedFor)
	if err != nil {
		return err
	}
	b, err := json.Marshal(points)
	if err != nil {
		return fmt.Errorf("encode the history: %w", err)
	}
	send(w, 0, "application/json", b)
	return nil
}
