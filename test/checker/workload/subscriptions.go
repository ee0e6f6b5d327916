package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The number of subscriptions that there are, beside the one of bulk.
const (
	fewestSubscriptions = 5
	mostSubscriptions   = 11
)

// invalidFilter is what the relay cannot compile.
const invalidFilter = `{"amount": {"bogus": 1}}`

// filters have every operator. All but two take some events and not others.
var filters = []string{
	`{}`,
	`{"department": "cardiology"}`,
	`{"department": ["oncology", "Kinderärzte"]}`,
	`{"department": {"prefix": "card"}}`,
	`{"department": {"in": ["surgery", "radiology"]}, "vip": false}`,
	`{"amount_min": 1000}`,
	`{"amount_min": 100, "amount_max": 1500.50}`,
	`{"amount": {"gt": 250, "lt": 1750.25}}`,
	`{"amount": {"gte": 12345678901234567890}}`,
	`{"amount": {"lte": 500, "ne": 0.1}}`,
	`{"amount": {"gt": "1"}}`, // none: no number compares with a string
	`{"precise": {"eq": 9007199254740993}}`,
	`{"precise": {"exists": false}, "patient_type": "new"}`,
	`{"patient.age_min": 18, "patient.age_max": 64}`,
	`{"patient.age": {"lt": 18}}`,
	`{"patient.name": {"gte": "P300", "lt": "P700"}}`,
	`{"patient_type": {"ne": "new"}}`,
	`{"vip": true}`,
	`{"vip": {"eq": false}, "patient_type": {"in": ["new", "referred"]}}`,
	`{"referral": null}`,
	`{"referral": {"exists": true}}`,
}

// selections are values of event_types: all, prefixes, names.
var selections = [][]string{
	{},
	{"patient.*"},
	{"lab.*"},
	{"lab.result.*", "appointment.*"},
	{"invoice.issued", "invoice.paid"},
	{"patient.created", "patient.*", "system.ping"},
	{"appointment.booked", "appointment.moved", "lab.order.placed", "no.such.type"},
}

// subscription is a row that exists, as far as the next change looks at it.
type subscription struct {
	ID     uuid.UUID
	Active bool
	Broken bool // has the invalid filter
	Scheme string
}

// change is one statement on outbox.subscriptions.
type change struct {
	sql  string
	args []any
}

// settings is what a new subscription is made with.
type settings struct {
	name, tenant string
	types        []string
	filter       string
	inactive     bool
	batches      bool // for sure
}

// Prepare creates the first subscriptions, in one transaction: those that between them take every way of choosing
// events, and the one for Huge and Big, which is never changed.
func (w *Workload) Prepare(ctx context.Context) error {
	s := session{url: w.o.URL}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.close()
	random := w.stream(changerStream - 1)
	first := []settings{
		{name: "everything", batches: true},
		{name: "prefix", types: []string{"patient.*"}},
		{name: "names", types: []string{"invoice.issued", "invoice.paid"}},
		{name: "filter", filter: filters[1]},
		{name: "bounds", types: []string{"lab.*", "appointment.*"}, filter: filters[6]},
		{name: "acme", tenant: otherTenants[0]},
		{name: "globex", tenant: otherTenants[1], filter: filters[13]},
		{name: "inactive", inactive: true},
		{name: "bulk", tenant: TenantOfBulk, types: []string{"bulk.*"}, filter: fmt.Sprintf(`{"bucket": %d}`, takenBucket)},
	}
	return s.begin(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, one := range first {
			c := w.create(random, one)
			if _, err := conn.Exec(ctx, c.sql, c.args...); err != nil {
				return fmt.Errorf("create the subscription %s: %w", one.name, err)
			}
		}
		_, err := conn.Exec(ctx, "COMMIT")
		return err
	})
}

// change is the changer's life: one transaction with changes each time, until ctx ends.
func (w *Workload) change(ctx context.Context, changes int, every time.Duration) error {
	s := session{url: w.o.URL}
	defer s.close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := range changes {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		existing, err := s.subscriptions(ctx)
		if err != nil {
			return unlessOver(ctx, err)
		}
		c := changer{w, w.stream(changerStream + uint64(i)), i, existing}
		p := c.decide()
		p.number(func() int64 { return w.numbers.Add(1) })
		if _, err := w.transact(ctx, &s, p.ending, p.write(), p.apply); err != nil {
			return err
		}
	}
	return nil
}

