package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"github.com/walhook/walhook/outbox"
)

// clinicEvent is an event of the sample application, with what the receivers select by.
type clinicEvent struct {
	outbox.Event
	department string
	cents      int  // amount
	emit       bool // published with outbox.Emit, leaving no row
}

// family reports whether the type begins with one of the names.
func (e clinicEvent) family(names ...string) bool {
	family, _, _ := strings.Cut(e.Type, ".")
	for _, name := range names {
		if family == name {
			return true
		}
	}
	return false
}

// transaction is what the application does at a time, and how it ends.
type transaction struct {
	what   string
	events []clinicEvent
	undone []clinicEvent // published behind a savepoint, to which the application then returns
	rolled bool          // the whole transaction is rolled back
	batch  bool          // an import: published with outbox.PublishBatch
}

// clinic is the sample application. Its day is made up from a fixed seed.
type clinic struct {
	conn      *pgx.Conn
	options   demoOptions
	receivers []*demoReceiver
	ledger    *demoLedger
	say       *narrator
	random    *rand.Rand
	count     int // transactions so far
	patients  int
}

// openClinic connects and makes the application's own table.
func openClinic(ctx context.Context, url string, o demoOptions, receivers []*demoReceiver, ledger *demoLedger, say *narrator) (*clinic, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect the sample application: %w", err)
	}
	c := &clinic{conn: conn, options: o, receivers: receivers, ledger: ledger, say: say, random: rand.New(rand.NewPCG(1, 2))}
	_, err = conn.Exec(ctx, `CREATE SCHEMA clinic
		CREATE TABLE journal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entry text NOT NULL, at timestamptz NOT NULL DEFAULT now())`)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the sample application's table: %w", err), c.close())
	}
	return c, nil
}

func (c *clinic) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.conn.Close(ctx)
}

// work goes through the day until ctx ends or enough events are committed. A transaction that has begun is
// brought to its end, because the ledger must know which.
func (c *clinic) work(ctx context.Context) error {
	limit := rate.Inf
	if c.options.rate > 0 {
		limit = rate.Limit(c.options.rate)
	}
	pace := rate.NewLimiter(limit, 10)
	for c.options.events == 0 || c.ledger.events() < c.options.events {
		t := c.next()
		if n := len(t.events); !t.batch {
			if err := pace.WaitN(ctx, n); err != nil {
				return errors.Join(ctx.Err(), err)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.perform(context.WithoutCancel(ctx), t); err != nil {
			return fmt.Errorf("sample application: %s: %w", t.what, err)
		}
	}
	return nil
}

// perform runs one transaction: the application's own change and the events that report it.
func (c *clinic) perform(ctx context.Context, t transaction) error {
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // does nothing after Commit
	if _, err := tx.Exec(ctx, "INSERT INTO clinic.journal (entry) VALUES ($1)", t.what); err != nil {
		return err
	}
	ids, err := publishAll(ctx, tx, t)
	if err != nil {
		return err
	}
	if err := c.undo(ctx, tx, t.undone); err != nil {
		return err
	}
	if t.rolled {
		c.say.notable("rolled back", "rolled back on purpose: %s (%d events that nobody may get)", t.what, len(t.events))
		return tx.Rollback(ctx)
	}
	due := c.deliveries(t.events, ids)
	c.ledger.announce(due)
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	c.ledger.committed(len(t.events), due)
	if t.batch {
		c.say.line("committed one transaction of %d events: %s", len(t.events), t.what)
	}
	return nil
}

// publishAll publishes the events in their order and returns their ids.
func publishAll(ctx context.Context, tx pgx.Tx, t transaction) ([]uuid.UUID, error) {
	if t.batch {
		plain := make([]outbox.Event, len(t.events))
		for i, e := range t.events {
			plain[i] = e.Event
		}
		return outbox.PublishBatch(ctx, tx, plain)
	}
	ids := make([]uuid.UUID, len(t.events))
	for i, e := range t.events {
		var err error
		if e.emit {
			ids[i], err = outbox.Emit(ctx, tx, e.Event)
		} else {
			ids[i], err = outbox.Publish(ctx, tx, e.Event)
		}
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// undo publishes behind a savepoint and returns to it: these events must vanish although the transaction is
// committed.
func (c *clinic) undo(ctx context.Context, tx pgx.Tx, events []clinicEvent) error {
	if len(events) == 0 {
		return nil
	}
	savepoint, err := tx.Begin(ctx) // pgx's nested transactions are savepoints
	if err != nil {
		return err
	}
	if _, err := publishAll(ctx, savepoint, transaction{events: events}); err != nil {
		return err
	}
	c.say.notable("savepoint", "rolled back to a savepoint: %s; the rest of the transaction is committed", events[0].Type)
	return savepoint.Rollback(ctx)
}

// deliveries are what the events become.
func (c *clinic) deliveries(events []clinicEvent, ids []uuid.UUID) []uuid.UUID {
	var due []uuid.UUID
	for i, e := range events {
		for _, r := range c.receivers {
			if r.wants(e) {
				due = append(due, deliveryOf(ids[i], r))
			}
		}
	}
	return due
}

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
