package stream

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// MessagePrefix is the prefix of the logical messages that are events.
const MessagePrefix = "outbox"

// HeartbeatPrefix is the prefix of the logical messages that only tell that the stream gets on.
const HeartbeatPrefix = "walhook.heartbeat"

// heartbeatSize bounds what is kept of such a message: anybody may write one.
const heartbeatSize = 64

// Type ids of pg_type that are read in a way of their own.
const oidJSONB = 3802

// relation is what is known of a published table: which column stands where.
type relation struct {
	table   tableKind
	columns map[string]int
	jsonb   []bool
}

type tableKind int

const (
	otherTable tableKind = iota
	eventsTable
	subscriptionsTable
)

// required names the columns without which a table cannot be read.
var required = map[tableKind][]string{
	eventsTable:        {"id", "type", "payload", "key", "tenant", "source", "correlation_id", "headers", "created_at"},
	subscriptionsTable: {"id", "tenant", "event_types", "filters", "ordering", "is_active", "revision"},
}

// Tables names the published tables by OID, so that a table of the same name is not taken for them.
type Tables struct{ Events, Subscriptions uint32 }

// Decoder turns pgoutput messages (protocol version 1, binary) into items in commit order. It is a pure
// state machine: no I/O, no clock. What it yields shares no memory with the messages.
type Decoder struct {
	tables    Tables
	skip      delivery.Position // items at or before it are known already and dropped
	relations map[uint32]*relation
	names     map[string]string // interned types and tenants

	open      bool
	begun     delivery.LSN // where the open transaction's commit record begins
	committed time.Time
	xid       uint32
	index     uint64
	passed    delivery.LSN // end of the last transaction without anything of ours

	heartbeats []string // since the last Receive

	before, after []column // reused
	// Malformed counts logical messages with our prefix that are no events; each is reported once by Complain.
	Malformed int
	Complain  func(position delivery.Position, problem string)
}

// NewDecoder returns a decoder that drops everything at or before skip.
func NewDecoder(tables Tables, skip delivery.Position) *Decoder {
	return &Decoder{tables: tables, skip: skip, relations: map[uint32]*relation{}, names: map[string]string{}, Complain: func(delivery.Position, string) {}}
}

// Open reports whether a transaction has begun and not ended.
func (d *Decoder) Open() bool { return d.open }

// Decode reads one message and appends what it yields to dst.
func (d *Decoder) Decode(dst []delivery.Item, message []byte) ([]delivery.Item, error) {
	if len(message) == 0 {
		return dst, errShort
	}
	r := reader{b: message[1:]}
	switch message[0] {
	case 'B':
		return dst, d.begin(&r)
	case 'C':
		return d.commit(dst, &r)
	case 'R':
		return dst, d.relation(&r)
	case 'M':
		return d.logical(dst, &r)
	case 'I', 'U', 'D':
		return d.row(dst, message[0], &r)
	case 'O', 'Y', 'T': // origin, type, truncate: nothing of ours
		return dst, nil
	}
	return dst, fmt.Errorf("unknown message %q of the replication protocol", message[0])
}

func (d *Decoder) begin(r *reader) error {
	d.begun, d.committed, d.xid = delivery.LSN(r.uint64()), r.time(), r.uint32()
	d.open, d.index = true, 0
	return r.err
}

func (d *Decoder) commit(dst []delivery.Item, r *reader) ([]delivery.Item, error) {
	r.take(1 + 8) // flags, and where the commit record begins
	end := delivery.Position{LSN: delivery.LSN(r.uint64())}
	if r.err != nil {
		return dst, r.err
	}
	d.open = false
	if d.index == 0 {
		// Nothing of ours, of which Postgres 14 tells all the same. It is no step of the stream: recording it would
		// make another such transaction, for ever.
		d.passed = end.LSN
		return dst, nil
	}
	if !end.After(d.skip) && !fault.Bug(fault.ReplayNotSkipped) {
		return dst, nil
	}
	fault.Point(fault.StreamCommitted)
	return append(dst, delivery.Item{Position: end, CommittedAt: d.committed}), nil
}

