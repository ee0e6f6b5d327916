package record

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// fullXID is the 64-bit id of the transaction that wrote the row e, whose xmin has the lower 32 bits: the last such id
// before $1, which is behind all that the snapshot sees. A row that is not frozen is at most 2^31 transactions old. One
// that is keeps its xmin and comes out right up to 2^32; after that it looks younger than it is, which makes it a
// candidate and no more.
const fullXID = `($1::bigint - 1 - (($1::bigint - 1 - e.xmin::text::bigint) & 4294967295))`

// What a page of events may hold beside their number: rows as Postgres stores them, and their texts, which may be
// thousands of times as large.
const (
	pageStored = 4 << 20  // bytes
	pageText   = 16 << 20 // bytes
)

// candidates is a page of the events whose transactions were not known to have ended when the old checkpoint was
// recorded. Rows of subtransactions bear ids of their own, which are larger than their transaction's, and which no
// snapshot lists once it is over: so it is all ids from the mark on, not those that the old checkpoint did not see. That is
// more than the gap holds, and what is recorded is left out by its outcome. Ids below 3 are those of a server that was
// upgraded from before Postgres 9.4 (transam.h), and old. $2 the floor, $3 the id to go on from, $4 whether that is
// done, $5 rows, $6 stored bytes.
const candidates = `WITH near AS (
		SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, %s AS committed_at, ` + fullXID + ` AS xid
		FROM outbox.events AS e
		WHERE id >= $3 AND NOT ($4 AND id = $3) AND ` + fullXID + ` >= $2 AND e.xmin::text::bigint > 2 ORDER BY id LIMIT $5),
	page AS (SELECT *, sum(pg_column_size(payload) + pg_column_size(headers)) OVER place
			- pg_column_size(payload) - pg_column_size(headers) AS before
		FROM near WINDOW place AS (ORDER BY id ROWS UNBOUNDED PRECEDING))
	SELECT id, type, payload::text, coalesce(key, ''), tenant, coalesce(source, ''), coalesce(correlation_id, ''), headers::text,
		created_at, committed_at, xid
	FROM page WHERE before < $6 ORDER BY id`

// Events returns the events behind the id after (the zero id begins) that may lie in the gap, in the order of their ids:
// at most limit, and no more than memory has room for, but none only when there are no others. Each has its
// position, so that their deliveries keep this order. Their commit times are those that Postgres kept (it does with
// track_commit_timestamp), or else when they were created. What was emitted as a logical message has no row and is not
// among them.
func (r *Recovery) Events(ctx context.Context, after uuid.UUID, limit int) ([]Candidate, error) {
	done := r.began || after != uuid.Nil // the zero id is an event's as well
	r.began = true
	if fault.Bug(fault.RecoverFromLast) && !done {
		_ = r.tx.QueryRow(ctx, "SELECT event_id FROM outbox.attempts ORDER BY event_id DESC LIMIT 1").Scan(&after)
	}
	rows, err := r.tx.Query(ctx, fmt.Sprintf(candidates, r.committed), r.next, r.floor, after, done, limit, pageStored)
	if err != nil {
		return nil, fmt.Errorf("read the events of the gap: %w", err)
	}
	defer rows.Close()
	var page []Candidate
	for bytes := 0; bytes < pageText && rows.Next(); {
		e := Candidate{Event: &delivery.Event{Position: delivery.Position{LSN: r.behind, Index: r.index + 1}}}
		err := rows.Scan(&e.ID, &e.Type, &e.Payload, &e.Key, &e.Tenant, &e.Source, &e.CorrelationID, &e.Headers, &e.CreatedAt, &e.CommittedAt, &e.XID)
		if err != nil {
			return nil, fmt.Errorf("read the events of the gap: %w", err)
		}
		e.CommittedAt = e.CommittedAt.UTC()
		r.index++
		r.minutes[minuteOf(e.CreatedAt)] += 0
		page = append(page, e)
		bytes += e.Size()
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the events of the gap: %w", err)
	}
	r.events += int64(len(page))
	return page, nil
}

