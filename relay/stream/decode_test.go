package stream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

var (
	createdAt   = time.Date(2026, 3, 1, 11, 59, 58, 123456000, time.UTC)
	committedAt = time.Date(2026, 3, 1, 12, 0, 0, 654321000, time.UTC)

	one   = uuid.MustParse("0190a5b2-7c3d-7000-8000-000000000001")
	two   = uuid.MustParse("0190a5b2-7c3d-7000-8000-000000000002")
	three = uuid.MustParse("0190a5b2-7c3d-7000-8000-000000000003")
)

// announced are the messages with which a stream makes its tables known.
var announced = [][]byte{
	announce(eventsOID, "events", eventColumns),
	announce(subscriptionsOID, "subscriptions", subscriptionColumns),
	announce(otherOID, "elsewhere", []columnType{{"x", oidInt4}}),
}

// decode feeds messages to a decoder and writes each item as a line.
func decode(t *testing.T, d *stream.Decoder, messages ...[]byte) []string {
	t.Helper()
	lines := []string{}
	for _, m := range messages {
		items, err := d.Decode(nil, m)
		require.NoError(t, err)
		for _, i := range items {
			require.Equal(t, committedAt, i.CommittedAt)
			lines = append(lines, line(i))
		}
	}
	return lines
}

func line(i delivery.Item) string {
	switch {
	case i.Event != nil:
		s := fmt.Sprintf("%v event %s %s %s", i.Position, i.Event.ID, i.Event.Type, i.Event.Payload)
		if i.Event.Emitted {
			s += " emitted"
		}
		return s
	case i.Change != nil && i.Change.Deleted:
		return fmt.Sprintf("%v deleted %s", i.Position, i.Change.Rule.SubscriptionID)
	case i.Change != nil:
		r := i.Change.Rule
		return fmt.Sprintf("%v changed %s to revision %d, tenant %s, %q, filters %s, ordering %s, active %t",
			i.Position, r.SubscriptionID, r.Revision, r.Tenant, r.EventTypes, r.Filters, r.Ordering, r.Active)
	}
	return fmt.Sprintf("%v end", i.Position)
}

// started is a decoder that knows the tables.
func started(t *testing.T, skip delivery.Position) *stream.Decoder {
	d := stream.NewDecoder(tables, skip)
	require.Empty(t, decode(t, d, announced...))
	return d
}