// relation notes what a table looks like: it comes before the table's first row, and again when it changed.
func (d *Decoder) relation(r *reader) error {
	rel := &relation{columns: map[string]int{}}
	id, namespace, name := r.uint32(), r.string(), r.string()
	switch id {
	case d.tables.Events:
		rel.table = eventsTable
	case d.tables.Subscriptions:
		rel.table = subscriptionsTable
	}
	r.byte() // replica identity
	for i := range int(r.uint16()) {
		r.byte() // flags
		rel.columns[r.string()] = i
		rel.jsonb = append(rel.jsonb, r.uint32() == oidJSONB)
		r.uint32() // type modifier
		if r.err != nil {
			break
		}
	}
	if r.err != nil {
		return r.err
	}
	for _, column := range required[rel.table] {
		if _, ok := rel.columns[column]; !ok {
			return fmt.Errorf("table %s.%s has lost its column %s: bring it back; the stream cannot get past rows written without it: if there are any, "+
				"stop the relay, delete the slot's row from outbox.checkpoint, drop the slot, run walhook init and publish what was written since again", namespace, name, column)
		}
	}
	d.relations[id] = rel
	return nil
}

// logical reads a logical message, which is an event when it has our prefix and belongs to a transaction.
func (d *Decoder) logical(dst []delivery.Item, r *reader) ([]delivery.Item, error) {
	transactional := r.byte() == 1
	at := delivery.LSN(r.uint64()) // where it stands in the WAL
	prefix := r.string()
	content := r.take(int(r.uint32()))
	if r.err != nil {
		return dst, r.err
	}
	if fault.Bug(fault.SubtransactionDelivered) && prefix == MessagePrefix && !transactional {
		d.begun, d.index, d.committed = at, 0, time.Now()
		return d.emitted(dst, content), nil
	}
	if prefix == HeartbeatPrefix && transactional && d.open && len(content) <= heartbeatSize {
		d.heartbeats = append(d.heartbeats, string(content))
	}
	if prefix != MessagePrefix || !transactional || !d.open {
		return dst, nil
	}
	return d.emitted(dst, content), nil
}

// next counts one item of the open transaction and reports whether it is new.
func (d *Decoder) next() (delivery.Position, bool) {
	d.index++
	p := delivery.Position{LSN: d.begun, Index: d.index}
	return p, p.After(d.skip) || fault.Bug(fault.ReplayNotSkipped)
}

func (d *Decoder) row(dst []delivery.Item, kind byte, r *reader) ([]delivery.Item, error) {
	rel := d.relations[r.uint32()]
	if r.err != nil {
		return dst, r.err
	}
	if rel == nil {
		return dst, fmt.Errorf("row of a table that was not announced")
	}
	if rel.table == otherTable || rel.table == eventsTable && kind != 'I' {
		return dst, nil // not ours; or rows changed and removed by somebody, which are no events
	}
	position, fresh := d.next()
	if !fresh {
		return dst, nil
	}
	if err := d.versions(kind, r); err != nil {
		return dst, err
	}
	if rel.table == eventsTable {
		e, err := d.event(rel, position)
		if err != nil {
			return dst, fmt.Errorf("read event at %v: %w", position, err)
		}
		return append(dst, delivery.Item{Position: position, Event: e, CommittedAt: d.committed}), nil
	}
	c, err := d.change(rel, kind)
	if err != nil {
		return dst, fmt.Errorf("read subscription at %v: %w", position, err)
	}
	return append(dst, delivery.Item{Position: position, Change: c, CommittedAt: d.committed}), nil
}

// versions reads the old and new row versions that a row message carries.
func (d *Decoder) versions(kind byte, r *reader) error {
	d.before, d.after = d.before[:0], d.after[:0]
	mark := r.byte()
	if mark == 'K' || mark == 'O' {
		d.before = r.tuple(d.before)
		if kind == 'D' {
			return r.err
		}
		mark = r.byte()
	}
	if r.err == nil && mark != 'N' {
		return fmt.Errorf("row version of unknown kind %q", mark)
	}
	d.after = r.tuple(d.after)
	// A large value that an update left alone is not sent again: the old version has it.
	for i := range d.after {
		if d.after[i].kind == 'u' && i < len(d.before) {
			d.after[i] = d.before[i]
		}
	}
	return r.err
}

// get returns a column by name; a missing one is null.
func (rel *relation) get(row []column, name string) column {
	if i, ok := rel.columns[name]; ok && i < len(row) {
		return row[i]
	}
	return column{kind: 'n'}
}

func (rel *relation) text(row []column, name string) []byte {
	i, ok := rel.columns[name]
	if !ok || i >= len(row) {
		return nil
	}
	return row[i].text(rel.jsonb[i])
}

