package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/outbox"
)

// ownPrefix is what the types of the relay's own events begin with.
const ownPrefix = "walhook."

// Publish publishes an event as outbox.publish does, in a transaction of its own, after its type's schema was asked. A
// principal of one tenant publishes in that one, which is what an event without a tenant gets.
func (d *Desk) Publish(ctx context.Context, e outbox.Event) (Published, error) {
	if !d.who.Everywhere() {
		if e.Tenant != "" && e.Tenant != *d.who.Tenant {
			return Published{}, &Error{Kind: Forbidden, Field: "tenant",
				Message: fmt.Sprintf("the token is bound to tenant %q: leave the tenant out or give that one", *d.who.Tenant)}
		}
		e.Tenant = *d.who.Tenant
	}
	payload, err := checkEvent(&e)
	if err != nil {
		return Published{}, err
	}
	warnings, err := d.askSchema(ctx, e.Type, payload)
	if err != nil {
		return Published{}, err
	}
	id, err := outbox.Publish(ctx, d.db, e) // one statement is a transaction
	switch {
	case pgCode(err) == uniqueViolation:
		return Published{}, &Error{Kind: Conflict, Field: "id", Message: fmt.Sprintf("there is an event %s already", e.ID)}
	case err != nil:
		return Published{}, refused(err)
	}
	return Published{EventID: id, Type: e.Type, Warnings: warnings}, nil
}

// checkEvent says which field of an event is wrong, and otherwise returns its payload as JSON.
func checkEvent(e *outbox.Event) (json.RawMessage, error) {
	for _, part := range []struct {
		field string
		event outbox.Event
	}{
		{"event_type", outbox.Event{Type: e.Type}},
		{"key", outbox.Event{Type: "x", Key: e.Key}},
		{"tenant", outbox.Event{Type: "x", Tenant: e.Tenant}},
		{"source", outbox.Event{Type: "x", Source: e.Source}},
		{"correlation_id", outbox.Event{Type: "x", CorrelationID: e.CorrelationID}},
		{"headers", outbox.Event{Type: "x", Headers: e.Headers}},
		{"event_data", *e},
	} {
		if err := part.event.Validate(); err != nil {
			return nil, invalid(part.field, "%s", validationText(err))
		}
	}
	if strings.HasPrefix(e.Type, ownPrefix) {
		return nil, invalid("event_type", "%.60q is refused: types that begin with %s are the relay's own", e.Type, ownPrefix)
	}
	switch payload := e.Payload.(type) {
	case nil:
		return json.RawMessage("{}"), nil
	case json.RawMessage:
		return payload, nil
	case []byte:
		return payload, nil
	}
	payload, err := json.Marshal(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("encode the payload: %w", err)
	}
	e.Payload = json.RawMessage(payload)
	return payload, nil
}

// validationText is what outbox.Event.Validate found, without what it begins with.
func validationText(err error) string {
	return strings.TrimPrefix(err.Error(), outbox.ErrInvalid.Error()+": ")
}

// askSchema returns warnings, or the error that refuses the event, as its type wants it. A schema that cannot be used (it was
// written in SQL, or is too much for this event) warns, or refuses, as well.
func (d *Desk) askSchema(ctx context.Context, eventType string, payload []byte) ([]string, error) {
	text, rejects, err := d.typeSchema(ctx, eventType)
	if err != nil || text == "" {
		return nil, err
	}
	findings, err := d.schemas.check(text, payload)
	if err != nil {
		findings = []string{fmt.Sprintf("the schema of %s cannot be applied: %s", eventType, err)}
	}
	if rejects && len(findings) > 0 {
		return nil, invalid("event_data", "it is not as the schema of %s says: %s", eventType, strings.Join(findings, "; "))
	}
	return findings, nil
}

// pgCode is the SQLSTATE of an error; empty: it is none of Postgres.
func pgCode(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// constraintOf is the name of the constraint that an error is about; empty: of none.
func constraintOf(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.ConstraintName
	}
	return ""
}
