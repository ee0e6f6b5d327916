package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// replayed is a delivery of an event that is made again.
type replayed struct {
	event     *delivery.Event
	id        uuid.UUID
	sequence  string // of its subscription's ordering; empty for none
	index     int64  // its place among all that is replayed
	attempts  int    // that the log has
	committed time.Time
	known     bool // the subscription had the event before, delivered or dead
}

// lookUp finds what the log knows of the events: when they were committed, from anybody's attempts, and how often
// each delivery was attempted. Where it no longer knows, an event counts as committed when it was created. Ids
// grow with time, so that a page's rows lie close together.
func lookUp(ctx context.Context, tx pgx.Tx, q *replayRequest, matched []*replayed) error {
	if len(matched) == 0 {
		return nil
	}
	byEvent := make(map[uuid.UUID]*replayed, len(matched))
	events, ids := make([]uuid.UUID, len(matched)), make([]uuid.UUID, len(matched))
	earliest := matched[0].event.CreatedAt
	for i, m := range matched {
		events[i], ids[i], byEvent[m.event.ID] = m.event.ID, m.id, m
		m.committed = m.event.CreatedAt
		if m.event.CreatedAt.Before(earliest) {
			earliest = m.event.CreatedAt
		}
	}
	// OFFSET 0 keeps the planner from looking every id up by itself, which would read the index for each.
	rows, err := tx.Query(ctx, `SELECT w.event_id, max(a.committed_at), coalesce(max(a.attempt) FILTER (WHERE a.delivery_id = w.id), 0)::int,
			EXISTS (SELECT FROM outbox.dead_letters d WHERE d.id = w.id)
		FROM unnest($1::uuid[], $2::uuid[]) AS w(event_id, id)
		LEFT JOIN (SELECT event_id, delivery_id, committed_at, attempt FROM outbox.attempts
			WHERE event_id BETWEEN $3 AND $4 AND attempted_at >= $5 OFFSET 0) AS a ON a.event_id = w.event_id
		GROUP BY w.event_id, w.id`, events, ids, events[0], events[len(events)-1], earliest.Add(-idMargin))
	if err != nil {
		return fmt.Errorf("look attempts up: %w", err)
	}
	var event uuid.UUID
	var committed *time.Time
	var attempts int
	var dead bool
	_, err = pgx.ForEachRow(rows, []any{&event, &committed, &attempts, &dead}, func() error {
		m := byEvent[event]
		m.attempts, m.known = attempts, attempts > 0 || dead
		if committed != nil {
			m.committed = *committed
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look attempts up: %w", err)
	}
	return nil
}

// unread finds the first of the deliveries that the stream may still bring, if nothing is known of it: its transaction was
// not known to have ended when the replay was asked for, and is not known to be recorded now. Queued now it would be made
// twice. It is the length of matched when there is none. The checkpoint stands still meanwhile.
func unread(ctx context.Context, tx pgx.Tx, slot string, q *replayRequest, matched []*replayed) (int, error) {
	var events []uuid.UUID
	for _, m := range matched {
		if !m.known && !m.event.Emitted {
			events = append(events, m.event.ID)
		}
	}
	if len(events) == 0 {
		return len(matched), nil
	}
	rows, err := tx.Query(ctx, `SELECT e.id FROM outbox.replays p, outbox.checkpoint c, outbox.events e
		WHERE p.id = $1 AND c.slot_name = $2 AND e.id = ANY($3)
			AND outbox.unrecorded(e.xmin, greatest(p.requested_xid::text::bigint, c.recorded_xid::text::bigint), outbox.xids_ahead())`, q.id, slot, events)
	if err != nil {
		return 0, fmt.Errorf("look for what the stream may still bring: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return 0, fmt.Errorf("look for what the stream may still bring: %w", err)
	}
	i := slices.IndexFunc(matched, func(m *replayed) bool { return slices.Contains(found, m.event.ID) })
	if i < 0 {
		i = len(matched)
	}
	return i, nil
}

// errReplayOver means that somebody cancelled the request meanwhile.
var errReplayOver = errors.New("the replay was cancelled")

// queue puts deliveries into the queue and moves the request's progress, in one transaction, and returns how many
// were new there.
func (r *replayer) queue(ctx context.Context, conn *pgx.Conn, q *replayRequest, matched []*replayed, last *uuid.UUID, done bool) (int, error) {
	var queued int
	err := r.write(ctx, conn, func(tx pgx.Tx) error {
		// Not before: a delivery that is recorded in between would have no row any more and, as it were, no attempt yet.
		err := lookUp(ctx, tx, q, matched)
		if err != nil {
			return err
		}
		first, err := unread(ctx, tx, r.slot, q, matched)
		if err != nil {
			return err
		}
		if r.waits = first < len(matched); r.waits {
			last, done = preceding(matched[first].event.ID), false
			matched = matched[:first]
		}
		wanted := matched
		if q.backfill {
			wanted = slices.DeleteFunc(slices.Clone(matched), func(m *replayed) bool { return m.known })
		}
		if queued, err = put(ctx, tx, q, wanted); err != nil {
			return fmt.Errorf("queue replayed deliveries: %w", err)
		}
		tag, err := tx.Exec(ctx, `UPDATE outbox.replays SET state = CASE WHEN $2 THEN 'done' ELSE 'running' END, until = $3, last_event_id = $4,
			matched = matched + $5, queued = queued + $6, finished_at = CASE WHEN $2 THEN now() END
			WHERE id = $1 AND state IN ('waiting', 'running')`, q.id, done, q.until, last, len(matched), queued)
		if err != nil {
			return fmt.Errorf("move replay %s: %w", q.id, err)
		}
		if tag.RowsAffected() == 0 {
			return errReplayOver
		}
		fault.Point(fault.ReplayQueued)
		return nil
	})
	if errors.Is(err, errReplayOver) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	fault.Point(fault.ReplayMoved)
	if q.state == "waiting" {
		r.log.Info().Stringer("replay", q.id).Stringer("subscription", q.rule.SubscriptionID).Time("since", q.since).Time("until", q.until).Msg("replay began")
	}
	if done {
		r.log.Info().Stringer("replay", q.id).Stringer("subscription", q.rule.SubscriptionID).Int64("matched", q.matched+int64(len(matched))).Msg("replay is queued")
	}
	return queued, nil
}

// put inserts deliveries that are not in the queue already, and takes them out of the dead letters. Those of a
// sequence of their own, apart from what is fresh, are held: the first of each is woken.
func put(ctx context.Context, tx pgx.Tx, q *replayRequest, wanted []*replayed) (int, error) {
	n := len(wanted)
	if n == 0 {
		return 0, nil
	}
	ids, events, kinds, payloads, keys, sources, correlations, headers := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]string, n),
		make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	emitted, created, committed := make([]bool, n), make([]time.Time, n), make([]time.Time, n)
	indexes, attempts, sequences := make([]int64, n), make([]int32, n), make([]*string, n)
	touched := map[string]bool{}
	for i, m := range wanted {
		e := m.event
		ids[i], events[i], kinds[i], payloads[i], keys[i], sources[i], correlations[i], headers[i] =
			m.id, e.ID, e.Type, string(e.Payload), e.Key, e.Source, e.CorrelationID, string(e.Headers)
		emitted[i], created[i], committed[i], indexes[i], attempts[i] = e.Emitted, e.CreatedAt, m.committed, m.index, int32(m.attempts)
		if m.sequence != "" {
			s := "replay " + m.sequence
			sequences[i], touched[s] = &s, true
		}
	}
	rows, err := tx.Query(ctx, `WITH dead AS (
			DELETE FROM outbox.dead_letters l WHERE l.id = ANY($1) AND NOT EXISTS (SELECT FROM outbox.deliveries d WHERE d.id = l.id)
			RETURNING l.id, l.committed_at, l.attempts, l.last_attempt_at, l.last_status, l.last_error)
		INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id, headers, emitted,
			created_at, committed_at, commit_lsn, commit_index, attempts, next_attempt_at, sequence, last_attempt_at, last_status, last_error)
		SELECT w.id, $15, w.event_id, w.type, w.payload, nullif(w.key, ''), $16, nullif(w.source, ''), nullif(w.correlation_id, ''), w.headers, w.emitted,
			w.created_at, coalesce(dead.committed_at, w.committed_at), '0/0', w.index, greatest(w.attempts, dead.attempts),
			CASE WHEN w.sequence IS NULL THEN now() ELSE 'infinity' END, w.sequence, dead.last_attempt_at, dead.last_status, dead.last_error
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bool[], $10::timestamptz[],
			$11::timestamptz[], $12::bigint[], $13::int[], $14::text[])
			AS w(id, event_id, type, payload, key, source, correlation_id, headers, emitted, created_at, committed_at, index, attempts, sequence)
		LEFT JOIN dead ON dead.id = w.id
		WHERE dead.id IS NOT NULL OR NOT $17
		ON CONFLICT (id) DO NOTHING
		RETURNING id`,
		ids, events, kinds, payloads, keys, sources, correlations, headers, emitted, created, committed, indexes, attempts, sequences,
		q.rule.SubscriptionID, q.rule.Tenant, q.onlyFailed)
	if err != nil {
		return 0, err
	}
	queued, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return 0, err
	}
	if err := tally(ctx, tx, wanted, queued); err != nil {
		return 0, err
	}
	return len(queued), wake(ctx, tx, q.rule.SubscriptionID, touched)
}

