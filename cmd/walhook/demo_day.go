package main

import (
	"encoding/json"
	"fmt"

	"github.com/walhook/walhook/outbox"
)

// next makes the next transaction up. Everything notable comes early, so that a short demo shows it, and
// then now and then. It never has more events than are still wanted.
func (c *clinic) next() transaction {
	n := c.count
	c.count++
	var t transaction
	switch {
	case n == 6, n%1000 == 500:
		t = c.importPatients(n)
	case n%1000 == 999:
		t = c.importPatients(n)
		t.rolled, t.what = true, t.what+", which was the wrong file"
	case n%20 == 3:
		t = c.checkOut()
		t.rolled, t.what = true, "a payment whose card was declined"
	case n%20 == 4:
		t = c.register()
		t.undone = c.checkOut().events
	case n%20 == 5:
		t = c.housekeeping()
	case n%20 == 8:
		t = c.document(n)
	case n%20 == 9:
		t = c.administration()
	case n%20 == 10 && c.options.endless():
		t = c.branch()
	default:
		t = c.ordinary()
	}
	if left := c.options.events - c.ledger.events(); c.options.events > 0 && len(t.events) > left {
		t.events = t.events[:left]
	}
	return t
}

// ordinary is what happens all day.
func (c *clinic) ordinary() transaction {
	steps := []func() transaction{c.register, c.checkIn, c.checkIn, c.checkOut, c.checkOut, c.change}
	return steps[c.random.IntN(len(steps))]()
}

func (c *clinic) register() transaction {
	c.patients++
	p, department, cause := c.patients, c.department(), c.correlation()
	return transaction{what: "a new patient with an appointment", events: []clinicEvent{
		c.event("patient.created", p, department, cause, map[string]any{"name": c.name(), "birth_year": 1930 + c.random.IntN(90), "patient_type": "new"}),
		c.event("appointment.booked", p, department, cause, map[string]any{"starts_at": "2025-03-17T09:30:00Z", "minutes": 20, "doctor": "Dr. " + c.name()}),
	}}
}

func (c *clinic) checkIn() transaction {
	p, department, cause := c.patient(), c.department(), c.correlation()
	return transaction{what: "a patient is called in", events: []clinicEvent{
		c.event("queue.called", p, department, cause, map[string]any{"number": c.random.IntN(100), "room": 1 + c.random.IntN(12)}),
		c.event("visit.started", p, department, cause, map[string]any{"patient_type": "returning", "vitals": map[string]any{"pulse": 55 + c.random.IntN(50), "temperature": json.Number("36.60")}}),
	}}
}

func (c *clinic) checkOut() transaction {
	p, department, cause := c.patient(), c.department(), c.correlation()
	paid := c.event("payment.received", p, department, cause, nil)
	paid.cents = 20_00 + c.random.IntN(2500_00)
	// Money keeps its two decimals on the whole way to the receivers.
	paid.Payload = with(paid.Payload, map[string]any{"amount": json.Number(fmt.Sprintf("%d.%02d", paid.cents/100, paid.cents%100)), "currency": "EUR", "method": "card"})
	return transaction{what: "a visit ends and is paid", events: []clinicEvent{
		c.event("visit.finished", p, department, cause, map[string]any{"minutes": 5 + c.random.IntN(40), "diagnosis": "I10"}), paid,
	}}
}

func (c *clinic) change() transaction {
	p, department, cause := c.patient(), c.department(), c.correlation()
	types := []string{"appointment.cancelled", "appointment.rescheduled", "patient.updated", "queue.joined"}
	return transaction{what: "something changes", events: []clinicEvent{
		c.event(types[c.random.IntN(len(types))], p, department, cause, map[string]any{"reason": "asked for by phone"}),
	}}
}

// housekeeping is worth telling but not worth a row: logical messages.
func (c *clinic) housekeeping() transaction {
	login := c.event("user.login", 0, "", "", map[string]any{"user": c.name(), "role": "nurse", "address": "192.0.2.17"})
	backup := c.event("system.backup_finished", 0, "", "", map[string]any{"bytes": json.Number("1234567890123"), "seconds": 17.5})
	login.emit, backup.emit = true, true
	return transaction{what: "a login and a backup", events: []clinicEvent{login, backup}}
}