// Emitted keeps events that came as logical messages and lie in the gap, as a record transaction would: at most as many as
// memory has room for. They get their positions.
func (r *Recovery) Emitted(ctx context.Context, events []Candidate) error {
	if len(events) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(events))
	for i, e := range events {
		r.index++
		e.Position = delivery.Position{LSN: r.behind, Index: r.index}
		r.minutes[minuteOf(e.CreatedAt)] += 0
		ids[i] = e.ID
	}
	// An application may have given an event's id away twice: the later one counts.
	if _, err := r.tx.Exec(ctx, "DELETE FROM outbox.emitted_events WHERE id = ANY($1)", ids); err != nil {
		return fmt.Errorf("keep emitted events: %w", err)
	}
	events = lastOfEach(events, func(e Candidate) uuid.UUID { return e.ID })
	if err := r.store.copy(ctx, emittedColumns, len(events), func(i int) { r.store.emitted(events[i].Event) }); err != nil {
		return fmt.Errorf("keep emitted events: %w", err)
	}
	r.events += int64(len(events))
	r.emitted += int64(len(events))
	return nil
}

// inOrder puts what is queued into the order of event ids, where some came as logical messages: before those that have rows.
func (r *Recovery) inOrder(ctx context.Context) error {
	if r.emitted == 0 {
		return nil
	}
	_, err := r.tx.Exec(ctx, `UPDATE outbox.deliveries d SET commit_index = $2 + o.place
		FROM (SELECT id, row_number() OVER (ORDER BY event_id, commit_index, id) AS place
			FROM outbox.deliveries WHERE commit_lsn = $1::text::pg_lsn AND commit_index > $2) AS o
		WHERE d.id = o.id`, r.behind.String(), int64(r.first))
	if err != nil {
		return fmt.Errorf("put what is recovered in order: %w", err)
	}
	return nil
}

// Alive keeps the session from being ended for its silence while the caller waits for something else.
func (r *Recovery) Alive(ctx context.Context) error {
	if _, err := r.tx.Exec(ctx, "SELECT 1"); err != nil {
		return fmt.Errorf("keep the recovery's transaction open: %w", err)
	}
	return nil
}

// rulesMargin is how long before the old checkpoint a transaction may have begun that is recorded and a candidate all the same.
const rulesMargin = 10 * time.Minute