func (d *Decoder) event(rel *relation, position delivery.Position) (*delivery.Event, error) {
	row := d.after
	id, err := rel.get(row, "id").uuid()
	if err != nil {
		return nil, fmt.Errorf("column id: %w", err)
	}
	created, err := rel.get(row, "created_at").timestamp()
	if err != nil {
		return nil, fmt.Errorf("column created_at: %w", err)
	}
	e := &delivery.Event{
		ID: id, CreatedAt: created, CommittedAt: d.committed, Position: position,
		Type:          d.intern(rel.text(row, "type")),
		Tenant:        d.intern(rel.text(row, "tenant")),
		Source:        d.intern(rel.text(row, "source")),
		Key:           string(rel.text(row, "key")),
		CorrelationID: string(rel.text(row, "correlation_id")),
		Payload:       append([]byte(nil), rel.text(row, "payload")...),
	}
	if h := rel.text(row, "headers"); len(h) > 2 { // more than {}
		e.Headers = append([]byte(nil), h...)
	}
	return e, nil
}

func (d *Decoder) change(rel *relation, kind byte) (*delivery.Change, error) {
	row := d.after
	if kind == 'D' {
		row = d.before
	}
	id, err := rel.get(row, "id").uuid()
	if err != nil {
		return nil, fmt.Errorf("column id: %w", err)
	}
	if kind == 'D' {
		return &delivery.Change{Rule: delivery.Rule{SubscriptionID: id}, Deleted: true}, nil
	}
	types, err := rel.get(row, "event_types").texts()
	if err != nil {
		return nil, fmt.Errorf("column event_types: %w", err)
	}
	revision, err := rel.get(row, "revision").int()
	if err != nil {
		return nil, fmt.Errorf("column revision: %w", err)
	}
	return &delivery.Change{Rule: delivery.Rule{
		SubscriptionID: id, Revision: revision, EventTypes: types,
		Tenant:   string(rel.text(row, "tenant")),
		Filters:  append([]byte(nil), rel.text(row, "filters")...),
		Ordering: delivery.Ordering(rel.text(row, "ordering")),
		Active:   rel.get(row, "is_active").bool(),
	}}, nil
}

// emitted reads a logical message written by outbox.emit. One that is no event cannot be delivered and
// must not stop the others: it is reported and left out.
func (d *Decoder) emitted(dst []delivery.Item, content []byte) []delivery.Item {
	position, fresh := d.next()
	if !fresh {
		return dst
	}
	e, err := d.message(content, position)
	if err != nil {
		d.Malformed++
		d.Complain(position, err.Error())
		return dst
	}
	return append(dst, delivery.Item{Position: position, Event: e, CommittedAt: d.committed})
}

func (d *Decoder) message(content []byte, position delivery.Position) (*delivery.Event, error) {
	if problem := unstorable(content); problem != "" {
		return nil, fmt.Errorf("logical message with prefix %q %s: use outbox.emit()", MessagePrefix, problem)
	}
	if !gjson.ValidBytes(content) {
		return nil, fmt.Errorf("logical message with prefix %q is not JSON: use outbox.emit()", MessagePrefix)
	}
	m := gjson.ParseBytes(content)
	id, err := uuid.Parse(m.Get("id").String())
	if err != nil {
		return nil, fmt.Errorf("logical message without an id: use outbox.emit(): %w", err)
	}
	kind, payload := m.Get("type").String(), m.Get("payload")
	if !validType(kind) || !payload.Exists() {
		return nil, fmt.Errorf("logical message %s has the type %.300q and payload %t: use outbox.emit()", id, kind, payload.Exists())
	}
	created, err := time.Parse(time.RFC3339, m.Get("created_at").String())
	if err != nil {
		created = d.committed
	}
	e := &delivery.Event{
		ID: id, CreatedAt: created.UTC(), CommittedAt: d.committed, Position: position, Emitted: true,
		Type: d.intern([]byte(kind)), Tenant: m.Get("tenant").String(), Source: m.Get("source").String(),
		Key: m.Get("key").String(), CorrelationID: m.Get("correlation_id").String(), Payload: []byte(payload.Raw),
	}
	if h := m.Get("headers"); h.IsObject() && len(h.Raw) > 2 {
		e.Headers = []byte(h.Raw)
	}
	return e, nil
}

// validType is what the table's CHECK constraint says of a type.
func validType(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '*' {
			return false
		}
	}
	return true
}

// intern keeps one copy of strings that repeat with every event. The table is emptied when somebody uses
// unbounded names.
func (d *Decoder) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := d.names[string(b)]; ok { // no allocation
		return s
	}
	if len(d.names) >= 10_000 {
		clear(d.names)
	}
	s := string(b)
	d.names[s] = s
	return s
}
