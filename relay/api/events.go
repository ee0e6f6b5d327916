package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/relay/admin"
)

type triggerBody struct {
	EventType     *string          `json:"event_type,omitempty" required:"true" minLength:"1" maxLength:"255" doc:"Dotted name, as patient.created"`
	EventData     json.RawMessage  `json:"event_data,omitempty" doc:"Any JSON, delivered with every number as it was written; {} is the default"`
	Key           Nullable[string] `json:"key,omitempty" maxLength:"1024" doc:"Ordering key, usually the aggregate's id"`
	Source        Nullable[string] `json:"source,omitempty" maxLength:"255"`
	CorrelationID Nullable[string] `json:"correlation_id,omitempty" maxLength:"255"`
	Headers       *StringMap       `json:"headers,omitempty" doc:"Metadata carried along, as traceparent"`
	Tenant        *string          `json:"tenant,omitempty" maxLength:"255" doc:"Whose event it is; the token's tenant is the default"`
}

type eventTypeBody struct {
	Name        *string         `json:"name,omitempty" required:"true" minLength:"1" maxLength:"255"`
	Number      Nullable[int]   `json:"number,omitempty" minimum:"0" maximum:"2147483647" doc:"For those who know types by number; unique"`
	Description *string         `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty" doc:"JSON Schema (2020-12) of event_data; null: any"`
	Validation  *string         `json:"validation,omitempty" default:"warn" enum:"warn,reject" doc:"What the API does with events that the schema does not fit"`
}

type publishedAnswer struct{ Body admin.Published }

type eventTypeAnswer struct{ Body admin.EventType }

type eventTypesAnswer struct{ Body admin.Page[admin.EventType] }

// events registers publishing and the catalogue of event types.
func (s *server) events() {
	register(s, operation{
		id: "trigger-event", method: "POST", path: "/webhooks/events/trigger", tag: tagEvents, summary: "Publish an event",
		description: "It goes through the outbox like any other: every webhook that matches gets it. event_data may have 10 MB.",
		scope:       admin.ScopePublish, status: http.StatusAccepted, body: eventBody, schema: schemaOf[triggerBody](s),
		request:  `{"event_type": "patient.created", "event_data": {"id": 42, "department": "cardiology"}, "key": "42", "source": "clinic"}`,
		response: `{"event_id": "019c0b0e-7a30-7e5d-8c5a-0f2f4c7e1a11", "event_type": "patient.created"}`,
	}, s.trigger)
	register(s, operation{
		id: "list-event-types", method: "GET", path: "/event-types", tag: tagEvents, summary: "List event types",
		scope: admin.ScopeRead, errors: []int{http.StatusUnprocessableEntity},
	}, func(ctx context.Context, c *call, in *PageInput) (*eventTypesAnswer, error) {
		page, err := c.desk.EventTypes(ctx, in.Limit, in.Cursor)
		return &eventTypesAnswer{page}, err
	})
	register(s, operation{
		id: "create-event-type", method: "POST", path: "/event-types", tag: tagEvents, summary: "Add an event type",
		scope: admin.ScopeManage, status: http.StatusCreated, body: jsonBody, schema: schemaOf[eventTypeBody](s),
		request: `{"name": "patient.created", "number": 1, "description": "A patient was registered", "validation": "reject",
			"schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}}`,
		errors: []int{http.StatusConflict},
	}, s.createEventType)
}

func (s *server) trigger(ctx context.Context, c *call, _ *nothing) (*publishedAnswer, error) {
	var b triggerBody
	if p := decodeEvent(c.body, &b); p != nil {
		return nil, p
	}
	if b.EventType == nil {
		return nil, wrong(http.StatusUnprocessableEntity, "body.event_type", "is missing: name what happened, as in patient.created")
	}
	e := outbox.Event{
		Type: *b.EventType, Key: *orZero(b.Key.Value), Source: *orZero(b.Source.Value),
		CorrelationID: *orZero(b.CorrelationID.Value), Tenant: *orZero(b.Tenant),
	}
	if b.EventData != nil {
		e.Payload = b.EventData
	}
	if b.Headers != nil {
		e.Headers = *b.Headers
	}
	published, err := c.desk.Publish(ctx, e)
	return &publishedAnswer{published}, oversized(err, b.EventData)
}

// oversized says of data that is refused and larger than any may be that it is too large, and not that something is wrong
// with it.
func oversized(err error, data json.RawMessage) error {
	var e *admin.Error
	if len(data) <= outbox.MaxPayload || !errors.As(err, &e) || e.Kind != admin.Invalid {
		return err
	}
	p := newProblem(http.StatusRequestEntityTooLarge, "%s", e.Error())
	p.Errors = []detail{{Location: "body." + e.Field, Message: e.Message}}
	return p
}

func (s *server) createEventType(ctx context.Context, c *call, _ *nothing) (*eventTypeAnswer, error) {
	var b eventTypeBody
	if p := decodeSmall(c.body, &b); p != nil {
		return nil, p
	}
	if b.Name == nil {
		return nil, wrong(http.StatusUnprocessableEntity, "body.name", "is missing: give the dotted name, as in patient.created")
	}
	setDefault(&b.Validation, "warn")
	t := admin.EventType{Name: *b.Name, Number: b.Number.Value, Description: *orZero(b.Description), Validation: *b.Validation}
	if string(b.Schema) != "null" {
		t.Schema = b.Schema
	}
	made, err := c.desk.CreateEventType(ctx, t)
	return &eventTypeAnswer{made}, err
}
