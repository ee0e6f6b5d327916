package admin_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/relay/admin"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	published, err := o.desk().Publish(t.Context(), outbox.Event{Type: "patient.created", Payload: raw(`{"n": 1.10}`), Key: "k", Tenant: "a",
		Source: "s", CorrelationID: "c", Headers: map[string]string{"traceparent": "x"}})
	require.NoError(t, err)
	require.Equal(t, "patient.created", published.Type)
	require.Empty(t, published.Warnings)
	e, _, err := o.desk("a").Event(t.Context(), published.EventID)
	require.NoError(t, err)
	require.Equal(t, admin.Event{ID: published.EventID, Type: "patient.created", Payload: `{"n": 1.10}`, Key: ptr("k"), Tenant: "a", Source: ptr("s"),
		CorrelationID: ptr("c"), Headers: `{"traceparent": "x"}`, CreatedAt: e.CreatedAt}, e)

	own, err := o.desk("a").Publish(t.Context(), outbox.Event{Type: "x"})
	require.NoError(t, err)
	require.Equal(t, "a", o.text(t, "SELECT tenant FROM outbox.events WHERE id = $1", own.EventID))
	_, err = o.desk("a").Publish(t.Context(), outbox.Event{Type: "x", Tenant: "a"})
	require.NoError(t, err)
	_, err = o.desk("a").Publish(t.Context(), outbox.Event{Type: "x", Tenant: "b"})
	requireError(t, err, admin.Forbidden, "tenant")
	_, err = o.desk("").Publish(t.Context(), outbox.Event{Type: "x", Tenant: "b"})
	requireError(t, err, admin.Forbidden, "tenant")

	chosen := outbox.Event{ID: uuid.Must(uuid.NewV7()), Type: "x", Payload: map[string]int{"a": 1}}
	published, err = o.desk().Publish(t.Context(), chosen)
	require.NoError(t, err)
	require.Equal(t, chosen.ID, published.EventID)
	_, err = o.desk().Publish(t.Context(), chosen)
	requireError(t, err, admin.Conflict, "id")
	require.Equal(t, "4", o.text(t, "SELECT count(*)::text FROM outbox.events"))
}

func TestEventsThatAreRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	long := strings.Repeat("x", 1025)
	for _, c := range []struct {
		field string
		event outbox.Event
	}{
		{"event_type", outbox.Event{}},
		{"event_type", outbox.Event{Type: "a b"}},
		{"event_type", outbox.Event{Type: "walhook.alert.slot_lag"}},
		{"key", outbox.Event{Type: "x", Key: long}},
		{"tenant", outbox.Event{Type: "x", Tenant: long}},
		{"source", outbox.Event{Type: "x", Source: "\x00"}},
		{"correlation_id", outbox.Event{Type: "x", CorrelationID: "\xff"}},
		{"headers", outbox.Event{Type: "x", Headers: map[string]string{"a": "\x00"}}},
		{"event_data", outbox.Event{Type: "x", Payload: raw(`{`)}},
		{"event_data", outbox.Event{Type: "x", Payload: raw(`"\u0000"`)}},
		{"event_data", outbox.Event{Type: "x", Payload: raw(`1e999999999`)}},
		{"event_data", outbox.Event{Type: "x", Payload: raw(`"` + strings.Repeat("x", outbox.MaxPayload) + `"`)}},
		{"event_data", outbox.Event{Type: "x", Payload: func() {}}},
		{"event_data", outbox.Event{Type: "x", Payload: raw(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000))}},
	} {
		_, err := o.desk().Publish(t.Context(), c.event)
		e := requireError(t, err, admin.Invalid, c.field)
		require.Less(t, len(e.Message), 500)
		require.NotContains(t, e.Message, "invalid event")
	}
}

// Warn publishes and tells, reject refuses; both name what is wrong and where, and never what is there instead.
func TestSchemasArePublishedAgainst(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for _, validation := range []string{"warn", "reject"} {
		_, err := o.desk().CreateEventType(t.Context(), admin.EventType{Name: validation, Validation: validation,
			Schema: raw(`{"type": "object", "required": ["id"], "properties": {"id": {"const": 9007199254740993}}}`)})
		require.NoError(t, err)
	}
	publish := func(kind, payload string) (admin.Published, error) {
		return o.desk("a").Publish(t.Context(), outbox.Event{Type: kind, Payload: raw(payload)})
	}
	for _, kind := range []string{"warn", "reject", "unknown"} {
		p, err := publish(kind, `{"id": 9007199254740993, "ssn": "`+canary+`"}`)
		require.NoError(t, err)
		require.Empty(t, p.Warnings)
	}
	p, err := publish("warn", `{"id": 9007199254740992, "ssn": "`+canary+`"}`)
	require.NoError(t, err, "the last digit is lost in a float64, but not here")
	require.Equal(t, []string{"at /id: value must be 9007199254740993"}, p.Warnings)
	_, err = publish("reject", `{"id": "`+canary+`"}`)
	require.Contains(t, requireError(t, err, admin.Invalid, "event_data").Message, "at /id")
	_, err = o.desk().Publish(t.Context(), outbox.Event{Type: "reject"})
	require.Contains(t, requireError(t, err, admin.Invalid, "event_data").Message, "missing property 'id'", "no payload is {}")
	require.Equal(t, "4", o.text(t, "SELECT count(*)::text FROM outbox.events"))

	// A schema that was written in SQL and cannot be used.
	o.exec(t, `UPDATE outbox.event_types SET schema = '{"$ref": "file:///etc/passwd"}'`)
	p, err = publish("warn", `{}`)
	require.NoError(t, err)
	require.Len(t, p.Warnings, 1)
	require.Contains(t, p.Warnings[0], "outside the schema")
	_, err = publish("reject", `{}`)
	requireError(t, err, admin.Invalid, "event_data")
	o.exec(t, `UPDATE outbox.event_types SET schema = NULL`)
	_, err = publish("reject", `{}`)
	require.NoError(t, err)
}