// Each sequence of messages, and the items that it yields, one a line.
func TestSequences(t *testing.T) {
	filters := jsonb(`{"department": "cardiology"}`)
	for _, c := range []struct {
		name     string
		skip     delivery.Position
		messages [][]byte
		want     []string
	}{
		{"a transaction without anything of ours is no step", delivery.Position{}, [][]byte{
			begin(0x100, committedAt), commit(0x100, 0x130, committedAt),
		}, []string{}},

		{"events and changes count together, in row order", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			insert(eventsOID, eventRow(one, "patient.created", `{"n": 1}`)),
			insert(subscriptionsOID, subscriptionRow(two, 7, filters, "patient.*", "payment.made")),
			insert(eventsOID, eventRow(three, "patient.created", `{"n": 2}`)),
			commit(0x100, 0x130, committedAt),
		}, []string{
			"0/100+1 event " + one.String() + ` patient.created {"n": 1}`,
			"0/100+2 changed " + two.String() + ` to revision 7, tenant acme, ["patient.*" "payment.made"], filters {"department": "cardiology"}, ordering key, active true`,
			"0/100+3 event " + three.String() + ` patient.created {"n": 2}`,
			"0/130+0 end",
		}},

		{"numbers keep their digits", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			insert(eventsOID, eventRow(one, "n", `{"n": 123456789012345678901234567890.10}`)),
		}, []string{"0/100+1 event " + one.String() + ` n {"n": 123456789012345678901234567890.10}`}},

		{"other tables, origins, types and truncations are passed over and not counted", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			insert(otherOID, tuple(1)), update(otherOID, nil, tuple(2)), remove(otherOID, tuple(2)),
			wire{'O'}.u64(1).str("elsewhere"), wire{'Y'}.u32(99).str("public").str("mood"), wire{'T'}.u32(1).u8(0).u32(otherOID),
			insert(eventsOID, eventRow(one, "x", `{}`)),
			commit(0x100, 0x130, committedAt),
		}, []string{"0/100+1 event " + one.String() + " x {}", "0/130+0 end"}},

		{"only inserted rows are events", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			update(eventsOID, nil, eventRow(one, "x", `{}`)),
			remove(eventsOID, eventRow(one, "x", `{}`)),
			commit(0x100, 0x130, committedAt),
		}, []string{}},

		{"an updated subscription, its large filters left alone and not sent again", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			update(subscriptionsOID, subscriptionRow(two, 7, filters, "a"), subscriptionRow(two, 8, unchanged{}, "b")),
			commit(0x100, 0x130, committedAt),
		}, []string{
			"0/100+1 changed " + two.String() + ` to revision 8, tenant acme, ["b"], filters {"department": "cardiology"}, ordering key, active true`,
			"0/130+0 end",
		}},

		{"a deleted subscription", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			remove(subscriptionsOID, subscriptionRow(two, 7, filters)),
			commit(0x100, 0x130, committedAt),
		}, []string{"0/100+1 deleted " + two.String(), "0/130+0 end"}},

		{"emitted events, between rows", delivery.Position{}, [][]byte{
			begin(0x100, committedAt),
			insert(eventsOID, eventRow(one, "x", `{}`)),
			logical(true, "outbox", `{"id": "`+two.String()+`", "type": "y", "payload": {"n": 1.10}}`),
			logical(true, "somebody else's", `{"id": "`+two.String()+`", "type": "y", "payload": {}}`),
			commit(0x100, 0x130, committedAt),
			logical(false, "outbox", `{"id": "`+three.String()+`", "type": "y", "payload": {}}`),
		}, []string{
			"0/100+1 event " + one.String() + " x {}",
			"0/100+2 event " + two.String() + ` y {"n": 1.10} emitted`,
			"0/130+0 end",
		}},

		{"what is recorded already is dropped, and counted", delivery.Position{LSN: 0x100, Index: 2}, [][]byte{
			begin(0x50, committedAt), insert(eventsOID, eventRow(one, "x", `{}`)), commit(0x50, 0x80, committedAt),
			begin(0x100, committedAt),
			insert(eventsOID, eventRow(one, "x", `{}`)),
			logical(true, "outbox", `{"id": "`+one.String()+`", "type": "y", "payload": {}}`),
			insert(eventsOID, eventRow(two, "x", `{}`)),
			commit(0x100, 0x130, committedAt),
		}, []string{"0/100+3 event " + two.String() + " x {}", "0/130+0 end"}},

		{"a whole transaction recorded already, and its neighbour that begins where it ends", delivery.Position{LSN: 0x130}, [][]byte{
			begin(0x100, committedAt), insert(eventsOID, eventRow(one, "x", `{}`)), commit(0x100, 0x130, committedAt),
			begin(0x130, committedAt), insert(eventsOID, eventRow(two, "x", `{}`)), commit(0x130, 0x160, committedAt),
		}, []string{"0/130+1 event " + two.String() + " x {}", "0/160+0 end"}},

		{"columns added, reordered and sent as text", delivery.Position{}, [][]byte{
			announce(eventsOID, "events", []columnType{{"added", oidInt4}, {"created_at", oidTimestamptz}, {"headers", oidJSONB}, {"correlation_id", oidText},
				{"source", oidText}, {"tenant", oidText}, {"key", oidText}, {"payload", oidJSONB}, {"type", oidText}, {"id", oidUUID}}),
			begin(0x100, committedAt),
			insert(eventsOID, tuple(5, text("2026-03-01 11:59:58.123456+00"), text("{}"), null{}, null{}, text(""), null{}, text(`{"n": 1}`), text("x"), text(one.String()))),
		}, []string{"0/100+1 event " + one.String() + ` x {"n": 1}`}},

		{"a lost column that is not needed", delivery.Position{}, [][]byte{
			announce(subscriptionsOID, "subscriptions", append([]columnType{}, append(subscriptionColumns[:2:2], subscriptionColumns[3:]...)...)),
			begin(0x100, committedAt),
			insert(subscriptionsOID, tuple(two, "", texts(), jsonb("{}"), "key", false, 1)),
		}, []string{"0/100+1 changed " + two.String() + ` to revision 1, tenant , [], filters {}, ordering key, active false`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, decode(t, started(t, c.skip), c.messages...))
		})
	}
}