// Revisions returns the rules that may have stood when a candidate was made, of the subscriptions that there are now, in
// their order. Each stands from its own change until the next one. Candidates from before the old checkpoint are recorded:
// they must not go by rules that are newer than its routing view.
func (r *Recovery) Revisions(ctx context.Context) ([]Revision, error) {
	ids, revisions := make([]uuid.UUID, len(r.routing)), make([]int64, len(r.routing))
	for i, rule := range r.routing {
		ids[i], revisions[i] = rule.SubscriptionID, rule.Revision
	}
	margin := r.recorded.Add(-rulesMargin)
	// What was written without triggers, as restored tables and replicas are, has left no revision. One that a restore wrote
	// has the snapshot of another cluster, whose ids say nothing here.
	rows, err := r.tx.Query(ctx, `WITH revisions AS (
			SELECT subscription_id, revision, tenant, event_types, filters, ordering, is_active, changed_at,
				CASE WHEN xid >= ended THEN ended ELSE 0 END AS ended, CASE WHEN xid >= ended THEN xid ELSE 0 END AS xid
			FROM (SELECT *, snapshot_xmin::text::bigint AS ended,
					CASE WHEN e.xmin::text::bigint > 2 THEN `+fullXID+` ELSE 0 END AS xid
				FROM outbox.subscription_revisions AS e) AS written
			UNION ALL
			SELECT id, revision, tenant, event_types, filters, ordering, is_active, updated_at, 0, 0 FROM outbox.subscriptions s
			WHERE NOT EXISTS (SELECT FROM outbox.subscription_revisions r WHERE r.revision = s.revision AND r.subscription_id = s.id)),
		rules AS (
			SELECT r.subscription_id, r.revision, r.tenant, r.event_types, r.filters::text, r.ordering, r.is_active,
				r.changed_at, r.ended, r.xid, coalesce(r.revision <= o.revision, false) AS viewed,
				lead(r.changed_at) OVER later AS until, coalesce(lead(r.ended) OVER later, 0) AS until_ended, coalesce(lead(r.xid) OVER later, 0) AS until_xid,
				coalesce(lead(r.revision <= o.revision) OVER later, false) AS until_viewed, coalesce(r.revision = o.revision, false) AS view
			FROM revisions r
			JOIN outbox.subscriptions s ON s.id = r.subscription_id
			LEFT JOIN unnest($2::uuid[], $3::bigint[]) AS o(id, revision) ON o.id = r.subscription_id
			WINDOW later AS (PARTITION BY r.subscription_id ORDER BY r.revision))
		SELECT subscription_id, revision, tenant, event_types, filters, ordering, is_active,
			changed_at, ended, xid, viewed, until, until_ended, until_xid, until_viewed
		FROM rules WHERE until IS NULL OR until > $4 OR view
		ORDER BY subscription_id, revision`, r.next, ids, revisions, margin)
	if err != nil {
		return nil, fmt.Errorf("read the rules of the gap: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Revision, error) {
		v := Revision{From: Moment{margin: margin}, To: Moment{margin: margin}}
		var filters string
		var until *time.Time
		err := row.Scan(&v.SubscriptionID, &v.Revision, &v.Tenant, &v.EventTypes, &filters, &v.Ordering, &v.Active,
			&v.From.At, &v.From.Ended, &v.From.XID, &v.From.viewed, &until, &v.To.Ended, &v.To.XID, &v.To.viewed)
		v.Filters = []byte(filters)
		if until == nil {
			v.To.At = Forever
		} else {
			v.To.At = *until
		}
		return v, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the rules of the gap: %w", err)
	}
	return all, nil
}

// Candidate is an event that may lie in the gap.
type Candidate struct {
	*delivery.Event
	XID int64 // of its transaction, or of the part of it that wrote the event
}

// FullXID is the 64-bit id of a transaction that the snapshot sees, of which the lower half is known.
func (r *Recovery) FullXID(lower uint32) int64 {
	last := r.next - 1
	return last - int64(uint32(last)-lower)
}

// Revision is the rule of a subscription as it stood from one change to before another.
type Revision struct {
	delivery.Rule
	From, To Moment
}

// Stood reports whether the rule is the one that the event goes by.
func (v *Revision) Stood(e Candidate) bool { return v.From.before(e) && !v.To.before(e) }

// Moment is when a subscription was changed.
type Moment struct {
	At    time.Time // when the transaction that did it began; Forever: it was never
	Ended int64     // every transaction with a smaller id had ended by then; 0: not known
	XID   int64     // of the transaction; 0: not known

	margin time.Time // what claims to be older goes by the old checkpoint's routing view,
	viewed bool      // which has the change
}

// before reports whether the change counts for the event. Ids tell what was over and what had not begun. Of transactions
// that overlap the commit order, which would tell, was in the stream: there the times count, which an application may choose.
func (m *Moment) before(e Candidate) bool {
	switch {
	case e.XID < m.Ended:
		return false
	case m.XID != 0 && e.XID >= m.XID:
		return true
	case e.CreatedAt.Before(m.margin):
		return m.viewed
	}
	return !e.CreatedAt.Before(m.At)
}

// Forever is later than any time that Postgres has.
var Forever = time.Unix(1<<62, 0)

// Queue makes queue rows of those of the deliveries that have no outcome yet, neither an attempt nor a row in the queue
// or among the dead letters, and returns how many. Those of a sequence are held until Commit.
func (r *Recovery) Queue(ctx context.Context, all []*delivery.Delivery) (int, error) {
	if len(all) == 0 {
		return 0, nil
	}
	known, err := r.known(ctx, all)
	if err != nil {
		return 0, err
	}
	puts := make([]Put, 0, len(all)-min(len(known), len(all)))
	for _, d := range all {
		if _, is := known[d.ID]; is {
			continue
		}
		known[d.ID] = struct{}{} // several revisions of a rule may have matched
		puts = append(puts, Put{Delivery: d, At: r.now, Held: d.Sequence != "", attempts: d.Attempts, round: d.Round})
		r.minutes[minuteOf(d.Event.CreatedAt)]++
	}
	if err := r.store.copy(ctx, deliveryColumns, len(puts), func(i int) { r.store.put(&puts[i]) }); err != nil {
		return 0, fmt.Errorf("queue recovered deliveries: %w", err)
	}
	r.deliveries += int64(len(puts))
	return len(puts), nil
}

// idMargin is how far attempts may have been made before their event's created_at, which an application may set.
const idMargin = 24 * time.Hour

// noAttempts is a time before which there are none, and which Postgres has.
var noAttempts = time.Unix(0, 0)

// known returns which of the deliveries have an outcome. Ids grow with time, so that a page's attempts lie close
// together: OFFSET 0 keeps the planner from looking every id up by itself, which would read the BRIN index for each.
func (r *Recovery) known(ctx context.Context, all []*delivery.Delivery) (map[uuid.UUID]struct{}, error) {
	ids := make([]uuid.UUID, len(all))
	first, last, earliest := all[0].ID, all[0].ID, all[0].Event.CreatedAt
	for i, d := range all {
		ids[i] = d.ID
		if string(d.ID[:]) < string(first[:]) {
			first = d.ID
		}
		if string(d.ID[:]) > string(last[:]) {
			last = d.ID
		}
		if d.Event.CreatedAt.Before(earliest) {
			earliest = d.Event.CreatedAt
		}
	}
	attempted := earliest.Add(-idMargin)
	if attempted.Before(noAttempts) {
		attempted = noAttempts
	}
	if fault.Bug(fault.RecoverRepeats) {
		attempted = r.now.Add(idMargin)
	}
	rows, err := r.tx.Query(ctx, `SELECT id FROM outbox.deliveries WHERE id = ANY($1)
		UNION ALL
		SELECT id FROM outbox.dead_letters WHERE id = ANY($1) AND id BETWEEN $2 AND $3
		UNION ALL
		SELECT delivery_id FROM (SELECT delivery_id FROM outbox.attempts
			WHERE delivery_id BETWEEN $2 AND $3 AND attempted_at >= $4 OFFSET 0) AS a
		WHERE delivery_id = ANY($1)`, ids, first, last, attempted)
	if err != nil {
		return nil, fmt.Errorf("look outcomes up: %w", err)
	}
	known := map[uuid.UUID]struct{}{}
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error { known[id] = struct{}{}; return nil })
	if err != nil {
		return nil, fmt.Errorf("look outcomes up: %w", err)
	}
	return known, nil
}

