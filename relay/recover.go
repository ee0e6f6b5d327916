package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/route"
	"github.com/walhook/walhook/relay/stream"
)

const (
	recoverPage  = 200              // events that are matched and queued at a time
	recoverTries = 3                // while a former owner still records
	slotPatience = 30 * time.Second // for Postgres to find a point without open transactions
	// How old a transaction must be to be waited for in advance, and how long it is waited for before the slot is made
	// all the same, which waits for it as well.
	inTheWayAge      = 10 * time.Second
	inTheWayPatience = 2 * time.Minute
)

// refill fills a gap in the stream: it makes a new slot, a temporary one if the old one can still be read, and in one
// transaction, under the snapshot that the slot was created with, queues what outbox.events has and nobody recorded, and
// moves the checkpoint to where the slot begins. A crash before its end leaves a slot that stands past the checkpoint,
// which is another gap, or everything as it was: it is done again. It
// returns nil when there is no gap any more, errBusy when another relay is at it, and a Problem that is no gap when it
// cannot be filled now.
func (r *Relay) refill(ctx context.Context, seen *Problem) error {
	db, err := connectGuarded(ctx, r.options.URL, 2*slotPatience)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }() // and with it goes the lock
	var mine bool
	if err := db.QueryRow(ctx, "SELECT pg_try_advisory_lock("+setupLock+")").Scan(&mine); err != nil {
		return fmt.Errorf("lock the recovery: %w", err)
	}
	if !mine {
		return fmt.Errorf("%w, making the slot", errBusy)
	}
	for range recoverTries {
		if err = r.refillOnce(ctx, db, seen); !disturbed(err) {
			break
		}
	}
	return err
}

// disturbed reports that somebody changed what the recovery builds on after its snapshot, or holds a row of it (see
// record.Recovery): it is begun again.
func disturbed(err error) bool {
	switch code(err) {
	case "40001", "23505", "55P03":
		return problemOf(err) == nil
	}
	return false
}

// refillOnce looks again, now that nobody else can be at it. What was seen first names the gap: its mending leaves
// other traces.
func (r *Relay) refillOnce(ctx context.Context, db *pgx.Conn, seen *Problem) error {
	l, err := readLook(ctx, db, r.options.Slot)
	if err != nil {
		return err
	}
	p := principal(l.problems())
	if p == nil && seen.stuck {
		p = seen
	}
	if p == nil {
		return nil // somebody was faster
	}
	if err := l.ownersMatter(p); problemOf(err) == nil || !p.Gap {
		return err
	}
	if err := r.prepare(ctx, db, p); err != nil {
		return err
	}
	err = r.fill(ctx, db, &l, seen)
	if problemOf(err) == nil && (errors.Is(err, errSlotPatience) || code(err) != "" && !disturbed(err) && !inUse(err) && !cut(err)) {
		return &Problem{Code: seen.Code, What: seen.What, Remedy: "mend what keeps the relay from recovering; it tries again by itself", Err: err}
	}
	return err
}

// cut reports whether Postgres ended the session (SQLSTATE classes 08 and 57): that mends itself.
func cut(err error) bool {
	c := code(err)
	return len(c) == 5 && (c[:2] == "08" || c[:2] == "57")
}

// errSlotPatience means that a transaction was open for as long as the new slot could be waited for.
var errSlotPatience = errors.New("making the slot took longer than 30 s: it waits for every transaction that writes")

// prepare does what a recovery needs and what does not touch the queue: it mends the publications and waits for old
// transactions, which the new slot would have to wait for. What stands in the way is a Problem that is no gap.
func (r *Relay) prepare(ctx context.Context, db *pgx.Conn, p *Problem) error {
	if err := mend(ctx, db); err != nil {
		return err
	}
	if r.gapSince.IsZero() {
		r.gapSince = time.Now()
	}
	if time.Since(r.gapSince) > inTheWayPatience {
		return nil
	}
	return inTheWay(ctx, db, p, inTheWayAge)
}

// inTheWay finds the oldest transaction that has written something, if it is older than age.
func inTheWay(ctx context.Context, db *pgx.Conn, p *Problem, age time.Duration) error {
	var who, remedy string
	err := db.QueryRow(ctx, `SELECT who, remedy FROM (
			SELECT xact_start AS since, format('process %s of Postgres (role %s, application %s)', pid, usename, application_name) AS who,
				format('SELECT pg_terminate_backend(%s)', pid) AS remedy
			FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
			UNION ALL
			SELECT prepared, format('prepared transaction %s', gid), format('ROLLBACK PREPARED %L or COMMIT PREPARED %L in database %s', gid, gid, database)
			FROM pg_prepared_xacts) AS t
		WHERE since < clock_timestamp() - make_interval(secs => $1) ORDER BY since LIMIT 1`, age.Seconds()).Scan(&who, &remedy)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for old transactions: %w", err)
	}
	return &Problem{Code: p.Code, What: p.What + "; the recovery waits for the transaction of " + who, Remedy: "let it end, or run " + remedy}
}