func TestEveryFieldOfARow(t *testing.T) {
	d := started(t, delivery.Position{})
	decode(t, d, begin(0x100, committedAt))
	items, err := d.Decode(nil, insert(eventsOID, tuple(one, "patient.created", jsonb(`{"a": 1}`), "p1", "acme", "clinic", "c-7",
		jsonb(`{"traceparent": "00-1"}`), createdAt)))
	require.NoError(t, err)
	require.Equal(t, &delivery.Event{ID: one, Type: "patient.created", Payload: []byte(`{"a": 1}`), Key: "p1", Tenant: "acme",
		Source: "clinic", CorrelationID: "c-7", Headers: []byte(`{"traceparent": "00-1"}`), CreatedAt: createdAt,
		CommittedAt: committedAt, Position: delivery.Position{LSN: 0x100, Index: 1}}, items[0].Event)
}

func TestEveryFieldOfAnEmittedEvent(t *testing.T) {
	d := started(t, delivery.Position{})
	decode(t, d, begin(0x100, committedAt))
	items, err := d.Decode(nil, logical(true, "outbox", `{"id": "`+one.String()+`", "type": "patient.created", "payload": {"a":  1.0},
		"key": "p1", "tenant": "acme", "source": "clinic", "correlation_id": "c-7", "headers": {"traceparent": "00-1"},
		"created_at": "2026-03-01T11:59:58.123456Z"}`))
	require.NoError(t, err)
	require.Equal(t, &delivery.Event{ID: one, Type: "patient.created", Payload: []byte(`{"a":  1.0}`), Key: "p1", Tenant: "acme",
		Source: "clinic", CorrelationID: "c-7", Headers: []byte(`{"traceparent": "00-1"}`), CreatedAt: createdAt, Emitted: true,
		CommittedAt: committedAt, Position: delivery.Position{LSN: 0x100, Index: 1}}, items[0].Event)
}

// The server's buffers are used again for the next message, so what is kept must be a copy.
func TestItemsShareNoMemoryWithMessages(t *testing.T) {
	d := started(t, delivery.Position{})
	decode(t, d, begin(0x100, committedAt))
	for _, m := range [][]byte{
		insert(eventsOID, tuple(one, "tttt", jsonb(`"pppp"`), "kkkk", "nnnn", "ssss", "cccc", jsonb(`{"h":"hhhh"}`), createdAt)),
		logical(true, "outbox", `{"id": "`+one.String()+`", "type": "uuuu", "payload": "qqqq", "key": "llll", "tenant": "oooo", "headers": {"h":"iiii"}}`),
		insert(subscriptionsOID, subscriptionRow(two, 7, jsonb(`{"f":"ffff"}`), "eeee")),
	} {
		items, err := d.Decode(nil, m)
		require.NoError(t, err)
		before := fmt.Sprintf("%+v %+v %s", items[0].Event, items[0].Change, line(items[0]))
		for i := range m {
			m[i] = 'X'
		}
		require.Equal(t, before, fmt.Sprintf("%+v %+v %s", items[0].Event, items[0].Change, line(items[0])))
	}
}

// Times at the ends of what Postgres knows become the ends of what RFC 3339 can write.
func TestExtremeTimes(t *testing.T) {
	for wireTime, want := range map[uint64]string{
		1<<63 - 1: "9999-12-31T23:59:59.999999Z", 1 << 63: "0001-01-01T00:00:00Z", 0: "2000-01-01T00:00:00Z",
	} {
		d := started(t, delivery.Position{})
		decode(t, d, begin(0x100, committedAt))
		row := tuple(one, "x", jsonb(`{}`), null{}, "", null{}, null{}, jsonb("{}"), []byte(wire{}.u64(wireTime)))
		items, err := d.Decode(nil, insert(eventsOID, row))
		require.NoError(t, err)
		require.Equal(t, want, items[0].Event.CreatedAt.Format(time.RFC3339Nano))
	}
}

