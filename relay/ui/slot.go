package ui

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// How long a forecast and the doctor's findings are good for whoever asks.
const (
	forecastLasts = 30 * time.Second
	findingsLast  = 10 * time.Second
)

// slotPages are the pages on slot and relay. Forecast and doctor are asked once for all who look.
type slotPages struct {
	*UI
	forecast *shared[Forecast]
	doctor   *shared[[]Finding]
}

func (u *UI) slotRoutes() []route {
	s := &slotPages{UI: u}
	s.forecast = newShared(forecastLasts, func(ctx context.Context) (Forecast, error) { return u.Forecast(ctx) })
	s.doctor = newShared(findingsLast, func(ctx context.Context) ([]Finding, error) { return u.Doctor(ctx), nil })
	all := []route{
		{pattern: "GET /slot", handle: s.slot},
		{pattern: "GET /slot/live", handle: s.live},
		{pattern: "GET /slot/forecast", handle: s.forecastPart},
		{pattern: "GET /slot/doctor", handle: s.doctorPart},
	}
	for i := range all {
		all[i].scope, all[i].everywhere = admin.ScopeRead, true
	}
	return all
}

// slotPage is what slot.html shows.
type slotPage struct {
	Relay    State
	Slots    []admin.Replication
	Alerts   []admin.Alert
	Forecast *forecastView // nil: it could not be looked up
	Doctor   *doctorView   // nil: not asked yet
}

func (s *slotPages) slot(w http.ResponseWriter, v *visit) error {
	p, err := s.gather(v)
	if err != nil {
		return err
	}
	return s.page(w, v, "slot", view{Title: text("slot.title"), Section: "slot", Data: p})
}

// gather looks up all that the page shows but the doctor's findings, which take their time. Without a forecast there is
// still the rest.
func (s *slotPages) gather(v *visit) (slotPage, error) {
	p := slotPage{Relay: s.State()}
	var err error
	if p.Slots, err = v.desk.Replication(v.Context()); err != nil {
		return p, err
	}
	alerts, err := v.desk.Alerts(v.Context())
	if err != nil {
		return p, err
	}
	for _, a := range alerts {
		if a.WebhookID == nil {
			p.Alerts = append(p.Alerts, a)
		}
	}
	p.Forecast = s.foresee(v.Context())
	return p, nil
}

// live sends how far the relay is behind, again and again.
func (s *slotPages) live(w http.ResponseWriter, v *visit) error {
	return s.hub.serve(w, v, "slot", func(ctx context.Context) ([]message, error) {
		slots, err := v.desk.Replication(ctx)
		if err != nil {
			return nil, err
		}
		html, err := s.html(v, "slot", "live", slotPage{Relay: s.State(), Slots: slots})
		if err != nil {
			return nil, err
		}
		return []message{{data: html}}, nil
	})
}

func (s *slotPages) forecastPart(w http.ResponseWriter, v *visit) error {
	if !partial(v) {
		return s.slot(w, v)
	}
	return s.fragment(w, v, "slot", "forecast", slotPage{Forecast: s.foresee(v.Context())})
}

// foresee looks the forecast up, or the one of just now; nil: it failed, which is logged.
func (s *slotPages) foresee(ctx context.Context) *forecastView {
	f, at, err := s.forecast.get(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Warn().Err(err).Msg("the forecast for the dashboard could not be looked up")
		}
		return nil
	}
	view := newForecastView(f, at)
	return &view
}

// doctorPart shows the findings: to a page that waits for them, or in a page of their own to a browser without scripts.
func (s *slotPages) doctorPart(w http.ResponseWriter, v *visit) error {
	findings, at, err := s.doctor.get(v.Context())
	if err != nil {
		return fmt.Errorf("ask the doctor: %w", err)
	}
	found := newDoctorView(findings, at)
	if partial(v) {
		return s.fragment(w, v, "slot", "doctor", slotPage{Doctor: &found})
	}
	p, err := s.gather(v)
	if err != nil {
		return err
	}
	p.Doctor = &found
	return s.page(w, v, "slot", view{Title: text("slot.title"), Section: "slot", Data: p})
}

// partial reports that a script asks for a part of a page.
func partial(v *visit) bool { return v.Header.Get("HX-Request") == "true" }
