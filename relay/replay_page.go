package relay

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
)

// What a page of events may hold beside their number: rows as Postgres stores them, and their texts, which may be
// thousands of times as large.
const (
	replayStored = 4 << 20  // bytes
	replayText   = 16 << 20 // bytes
)

// idMargin is how far an event's id may lie from its created_at, where ids are UUIDv7. An application may set either.
const idMargin = 24 * time.Hour

// replayEvents is a page: events in the order of their ids.
type replayEvents struct {
	events []*delivery.Event
	end    bool // there are no others
}

// eventsQuery reads the next page of a range of both kinds of events. Those whose ids are no UUIDv7, or lie far from
// their time, are in the DEFAULT partitions. $1 tenant, $2 since, $3 until, $4 and $5 ids of the range, $6 the first
// id in it that is not done, $7 the first of all, $8 rows, $9 stored bytes.
const eventsQuery = `WITH near AS (
		` + eventsFrom + `false AS emitted FROM outbox.events WHERE id >= $6 AND id < $5 AND tenant = $1 AND created_at >= $2 AND created_at < $3 ORDER BY id LIMIT $8)
		UNION ALL
		` + eventsFrom + `false FROM outbox.events_default WHERE id >= $7 AND (id < $4 OR id >= $5) AND tenant = $1 AND created_at >= $2 AND created_at < $3 ORDER BY id LIMIT $8)
		UNION ALL
		` + eventsFrom + `true FROM outbox.emitted_events WHERE id >= $6 AND id < $5 AND tenant = $1 AND created_at >= $2 AND created_at < $3 AND only_for IS NULL ORDER BY id LIMIT $8)
		UNION ALL
		` + eventsFrom + `true FROM outbox.emitted_events_default WHERE id >= $7 AND (id < $4 OR id >= $5) AND tenant = $1 AND created_at >= $2 AND created_at < $3 AND only_for IS NULL ORDER BY id LIMIT $8)),
	page AS (SELECT *, row_number() OVER place AS number, sum(pg_column_size(payload) + pg_column_size(headers)) OVER place
			- pg_column_size(payload) - pg_column_size(headers) AS before
		FROM near WINDOW place AS (ORDER BY id ROWS UNBOUNDED PRECEDING))
	SELECT id, type, payload::text, coalesce(key, ''), tenant, coalesce(source, ''), coalesce(correlation_id, ''), headers::text,
		created_at, emitted, (SELECT count(*) FROM near)
	FROM page WHERE number <= $8 AND before < $9 ORDER BY id`

const eventsFrom = `(SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, `

// deadQuery reads the next page of dead letters, whose events may be gone by now. A test that failed is over.
const deadQuery = `WITH near AS (
		SELECT * FROM outbox.dead_letters d WHERE subscription_id = $1 AND tenant = $2 AND created_at >= $3 AND created_at < $4
			AND event_id >= $5 AND NOT EXISTS (SELECT FROM outbox.emitted_events e WHERE e.id = d.event_id AND e.only_for IS NOT NULL)
		ORDER BY event_id LIMIT $6),
	page AS (SELECT *, sum(pg_column_size(payload)) OVER place - pg_column_size(payload) AS before
		FROM near WINDOW place AS (ORDER BY event_id ROWS UNBOUNDED PRECEDING))
	SELECT event_id, type, payload, coalesce(key, ''), tenant, coalesce(source, ''), coalesce(correlation_id, ''), coalesce(headers, '{}'),
		created_at, emitted, (SELECT count(*) FROM near)
	FROM page WHERE before < $7 ORDER BY event_id`

// readPage reads the events behind those that are done. It holds no lock and belongs to no transaction: a range
// in which other tenants have many events takes its time.
func readPage(ctx context.Context, conn *pgx.Conn, q *replayRequest) (replayEvents, error) {
	var from uuid.UUID
	if q.last != nil {
		var last bool
		if from, last = following(*q.last); last {
			return replayEvents{end: true}, nil
		}
	}
	var rows pgx.Rows
	var err error
	if q.onlyFailed {
		rows, err = conn.Query(ctx, deadQuery, q.rule.SubscriptionID, q.rule.Tenant, q.since, q.until, from, replayPage, replayStored)
	} else {
		low, high := uuidFloor(q.since.Add(-idMargin)), uuidFloor(q.until.Add(idMargin))
		near := low
		if string(from[:]) > string(low[:]) {
			near = from
		}
		rows, err = conn.Query(ctx, eventsQuery, q.rule.Tenant, q.since, q.until, low, high, near, from, replayPage, replayStored)
	}
	if err != nil {
		return replayEvents{}, fmt.Errorf("read events to replay: %w", err)
	}
	page, err := collectPage(rows)
	if err != nil {
		return replayEvents{}, fmt.Errorf("read events to replay: %w", err)
	}
	return page, nil
}

// collectPage keeps as many events as memory has room for, at least one.
func collectPage(rows pgx.Rows) (replayEvents, error) {
	defer rows.Close()
	page := replayEvents{end: true}
	found, bytes := 0, 0
	for rows.Next() {
		if bytes >= replayText {
			page.end = false
			break
		}
		e := &delivery.Event{}
		err := rows.Scan(&e.ID, &e.Type, &e.Payload, &e.Key, &e.Tenant, &e.Source, &e.CorrelationID, &e.Headers, &e.CreatedAt, &e.Emitted, &found)
		if err != nil {
			return page, err
		}
		page.events = append(page.events, e)
		bytes += e.Size()
	}
	rows.Close()
	page.end = page.end && found == len(page.events)
	if len(page.events) == replayPage {
		page.end = false
	}
	return page, rows.Err()
}

// following is the id behind id; there is none behind the last one.
func following(id uuid.UUID) (next uuid.UUID, last bool) {
	next = id
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			return next, false
		}
	}
	return next, true
}

// preceding is the id before id; there is none before the first one.
func preceding(id uuid.UUID) *uuid.UUID {
	before := id
	for i := len(before) - 1; i >= 0; i-- {
		if before[i]--; before[i] != 0xff {
			return &before
		}
	}
	return nil
}

// uuidFloor is the lowest UUIDv7 of a moment (RFC 9562, section 5.7), as outbox.uuid_floor computes it; before 1970 the
// lowest of all.
func uuidFloor(at time.Time) uuid.UUID {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(at.UnixMilli(), 0)))
	var id uuid.UUID
	copy(id[:], ms[2:])
	return id
}