// What the relay cannot read, it refuses with the reason: it would otherwise lose events without a word.
func TestUnreadableMessages(t *testing.T) {
	without := func(columns []columnType, name string) []columnType {
		var rest []columnType
		for _, c := range columns {
			if c.name != name {
				rest = append(rest, c)
			}
		}
		return rest
	}
	badArray := wire{}.u32(2).u32(0).u32(oidText).u32(1).u32(1).u32(1).u32(1)
	for _, c := range []struct {
		name, want string
		message    []byte
	}{
		{"empty", "shorter than it says", nil},
		{"unknown", "unknown message 'S' of the replication protocol", []byte("S")},
		{"row of an unknown table", "row of a table that was not announced", insert(4711, tuple(1))},
		{"lost column of events", "table outbox.events has lost its column key", announce(eventsOID, "events", without(eventColumns, "key"))},
		{"lost column of subscriptions", "table outbox.subscriptions has lost its column filters", announce(subscriptionsOID, "subscriptions", without(subscriptionColumns, "filters"))},
		{"event without an id", "read event at 0/100+1: column id", insert(eventsOID, tuple(null{}, "x", jsonb("{}"), null{}, "", null{}, null{}, jsonb("{}"), createdAt))},
		{"event of a retyped time", "column created_at: timestamp of 3 bytes", insert(eventsOID, tuple(one, "x", jsonb("{}"), null{}, "", null{}, null{}, jsonb("{}"), "now"))},
		{"subscription of a retyped array", "column event_types: array of 2 dimensions", insert(subscriptionsOID, tuple(two, "", "", []byte(badArray), jsonb("{}"), "key", true, 1))},
		{"subscription of a textual array", "column event_types: array in format 't'", insert(subscriptionsOID, tuple(two, "", "", text("{}"), jsonb("{}"), "key", true, 1))},
		{"subscription of a retyped revision", "column revision: integer of 1 bytes", insert(subscriptionsOID, tuple(two, "", "", texts(), jsonb("{}"), "key", true, "1"))},
		{"column of an unknown kind", "column of unknown kind 'x'", insert(eventsOID, wire{}.u16(1).u8('x'))},
		{"row version of an unknown kind", "row version of unknown kind 'Q'", wire{'I'}.u32(eventsOID).u8('Q').raw(tuple(1))},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := started(t, delivery.Position{})
			decode(t, d, begin(0x100, committedAt))
			items, err := d.Decode(nil, c.message)
			require.ErrorContains(t, err, c.want)
			require.Empty(t, items)
		})
	}
}

// No message cut short is taken for a whole one, and none panics.
func TestTruncatedMessages(t *testing.T) {
	for _, c := range []struct {
		whole  []byte
		unread int // bytes at its end that say nothing to us
	}{
		{begin(0x100, committedAt), 4},
		{commit(0x100, 0x130, committedAt), 8},
		{announce(eventsOID, "events", eventColumns), 0},
		{insert(eventsOID, eventRow(one, "x", `{"n": 1}`)), 0},
		{insert(subscriptionsOID, subscriptionRow(two, 7, jsonb("{}"), "patient.*")), 0},
		{update(subscriptionsOID, subscriptionRow(two, 7, jsonb("{}")), subscriptionRow(two, 8, jsonb("{}"))), 0},
		{remove(subscriptionsOID, subscriptionRow(two, 7, jsonb("{}"))), 0},
		{logical(true, "outbox", `{"id": "`+one.String()+`", "type": "x", "payload": 1}`), 0},
	} {
		for n := range len(c.whole) - c.unread {
			d := started(t, delivery.Position{})
			if c.whole[0] != 'B' {
				decode(t, d, begin(0x100, committedAt))
			}
			items, err := d.Decode(nil, c.whole[:n])
			require.Error(t, err, "%d of %d bytes of %q", n, len(c.whole), c.whole)
			require.Empty(t, items)
		}
	}
}