// recount writes what outbox.recorded must say of every minute with events that may lie in the gap: from now on all of
// them are recorded. It is the one statement that reads tables whole.
func (r *Recovery) recount(ctx context.Context) error {
	if len(r.minutes) == 0 {
		return nil
	}
	minutes, matched := make([]time.Time, 0, len(r.minutes)), make([]int64, 0, len(r.minutes))
	first, last := Forever, time.Time{}
	for m, n := range r.minutes {
		at := time.Unix(m, 0)
		minutes, matched = append(minutes, at), append(matched, n)
		if at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if _, err := r.tx.Exec(ctx, "SET LOCAL enable_seqscan = on"); err != nil {
		return fmt.Errorf("count the events of the gap: %w", err)
	}
	_, err := r.tx.Exec(ctx, `INSERT INTO outbox.recorded AS r (minute, events, digest, matched)
		SELECT minute, held.events, held.digest, gap.matched
		FROM unnest($1::timestamptz[], $2::bigint[]) AS gap(minute, matched)
		JOIN (SELECT date_trunc('minute', created_at, 'UTC') AS minute, count(*) AS events, sum(('x' || right(id::text, 12))::bit(48)::bigint) AS digest
			FROM (SELECT id, created_at FROM outbox.events WHERE created_at BETWEEN $3 AND $4
				UNION ALL SELECT id, created_at FROM outbox.emitted_events WHERE created_at BETWEEN $3 AND $4 AND only_for IS NULL) AS e
			GROUP BY 1) AS held USING (minute)
		ORDER BY minute
		ON CONFLICT (minute) DO UPDATE SET events = excluded.events, digest = excluded.digest, matched = r.matched + excluded.matched`,
		minutes, matched, first, last.Add(time.Minute-time.Microsecond)) // a minute later may be more than Postgres has
	if err != nil {
		return fmt.Errorf("count the events of the gap: %w", err)
	}
	return nil
}
