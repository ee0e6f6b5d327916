package stream_test

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

// The tables of the decoder's tests, by OID.
const (
	eventsOID        = 16400
	subscriptionsOID = 16500
	otherOID         = 16600
)

var tables = stream.Tables{Events: eventsOID, Subscriptions: subscriptionsOID}

// Types as in pg_type.
const (
	oidBool        = 16
	oidInt4        = 23
	oidText        = 25
	oidTextArray   = 1009
	oidTimestamptz = 1184
	oidUUID        = 2950
	oidJSONB       = 3802
)

// wire builds messages as Postgres does (PostgreSQL documentation, "Logical Replication Message Formats").
type wire []byte

func (w wire) u8(v byte) wire    { return append(w, v) }
func (w wire) u16(v int) wire    { return binary.BigEndian.AppendUint16(w, uint16(v)) }
func (w wire) u32(v int) wire    { return binary.BigEndian.AppendUint32(w, uint32(v)) }
func (w wire) u64(v uint64) wire { return binary.BigEndian.AppendUint64(w, v) }
func (w wire) str(s string) wire { return append(append(w, s...), 0) }
func (w wire) raw(b []byte) wire { return append(w, b...) }

// micros is a time as Postgres counts: microseconds since 2000.
func micros(t time.Time) uint64 {
	return uint64(t.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds())
}

// begin starts a transaction whose commit record begins at lsn.
func begin(lsn delivery.LSN, committed time.Time) []byte {
	return wire{'B'}.u64(uint64(lsn)).u64(micros(committed)).u32(742)
}

// commit ends it; the commit record ends at end.
func commit(lsn, end delivery.LSN, committed time.Time) []byte {
	return wire{'C'}.u8(0).u64(uint64(lsn)).u64(uint64(end)).u64(micros(committed))
}

// columnType is a column of an announced table.
type columnType struct {
	name string
	oid  int
}

var eventColumns = []columnType{{"id", oidUUID}, {"type", oidText}, {"payload", oidJSONB}, {"key", oidText}, {"tenant", oidText},
	{"source", oidText}, {"correlation_id", oidText}, {"headers", oidJSONB}, {"created_at", oidTimestamptz}}

var subscriptionColumns = []columnType{{"id", oidUUID}, {"tenant", oidText}, {"name", oidText}, {"event_types", oidTextArray},
	{"filters", oidJSONB}, {"ordering", oidText}, {"is_active", oidBool}, {"revision", oidInt4}}

// announce is the message that comes before a table's first row.
func announce(oid int, name string, columns []columnType) []byte {
	w := wire{'R'}.u32(oid).str("outbox").str(name).u8('f').u16(len(columns))
	for _, c := range columns {
		w = w.u8(1).str(c.name).u32(c.oid).u32(-1)
	}
	return w
}

// Values of columns that are not simply binary.
type (
	null      struct{}
	unchanged struct{}
	text      string // sent in text format
)

// tuple is a row version.
func tuple(values ...any) wire {
	w := wire{}.u16(len(values))
	for _, v := range values {
		switch v := v.(type) {
		case null:
			w = w.u8('n')
		case unchanged:
			w = w.u8('u')
		case text:
			w = w.u8('t').u32(len(v)).raw([]byte(v))
		case []byte:
			w = w.u8('b').u32(len(v)).raw(v)
		case string:
			w = w.u8('b').u32(len(v)).raw([]byte(v))
		case uuid.UUID:
			w = w.u8('b').u32(16).raw(v[:])
		case time.Time:
			w = w.u8('b').u32(8).u64(micros(v))
		case int:
			w = w.u8('b').u32(4).u32(v)
		case bool:
			w = w.u8('b').u32(1).u8(map[bool]byte{true: 1}[v])
		default:
			panic(v)
		}
	}
	return w
}

// jsonb is JSON in the binary format: a version byte and the text.
func jsonb(s string) []byte { return append([]byte{1}, s...) }

// texts is a text[] in the binary format.
func texts(all ...string) []byte {
	if len(all) == 0 {
		return wire{}.u32(0).u32(0).u32(oidText)
	}
	w := wire{}.u32(1).u32(0).u32(oidText).u32(len(all)).u32(1)
	for _, s := range all {
		w = w.u32(len(s)).raw([]byte(s))
	}
	return w
}

func insert(oid int, row wire) []byte { return wire{'I'}.u32(oid).u8('N').raw(row) }

// update carries the old row version only if there is one.
func update(oid int, old, row wire) []byte {
	w := wire{'U'}.u32(oid)
	if old != nil {
		w = w.u8('O').raw(old)
	}
	return w.u8('N').raw(row)
}

func remove(oid int, old wire) []byte { return wire{'D'}.u32(oid).u8('O').raw(old) }

// logical is what pg_logical_emit_message writes.
func logical(transactional bool, prefix, content string) []byte {
	return wire{'M'}.u8(map[bool]byte{true: 1}[transactional]).u64(99).str(prefix).u32(len(content)).raw([]byte(content))
}

// eventRow is a row of outbox.events.
func eventRow(id uuid.UUID, kind, payload string) wire {
	return tuple(id, kind, jsonb(payload), null{}, "", null{}, null{}, jsonb("{}"), createdAt)
}

// subscriptionRow is a row of outbox.subscriptions.
func subscriptionRow(id uuid.UUID, revision int, filters any, types ...string) wire {
	return tuple(id, "acme", "a name", texts(types...), filters, "key", true, revision)
}
