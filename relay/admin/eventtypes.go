package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/outbox"
)

const (
	validationWarn   = "warn"
	validationReject = "reject"
)

func scanEventType(row pgx.CollectableRow) (t EventType, err error) {
	var schema *string
	err = row.Scan(&t.Name, &t.Number, &t.Description, &schema, &t.Validation)
	if schema != nil {
		t.Schema = json.RawMessage(*schema)
	}
	return t, err
}

// EventTypes lists all event types, by number and then by name.
func (d *Desk) EventTypes(ctx context.Context, limit int, cursor string) (Page[EventType], error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return Page[EventType]{}, err
	}
	number, name := int64(-1), ""
	if cursor != "" {
		if err := decodeCursor(cursor, &number, &name); err != nil {
			return Page[EventType]{}, err
		}
	}
	// Those without a number come last; the names are compared by bytes, whatever the database's language.
	rows, err := d.db.Query(ctx, `
SELECT name, number, description, schema::text, validation FROM outbox.event_types
WHERE (coalesce(number::bigint, $4::bigint), name COLLATE "C") > ($1::bigint, $2::text COLLATE "C")
ORDER BY coalesce(number::bigint, $4::bigint), name COLLATE "C" LIMIT $3::int`, number, name, limit+1, unnumbered)
	if err != nil {
		return Page[EventType]{}, fmt.Errorf("list event types: %w", err)
	}
	page, err := collectPage(rows, limit, scanEventType, (*EventType).size, (*EventType).cursor)
	return page, wrapped("list event types", err)
}

// cursor continues behind the type.
func (t *EventType) cursor() string {
	number := int64(unnumbered)
	if t.Number != nil {
		number = int64(*t.Number)
	}
	return encodeCursor(number, t.Name)
}

// unnumbered stands behind all numbers.
const unnumbered = math.MaxInt32 + 1

// CreateEventType adds one. Types belong to no tenant: a principal of one tenant may not (Forbidden). A name or number that is
// there already is a Conflict. Without a Validation it warns.
func (d *Desk) CreateEventType(ctx context.Context, t EventType) (EventType, error) {
	if !d.who.Everywhere() {
		return EventType{}, forbidden("event types belong to all tenants: use a token that is bound to none to create one")
	}
	if t.Validation == "" {
		t.Validation = validationWarn
	}
	if bytes.Equal(bytes.TrimSpace(t.Schema), []byte("null")) {
		t.Schema = nil
	}
	if err := t.check(); err != nil {
		return EventType{}, err
	}
	var schema *string
	if t.Schema != nil {
		text := string(t.Schema)
		schema = &text
	}
	rows, err := d.db.Query(ctx, `
INSERT INTO outbox.event_types (name, number, description, schema, validation)
VALUES ($1::text, $2::int, $3::text, $4::text::jsonb, $5::text)
RETURNING name, number, description, schema::text, validation`, t.Name, t.Number, t.Description, schema, t.Validation)
	if err != nil {
		return EventType{}, fmt.Errorf("create event type %s: %w", t.Name, err)
	}
	made, err := pgx.CollectExactlyOneRow(rows, scanEventType)
	if err != nil {
		return EventType{}, t.refusal(err)
	}
	return made, nil
}

// check says which of its values is wrong.
func (t *EventType) check() error {
	if err := (outbox.Event{Type: t.Name}).Validate(); err != nil {
		return invalid("name", "%s", validationText(err))
	}
	if t.Number != nil && (*t.Number < 0 || *t.Number > math.MaxInt32) {
		return invalid("number", "%d is refused: give 0 to %d, or none", *t.Number, math.MaxInt32)
	}
	if len(t.Description) > 10240 || !storable(t.Description) {
		return invalid("description", "it has %d bytes: give at most 10240 of UTF-8 without NUL", len(t.Description))
	}
	if t.Validation != validationWarn && t.Validation != validationReject {
		return invalid("validation", "%.60q is refused: give warn or reject", t.Validation)
	}
	if t.Schema == nil {
		return nil
	}
	if _, err := compileSchema(t.Schema); err != nil {
		return invalid("schema", "%s", err)
	}
	return nil
}

// refusal names what is there already.
func (t *EventType) refusal(err error) error {
	switch constraintOf(err) {
	case "event_types_pkey":
		return &Error{Kind: Conflict, Field: "name", Message: fmt.Sprintf("there is an event type %q already", t.Name)}
	case "event_types_number_is_unique":
		return &Error{Kind: Conflict, Field: "number", Message: fmt.Sprintf("there is an event type with the number %d already", *t.Number)}
	}
	err = refused(err)
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("create event type %s: %w", t.Name, err)
}