// tally adds deliveries that there have never been before to those matched in their events' minutes, so that the audit
// does not take them for others of these minutes.
func tally(ctx context.Context, tx pgx.Tx, wanted []*replayed, queued []uuid.UUID) error {
	byID := make(map[uuid.UUID]*replayed, len(wanted))
	for _, m := range wanted {
		byID[m.id] = m
	}
	minutes := make([]time.Time, 0, len(queued))
	for _, id := range queued {
		if m := byID[id]; !m.known {
			minutes = append(minutes, m.event.CreatedAt.UTC().Truncate(time.Minute))
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO outbox.recorded AS r (minute, matched)
		SELECT minute, count(*) FROM unnest($1::timestamptz[]) AS minute GROUP BY minute ORDER BY minute
		ON CONFLICT (minute) DO UPDATE SET matched = r.matched + excluded.matched`, minutes)
	if err != nil {
		return fmt.Errorf("count matched deliveries: %w", err)
	}
	return nil
}

// wake makes the first delivery of each sequence due, if it is held, and tells the claimer.
func wake(ctx context.Context, tx pgx.Tx, subscription uuid.UUID, sequences map[string]bool) error {
	names := make([]string, 0, len(sequences))
	for s := range sequences {
		names = append(names, s)
	}
	_, err := tx.Exec(ctx, `UPDATE outbox.deliveries d SET next_attempt_at = now()
		FROM unnest($2::text[]) AS w(sequence)
		CROSS JOIN LATERAL (SELECT id FROM outbox.deliveries
			WHERE subscription_id = $1 AND sequence = w.sequence
			ORDER BY commit_lsn, commit_index LIMIT 1) AS first
		WHERE d.id = first.id AND d.next_attempt_at = 'infinity'`, subscription, names)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "SELECT pg_notify('walhook', 'queue')")
	return err
}