// A logical message with our prefix that is no event is reported and left out; it keeps its place, so that
// positions are the same when the stream is read again, and what comes after it is delivered.
func TestMessagesThatAreNoEvents(t *testing.T) {
	id := one.String()
	for _, c := range []struct{ name, content, want string }{
		{"empty", ``, "is not JSON"},
		{"not JSON", `hello`, "is not JSON"},
		{"no object", `[1]`, "without an id"},
		{"no id", `{"type": "x", "payload": {}}`, "without an id"},
		{"id of another form", `{"id": 5, "type": "x", "payload": {}}`, "without an id"},
		{"no payload", `{"id": "` + id + `", "type": "x"}`, "payload false"},
		{"no type", `{"id": "` + id + `", "payload": {}}`, `has the type ""`},
		{"type with spaces", `{"id": "` + id + `", "type": "a b", "payload": {}}`, `has the type "a b"`},
		{"type with a pattern", `{"id": "` + id + `", "type": "a.*", "payload": {}}`, `has the type "a.*"`},
		{"type with a line break", `{"id": "` + id + `", "type": "a\r\nb", "payload": {}}`, `has the type "a\r\nb"`},
		{"NUL", `{"id": "` + id + `", "type": "x", "payload": {"a": "\u0000"}}`, `holds \u0000`},
		{"half a surrogate pair", `{"id": "` + id + `", "type": "x", "payload": "\ud800"}`, "surrogate pair"},
		{"not UTF-8", `{"id": "` + id + `", "type": "x", "payload": "` + "\xff" + `"}`, "is not UTF-8"},
		{"a number beyond numeric", `{"id": "` + id + `", "type": "x", "payload": 1e131072}`, "out of the range of type numeric"},
		{"too deep", `{"id": "` + id + `", "type": "x", "payload": ` + strings.Repeat("[", 1<<20), "nested more than 10000 deep"},
		{"too large", `{"id": "` + id + `", "type": "x", "payload": "` + strings.Repeat("x", 11<<20) + `"}`, "bytes, more than"},
		{"type too long", `{"id": "` + id + `", "type": "` + strings.Repeat("x", 256) + `", "payload": {}}`, "has the type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := started(t, delivery.Position{})
			var complaints []string
			d.Complain = func(p delivery.Position, problem string) { complaints = append(complaints, p.String()+" "+problem) }
			got := decode(t, d, begin(0x100, committedAt), logical(true, "outbox", c.content),
				insert(eventsOID, eventRow(two, "x", `{}`)), commit(0x100, 0x130, committedAt))
			require.Equal(t, []string{"0/100+2 event " + two.String() + " x {}", "0/130+0 end"}, got)
			require.Len(t, complaints, 1)
			require.Contains(t, complaints[0], "0/100+1 ")
			require.Contains(t, complaints[0], c.want)
			require.Equal(t, 1, d.Malformed)
		})
	}
}

// A position may be confirmed between transactions only.
func TestOpen(t *testing.T) {
	d := started(t, delivery.Position{LSN: 0x130})
	require.False(t, d.Open())
	decode(t, d, begin(0x100, committedAt))
	require.True(t, d.Open(), "also when the transaction is recorded already")
	decode(t, d, commit(0x100, 0x130, committedAt))
	require.False(t, d.Open())
}

// Names that never repeat, such as a type a request, must not pile up; those that do share their memory.
func TestManyNames(t *testing.T) {
	d := started(t, delivery.Position{})
	decode(t, d, begin(0x100, committedAt))
	for i := range 25_000 {
		kind := fmt.Sprintf("type.%d", i)
		items, err := d.Decode(nil, insert(eventsOID, eventRow(one, kind, `{}`)))
		require.NoError(t, err)
		require.Equal(t, kind, items[0].Event.Type)
	}
	require.LessOrEqual(t, d.Names(), 10_000)
}
