package ui

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/relay/admin"
)

func (u *UI) eventRoutes() []route {
	return []route{
		{pattern: "GET /events", scope: admin.ScopeRead, handle: u.events},
		{pattern: "POST /events", scope: admin.ScopePublish, handle: u.publish},
		{pattern: "GET /events/{id}", scope: admin.ScopeRead, handle: u.event},
	}
}

// eventsPage is what events.html shows.
type eventsPage struct {
	Items                  []listedEvent
	Type, Key, Correlation string // what is searched for
	Filtered               bool
	Hidden                 bool   // who publishes may not look at events
	Short                  bool   // the search stopped before the page was full
	First, Next            string // paths; empty: this is the first, the last page
	Form                   publishForm
}

// listedEvent is an event in a list.
type listedEvent struct {
	admin.Event
	Start      string // of the payload
	Correlated string // path of the search for events with the same correlation id; empty: it has none
	Keyed      string // likewise for the key
}

func (u *UI) events(w http.ResponseWriter, v *visit) error {
	p, err := findEvents(v)
	if err != nil {
		return err
	}
	return u.page(w, v, "events", view{Title: text("events.title"), Section: "events", Data: p})
}

func findEvents(v *visit) (eventsPage, error) {
	query := v.URL.Query()
	p := eventsPage{
		Type: strings.TrimSpace(query.Get("type")), Key: query.Get("key"), Correlation: query.Get("correlation"),
	}
	p.Filtered = p.Type != "" || p.Key != "" || p.Correlation != ""
	cursor := query.Get("cursor")
	found, err := v.desk.Events(v.Context(), admin.EventFilter{
		Type: p.Type, Key: p.Key, CorrelationID: p.Correlation, Limit: admin.DefaultLimit, Cursor: cursor,
	})
	if err != nil {
		return p, err
	}
	for _, e := range found.Items {
		p.Items = append(p.Items, list(e))
	}
	p.Short = found.Next != "" && len(found.Items) < admin.DefaultLimit
	p.First, p.Next = pager("/events", searchFor(p.Type, p.Key, p.Correlation), cursor, found.Next)
	return p, nil
}

func list(e admin.Event) listedEvent {
	l := listedEvent{Event: e, Start: summary(e.Payload)}
	if e.CorrelationID != nil && *e.CorrelationID != "" {
		l.Correlated = withQuery("/events", searchFor("", "", *e.CorrelationID))
	}
	if e.Key != nil && *e.Key != "" {
		l.Keyed = withQuery("/events", searchFor("", *e.Key, ""))
	}
	return l
}

func searchFor(eventType, key, correlation string) url.Values {
	return given("type", eventType, "key", key, "correlation", correlation)
}

// eventPage is what event.html shows.
type eventPage struct {
	listedEvent
	Body, Meta shown // payload and headers
	HasMeta    bool
	Deliveries []listedDelivery
}

// listedDelivery is a delivery in a list.
type listedDelivery struct {
	admin.Delivery
	Badge badge
}

func (u *UI) event(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("event.word"))
	if err != nil {
		return err
	}
	e, deliveries, err := v.desk.Event(v.Context(), id)
	if err != nil {
		return err
	}
	p := eventPage{listedEvent: list(e), Body: show(e.Payload, shownWhole), Meta: show(e.Headers, shownOne)}
	p.HasMeta = e.Headers != "" && e.Headers != "{}"
	for _, d := range deliveries {
		p.Deliveries = append(p.Deliveries, listedDelivery{d, deliveryBadge(d.State)})
	}
	return u.page(w, v, "event", view{Title: e.Type, Section: "events", Data: p})
}

// publishForm is what was typed into the form, and what is wrong with it by field.
type publishForm struct {
	Type, Key, Tenant, Correlation, Data string
	Errors                               map[string]string
}

// Wrong is what is wrong with a field. What belongs to none of the form's fields is said above them, under "".
func (f publishForm) Wrong(field string) string { return f.Errors[field] }

func (u *UI) publish(w http.ResponseWriter, v *visit) error {
	f := publishForm{
		Type: strings.TrimSpace(v.PostForm.Get("type")), Key: v.PostForm.Get("key"), Tenant: v.PostForm.Get("tenant"),
		Correlation: v.PostForm.Get("correlation_id"), Data: strings.TrimSpace(v.PostForm.Get("data")),
	}
	published, err := v.desk.Publish(v.Context(), f.asEvent(v.who))
	if err != nil {
		return u.publishAgain(w, v, f, err)
	}
	notice := text("events.published", published.Type)
	if n := len(published.Warnings); n > 0 {
		notice += " " + text("events.warnings", start(strings.Join(published.Warnings, "; "), 800))
	}
	return u.done(w, v, "/events/"+published.EventID.String(), notice)
}

// asEvent is the event that was typed. A principal of one tenant publishes for that one.
func (f publishForm) asEvent(who *admin.Principal) outbox.Event {
	e := outbox.Event{Type: f.Type, Key: f.Key, Tenant: f.Tenant, CorrelationID: f.Correlation}
	if f.Data != "" {
		e.Payload = json.RawMessage(f.Data)
	}
	if who.Tenant != nil {
		e.Tenant = *who.Tenant
	}
	return e
}

// publishAgain shows the form again, with what was typed and what is wrong with it.
func (u *UI) publishAgain(w http.ResponseWriter, v *visit, f publishForm, err error) error {
	fields := map[string]string{
		"event_type": "type", "type": "type", "key": "key", "tenant": "tenant", "correlation_id": "correlation_id",
		"event_data": "data", "data": "data", "payload": "data",
	}
	if f.Errors = fieldErrors(err, fields); f.Errors == nil {
		return err
	}
	p := eventsPage{Hidden: true}
	if v.who.May(admin.ScopeRead) { // publishing takes another scope
		if p, err = findEvents(v); err != nil {
			return err
		}
	}
	p.Form = f
	return u.page(w, v, "events", view{Title: text("events.title"), Section: "events", Status: http.StatusUnprocessableEntity, Data: p})
}

// fieldErrors says what is wrong with a form by the names of its own fields; nil: it is not the form's fault.
func fieldErrors(err error, fields map[string]string) map[string]string {
	var wrong *admin.Error
	if !errors.As(err, &wrong) || wrong.Kind != admin.Invalid && wrong.Kind != admin.Conflict {
		return nil
	}
	if field, ok := fields[wrong.Field]; ok {
		return map[string]string{field: wrong.Message}
	}
	return map[string]string{"": wrong.Error()}
}