// fill recovers, and leaves the old slot behind only where it must: what outbox.emit wrote since the checkpoint is nowhere
// else.
func (r *Relay) fill(ctx context.Context, db *pgx.Conn, l *look, p *Problem) error {
	catalog, err := readCatalog(ctx, db, "") // as mended; what is altered from here on is noticed later
	if err != nil {
		return err
	}
	var unread error
	if l.readable() {
		if unread = r.goOn(ctx, db, l, p, &catalog); !errors.Is(unread, errUnread) {
			return unread
		}
		r.log.Warn().Err(unread).Str("slot", l.name).Msg("the slot is made anew")
	}
	if l.slot.Exists {
		if _, err := db.Exec(ctx, "SELECT pg_drop_replication_slot($1)", l.name); err != nil {
			return fmt.Errorf("drop slot %s, which cannot go on: %w", l.name, err)
		}
		fault.Point(fault.RecoverDropped)
	}
	created, err := r.create(ctx, l.name, stream.CreateSlot)
	if err != nil {
		return err
	}
	defer created.Close(context.WithoutCancel(ctx))
	return r.recover(ctx, db, created, l, p, &catalog, nil)
}

// create makes a slot, which waits for every transaction that writes, but not for ever.
func (r *Relay) create(ctx context.Context, name string, create func(ctx context.Context, url, slot string) (*stream.Created, error)) (*stream.Created, error) {
	creating, cancel := context.WithTimeoutCause(ctx, slotPatience, errSlotPatience)
	defer cancel()
	created, err := create(creating, r.options.URL, name)
	if err != nil && errors.Is(context.Cause(creating), errSlotPatience) {
		err = fmt.Errorf("%w: %w", errSlotPatience, err)
	}
	return created, err
}

// recover recovers under the snapshot that a slot was created with. Where the old slot can be read, emitted keeps and queues
// what it has up to there and outbox.events has not.
func (r *Relay) recover(ctx context.Context, db *pgx.Conn, created *stream.Created, l *look, p *Problem, catalog *catalogState,
	emitted func(*record.Recovery, *revisions) (events, deliveries int, err error)) error {
	fault.Point(fault.RecoverSlot)
	recovery, err := record.BeginRecovery(ctx, db, record.Restart{Slot: l.name, Snapshot: created.Snapshot, From: created.From,
		System: created.System.Identifier, Timeline: int(created.System.Timeline), Catalog: catalog.fingerprint(),
		Code: string(p.Code), Reason: p.What, Relay: identity(r.options.Version)})
	if err != nil {
		return err
	}
	defer recovery.Rollback()
	all, err := recovery.Revisions(ctx)
	if err != nil {
		return err
	}
	rules := newRevisions(all)
	what := "what outbox.emit wrote in between was only in the WAL and is lost"
	var rescued, queued int
	if emitted != nil {
		what = "so is what outbox.emit wrote in between, which the slot still had; the slot goes on"
		if rescued, queued, err = emitted(recovery, rules); err != nil {
			return err
		}
	}
	events, deliveries, err := refillQueue(ctx, recovery, rules)
	if err != nil {
		return err
	}
	fault.Point(fault.RecoverQueued)
	if err := recovery.Commit(ctx); err != nil {
		return err
	}
	fault.Point(fault.RecoverCommitted)
	r.gapEnded()
	r.log.Warn().Str("code", string(p.Code)).Str("reason", p.What).Stringer("from", recovery.Checkpoint().Position.LSN).Stringer("to", created.From).
		Int("events", events+rescued).Int("emitted", rescued).Int("deliveries", deliveries+queued).
		Msg("the stream had a gap: what outbox.events has and nobody recorded is queued; " + what)
	return nil
}

// refillQueue pages through the events that may be missing and queues their deliveries.
func refillQueue(ctx context.Context, recovery *record.Recovery, rules *revisions) (events, deliveries int, err error) {
	for after := uuid.Nil; ; {
		page, err := recovery.Events(ctx, after, recoverPage)
		if err != nil || len(page) == 0 {
			return events, deliveries, err
		}
		var missing []*delivery.Delivery
		for _, e := range page {
			missing = append(missing, rules.match(e)...)
		}
		n, err := recovery.Queue(ctx, missing)
		if err != nil {
			return events, deliveries, err
		}
		events, deliveries, after = events+len(page), deliveries+n, page[len(page)-1].ID
	}
}

// revisions matches events with the rules that stood when they were made.
type revisions struct {
	table *route.Table // of revisions, each under an id of its own
	of    map[uuid.UUID]record.Revision
}

func newRevisions(all []record.Revision) *revisions {
	r := &revisions{table: route.New(), of: make(map[uuid.UUID]record.Revision, len(all))}
	for i, revision := range all {
		var id uuid.UUID
		binary.BigEndian.PutUint64(id[8:], uint64(i))
		r.of[id] = revision
		rule := revision.Rule
		rule.SubscriptionID = id
		_ = r.table.Put(rule) // one that does not compile matches nothing, as it did when it was new
	}
	return r
}

// match makes the event's deliveries.
func (r *revisions) match(e record.Candidate) []*delivery.Delivery {
	var few [8]uuid.UUID
	var all []*delivery.Delivery
	for _, id := range r.table.Match(few[:0], e.Event) {
		revision := r.of[id]
		if !revision.Stood(e) {
			continue
		}
		s := revision.SubscriptionID
		all = append(all, &delivery.Delivery{ID: delivery.ID(e.ID, s), SubscriptionID: s, Event: e.Event, Sequence: revision.Ordering.Sequence(e.Event)})
	}
	return all
}