// subscriptions reads what there is to change, which the outcome of the last transaction may have left open. It
// tries until the server answers, and leaves the session open.
func (s *session) subscriptions(ctx context.Context) ([]subscription, error) {
	for {
		if err := s.open(ctx); err != nil {
			return nil, err
		}
		rows, _ := s.conn.Query(ctx, `SELECT id, is_active AS active, filters @> $1 AS broken, signature AS scheme
			FROM outbox.subscriptions WHERE tenant <> $2 ORDER BY name, id`, invalidFilter, TenantOfBulk)
		all, err := pgx.CollectRows(rows, pgx.RowToStructByName[subscription])
		if err == nil {
			return all, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !s.explained(err) {
			return nil, fmt.Errorf("read the subscriptions: %w", err)
		}
	}
}

// changer decides on one transaction with changes.
type changer struct {
	*Workload
	random   *rand.Rand
	number   int
	existing []subscription
}

// decide makes a transaction with one change or two, among events or not, sometimes within a savepoint.
func (c *changer) decide() plan {
	p := planner{random: c.random}
	among := chance(c.random, 60)
	events := func() {
		if among {
			p.publish(c.random.IntN(4))
		}
	}
	events()
	guarded := chance(c.random, 20)
	if guarded {
		p.set()
		events()
	}
	for range pick(c.random, 1, 1, 2) {
		for _, one := range c.next() {
			p.steps = append(p.steps, step{kind: alter, change: one})
			events()
		}
	}
	if guarded {
		p.end(pick(c.random, release, rollBackTo, rollBackTo), 0)
		events()
	}
	return plan{steps: p.steps, ending: pick(c.random, commit, commit, commit, commit, commit, rollBack)}
}

// next draws a change. Some are two statements, between which there may be events.
func (c *changer) next() []change {
	if len(c.existing) == 0 {
		return []change{c.createAny()}
	}
	target := pick(c.random, c.existing...)
	roll := c.random.IntN(100)
	switch {
	case roll < 16 && len(c.existing) < mostSubscriptions:
		return []change{c.createAny()}
	case roll < 20 && len(c.existing) > fewestSubscriptions:
		return []change{remove(target.ID)}
	case roll < 24: // again under another id
		return []change{remove(target.ID), c.createAny()}
	case roll < 44:
		return []change{set(target.ID, "event_types = $2, filters = $3", pick(c.random, selections...), pick(c.random, filters...))}
	case roll < 60:
		return []change{c.switchActive(target)}
	case roll < 75:
		return []change{c.rotate(target)}
	case roll < 83:
		return []change{set(target.ID, "headers = $2", newHeaders(c.random))}
	case roll < 91:
		return []change{set(target.ID, "url = $2", c.url(target.ID)+pick(c.random, "", "/v2", "/v3?from=walhook"))}
	}
	return []change{c.breakOrMend(target)}
}

func remove(id uuid.UUID) change {
	return change{"DELETE FROM outbox.subscriptions WHERE id = $1", []any{id}}
}

func set(id uuid.UUID, columns string, values ...any) change {
	return change{"UPDATE outbox.subscriptions SET " + columns + " WHERE id = $1", append([]any{id}, values...)}
}

// createAny creates a subscription that chooses in some way, now and then an invalid one.
func (c *changer) createAny() change {
	one := settings{
		name: fmt.Sprintf("made by change %06d", c.number), types: pick(c.random, selections...),
		filter: pick(c.random, filters...), inactive: chance(c.random, 10),
	}
	if chance(c.random, 25) {
		one.tenant = pick(c.random, otherTenants...)
	}
	if chance(c.random, 10) {
		one.filter = invalidFilter
	}
	return c.create(c.random, one)
}

// switchActive switches a subscription off, or one on when two are off already.
func (c *changer) switchActive(target subscription) change {
	var off []subscription
	for _, s := range c.existing {
		if !s.Active {
			off = append(off, s)
		}
	}
	if len(off) >= 2 {
		target = pick(c.random, off...)
	}
	return set(target.ID, "is_active = $2", !target.Active)
}

// breakOrMend gives a subscription the invalid filter, or mends one that has it.
func (c *changer) breakOrMend(target subscription) change {
	for _, s := range c.existing {
		if s.Broken {
			return set(s.ID, "filters = $2", pick(c.random, filters...))
		}
	}
	return set(target.ID, "filters = $2", invalidFilter)
}

// create makes a subscription with an id of our own, because its URL has it. A few are not signed.
func (w *Workload) create(random *rand.Rand, one settings) change {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(random.Uint32())
	}
	id[6], id[8] = id[6]&15|4<<4, id[8]&63|128 // version 4
	scheme, secret := pick(random, "sha256", unsigned), (*string)(nil)
	if chance(random, 85) {
		scheme = pick(random, schemes...)
		secret = new(w.secret(random, scheme))
	}
	var limit *int
	if chance(random, 25) {
		limit = new(50 + random.IntN(450))
	}
	retries, delay := 3+random.IntN(5), 50+random.IntN(251)
	format, size, wait := pick(random, "envelope", "raw"), 1, 0
	if one.batches {
		format = "envelope"
	}
	if one.batches || format == "envelope" && chance(random, 50) { // a quarter of all
		size, wait = 2+random.IntN(19), pick(random, 0, random.IntN(101))
		if one.batches || chance(random, 80) { // later than delivery.spill_after, so that what failed together goes together
			retries, delay = 3+random.IntN(2), 600+random.IntN(401)
		}
	}
	if one.types == nil {
		one.types = []string{}
	}
	if one.filter == "" {
		one.filter = "{}"
	}
	return change{`INSERT INTO outbox.subscriptions (id, tenant, name, url, event_types, filters, headers, secret, signature,
			payload_format, ordering, max_retries, retry_delay, timeout, max_in_flight, rate_limit, is_active, batch_size, batch_wait)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::int * interval '1 ms', '3 s', $14, $15, $16, $17, $18::int * interval '1 ms')`, []any{
		id, one.tenant, one.name, w.url(id), one.types, one.filter, newHeaders(random), secret, scheme,
		format, pick(random, w.o.Orderings...), retries, delay,
		1 + random.IntN(32), limit, !one.inactive, size, wait,
	}}
}

func (w *Workload) url(id uuid.UUID) string {
	return strings.TrimSuffix(w.o.Receivers, "/") + "/s/" + id.String()
}

func newHeaders(random *rand.Rand) string {
	return pick(random, `{}`, `{}`, `{"X-Clinic": "north"}`, `{"X-Clinic": "süd", "X-Version": "2"}`)
}
