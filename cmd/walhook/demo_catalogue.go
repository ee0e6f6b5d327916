package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// demoEventType is a row of outbox.event_types.
type demoEventType struct {
	name        string
	number      int
	description string
	validation  string // of the schema; empty: there is none
	schema      string
}

// demoEventTypes is the catalogue of what the sample application publishes, and of what it might.
func demoEventTypes() []demoEventType {
	return []demoEventType{
		{name: "patient.created", number: 10, description: "A patient was registered", validation: "warn", schema: patientSchema},
		{name: "patient.updated", number: 11, description: "A patient's data changed"},
		{name: "patient.imported", number: 12, description: "A patient came with an import from another clinic"},
		{name: "appointment.booked", number: 20, description: "An appointment was made"},
		{name: "appointment.rescheduled", number: 21, description: "An appointment was moved to another time"},
		{name: "appointment.cancelled", number: 22, description: "An appointment was called off"},
		{name: "visit.started", number: 30, description: "A patient was let in"},
		{name: "visit.finished", number: 31, description: "A visit has ended, with its diagnosis"},
		{name: "object.created", number: 40, description: "An object was created"},
		{name: "object.changed", number: 41, description: "An object was changed"},
		{name: "object.deleted", number: 42, description: "An object was deleted"},
		{name: "object.published", number: 43, description: "An object became visible to everybody concerned"},
		{name: "object.unpublished", number: 44, description: "An object was withdrawn"},
		{name: "queue.joined", number: 50, description: "A patient began to wait"},
		{name: "queue.called", number: 51, description: "A patient was called to a room"},
		{name: "payment.received", number: 60, description: "A payment came in", validation: "reject", schema: paymentSchema},
		{name: "user.login", number: 70, description: "Somebody of the staff logged in; no row is kept"},
		{name: "user.created", number: 71, description: "Somebody joined the staff"},
		{name: "system.backup_finished", number: 80, description: "A backup is complete; no row is kept"},
		{name: "system.settings_changed", number: 81, description: "A setting of the clinic's software was changed"},
	}
}

const patientSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["patient_id", "name", "birth_year"],
  "properties": {
    "patient_id": {"type": "string", "pattern": "^patient-[0-9]+$"},
    "name": {"type": "string", "minLength": 1, "maxLength": 200},
    "birth_year": {"type": "integer", "minimum": 1900, "maximum": 2100},
    "patient_type": {"enum": ["new", "returning", "transferred"]}
  }
}`

const paymentSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["patient_id", "amount", "currency"],
  "properties": {
    "patient_id": {"type": "string"},
    "amount": {"type": "number", "exclusiveMinimum": 0},
    "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    "method": {"enum": ["card", "cash", "transfer"]}
  }
}`

// catalogue writes the event types down.
func catalogue(ctx context.Context, conn *pgx.Conn, types []demoEventType) error {
	batch := &pgx.Batch{}
	for _, t := range types {
		batch.Queue(`INSERT INTO outbox.event_types (name, number, description, schema, validation)
			VALUES ($1, $2, $3, nullif($4, '')::jsonb, coalesce(nullif($5, ''), 'warn'))`, t.name, t.number, t.description, t.schema, t.validation)
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write the catalogue of event types: %w", err)
	}
	return nil
}