// document is the life of an object. Whoever shows its title had better escape it.
func (c *clinic) document(n int) transaction {
	key := fmt.Sprintf("object-%d", n)
	types, cause := []string{"object.created", "object.changed", "object.published"}, c.correlation()
	if n%40 > 20 { // the one before is withdrawn
		key = fmt.Sprintf("object-%d", n-20)
		types = []string{"object.unpublished", "object.deleted"}
	}
	t, department := transaction{what: "a document"}, c.department()
	for _, name := range types {
		e := c.event(name, 0, department, cause, map[string]any{"object_id": key, "object_type": "document",
			"title": "Discharge letter of " + c.name() + ", <b>draft</b> <script>alert('a payload')</script>"})
		e.Key = key
		t.events = append(t.events, e)
	}
	return t
}

// administration leaves rows, unlike housekeeping.
func (c *clinic) administration() transaction {
	return transaction{what: "a new colleague", events: []clinicEvent{
		c.event("user.created", 0, "", "", map[string]any{"user": c.name(), "role": "doctor"}),
		c.event("system.settings_changed", 0, "", "", map[string]any{"setting": "opening_hours", "value": "08:00-18:00"}),
	}}
}

// branch is what another tenant does. Its events are like the others.
func (c *clinic) branch() transaction {
	t := c.register()
	t.what += " of the branch"
	for i := range t.events {
		t.events[i].Tenant = demoBranch
	}
	return t
}

// importPatients is one large transaction: hundreds or thousands of rows, and no more than a quarter of what
// was asked for.
func (c *clinic) importPatients(n int) transaction {
	size := 300
	if n > 6 {
		size = 500 + 500*c.random.IntN(3)
	}
	if c.options.events > 0 {
		size = max(1, min(size, c.options.events/4))
	}
	t := transaction{what: "an import of patients from another clinic", batch: true}
	cause := c.correlation()
	for range size {
		c.patients++
		t.events = append(t.events, c.event("patient.imported", c.patients, "", cause, map[string]any{"name": c.name(), "patient_type": "transferred"}))
	}
	return t
}

// event makes an event about a patient (none: 0), with what all of them have.
func (c *clinic) event(name string, patient int, department, correlation string, payload map[string]any) clinicEvent {
	e := clinicEvent{Event: outbox.Event{Type: name, Source: "clinic", CorrelationID: correlation,
		Headers: map[string]string{"traceparent": fmt.Sprintf("00-%016x%016x-%016x-01", c.random.Uint64(), c.random.Uint64()|1, c.random.Uint64()|1)}}}
	common := map[string]any{}
	if patient > 0 {
		e.Key = fmt.Sprintf("patient-%d", patient)
		common["patient_id"] = e.Key
	}
	if department != "" {
		e.department = department
		common["department"] = department
	}
	e.Payload = with(common, payload)
	return e
}

// with adds fields to a payload.
func with(payload any, more map[string]any) map[string]any {
	fields := payload.(map[string]any)
	for name, value := range more {
		fields[name] = value
	}
	return fields
}

func (c *clinic) correlation() string { return fmt.Sprintf("visit-%08x", c.random.Uint32()) }

func (c *clinic) patient() int { return 1 + c.random.IntN(max(1, c.patients)) }

func (c *clinic) department() string {
	return []string{"cardiology", "surgery", "paediatrics", "radiology"}[c.random.IntN(4)]
}

func (c *clinic) name() string {
	first := []string{"Ada", "Grace", "Alan", "Edsger", "Barbara", "Ken", "Radia", "Leslie"}
	last := []string{"Møller", "Nowak", "O'Hara", "García", "Çelik", "Šimić", "Tanaka", "Ivanova"}
	return first[c.random.IntN(len(first))] + " " + last[c.random.IntN(len(last))]
}
