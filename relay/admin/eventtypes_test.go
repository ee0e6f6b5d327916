package admin_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestEventTypes(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var want []string
	for i := range 12 {
		kind := admin.EventType{Name: fmt.Sprintf("t.%c", 'z'-i)}
		if i < 7 {
			kind.Number = ptr(i * 1000)
			want = append(want, kind.Name)
		}
		made, err := o.desk().CreateEventType(t.Context(), kind)
		require.NoError(t, err)
		require.Equal(t, "warn", made.Validation)
		require.Nil(t, made.Schema)
	}
	o.exec(t, "INSERT INTO outbox.event_types (name, number) VALUES ('T.upper', NULL), ('highest', 2147483647)")
	want = append(want, "highest", "T.upper", "t.o", "t.p", "t.q", "t.r", "t.s")
	for _, desk := range []*admin.Desk{o.desk(), o.desk("a")} {
		types, pages := all(t, func(cursor string) (admin.Page[admin.EventType], error) {
			return desk.EventTypes(t.Context(), 2, cursor)
		})
		var names []string
		for _, kind := range types {
			names = append(names, kind.Name)
		}
		require.Equal(t, want, names)
		require.Equal(t, 7, pages)
	}
	_, err := o.desk().EventTypes(t.Context(), 0, "x")
	requireError(t, err, admin.Invalid, "cursor")
}

func TestCreateEventType(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	made, err := o.desk().CreateEventType(t.Context(), admin.EventType{
		Name: "patient.created", Number: ptr(0), Description: "A patient", Schema: raw(`{"const":1.50, "type":"number"}`), Validation: "reject"})
	require.NoError(t, err)
	require.Equal(t, admin.EventType{Name: "patient.created", Number: ptr(0), Description: "A patient",
		Schema: raw(`{"type": "number", "const": 1.50}`), Validation: "reject"}, made)
	null, err := o.desk().CreateEventType(t.Context(), admin.EventType{Name: "n", Schema: raw(" null ")})
	require.NoError(t, err)
	require.Nil(t, null.Schema)

	for _, c := range []struct {
		kind  admin.Kind
		field string
		of    admin.EventType
	}{
		{admin.Conflict, "name", admin.EventType{Name: "patient.created"}},
		{admin.Conflict, "number", admin.EventType{Name: "x", Number: ptr(0)}},
		{admin.Invalid, "name", admin.EventType{}},
		{admin.Invalid, "name", admin.EventType{Name: "patient.*"}},
		{admin.Invalid, "name", admin.EventType{Name: strings.Repeat("x", 256)}},
		{admin.Invalid, "number", admin.EventType{Name: "x", Number: ptr(-1)}},
		{admin.Invalid, "number", admin.EventType{Name: "x", Number: ptr(1 << 31)}},
		{admin.Invalid, "description", admin.EventType{Name: "x", Description: strings.Repeat("x", 10241)}},
		{admin.Invalid, "description", admin.EventType{Name: "x", Description: "\x00"}},
		{admin.Invalid, "validation", admin.EventType{Name: "x", Validation: "maybe"}},
		{admin.Invalid, "schema", admin.EventType{Name: "x", Schema: raw(`{"type": "sting"}`)}},
		{admin.Invalid, "schema", admin.EventType{Name: "x", Schema: raw(`{"$ref": "file:///etc/passwd"}`)}},
		{admin.Invalid, "schema", admin.EventType{Name: "x", Schema: raw(`{`)}},
		{admin.Invalid, "schema", admin.EventType{Name: "x", Schema: raw(``)[:0]}},
	} {
		_, err := o.desk().CreateEventType(t.Context(), c.of)
		requireError(t, err, c.kind, c.field)
	}
	_, err = o.desk("a").CreateEventType(t.Context(), admin.EventType{Name: "x"})
	requireError(t, err, admin.Forbidden, "")
	require.Equal(t, "2", o.text(t, "SELECT count(*)::text FROM outbox.event_types"))
}
