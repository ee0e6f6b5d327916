package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// What one statement of a batch carries at most: enough to spread its cost, little enough for the memory
// of both sides. A single event may be larger than the bytes.
const (
	chunkEvents = 1000
	chunkBytes  = 4 << 20
)

// One parameter carries any number of rows in any driver, and the statement's text is always the same. The
// order is asked for, because it is the order in which the relay will see the events. A payload that is the
// JSON null arrives as SQL's NULL.
const insertEvents = `
INSERT INTO outbox.events (id, type, payload, key, tenant, source, correlation_id, headers)
SELECT r.id, r.type, coalesce(r.payload, 'null'), r.key, r.tenant, r.source, r.correlation_id, r.headers
FROM ROWS FROM (json_to_recordset($1::text::json) AS (
       id uuid, type text, payload jsonb, key text, tenant text, source text, correlation_id text, headers jsonb
     )) WITH ORDINALITY AS r (id, type, payload, key, tenant, source, correlation_id, headers, position)
ORDER BY r.position`

// PublishBatch inserts the events into outbox.events in their order and returns their ids in the same
// order. It takes any number of events and sends them with as few statements as their size allows. tx must
// be the transaction of the change that the events report.
//
// All events are validated before the first is sent: an error that wraps ErrInvalid names the first invalid
// event by its index, and tx stays usable. Any other error is the database's, wrapped, and has ended the
// transaction.
func PublishBatch(ctx context.Context, tx DBTX, events []Event) ([]uuid.UUID, error) {
	return publishBatch(events, func(sql string, args ...any) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
}

// PublishBatchSQL is PublishBatch for database/sql.
func PublishBatchSQL(ctx context.Context, tx SQLDBTX, events []Event) ([]uuid.UUID, error) {
	return publishBatch(events, func(sql string, args ...any) error {
		_, err := tx.ExecContext(ctx, sql, args...)
		return err
	})
}

// publishBatch is what both flavours share.
func publishBatch(events []Event, exec func(sql string, args ...any) error) ([]uuid.UUID, error) {
	rows := make([]row, len(events))
	ids := make([]uuid.UUID, len(events))
	for i, e := range events {
		var err error
		if rows[i], ids[i], err = e.identified(); err != nil {
			return nil, fmt.Errorf("publish event %d of %d: %w", i, len(events), err)
		}
	}
	for sent := 0; sent < len(rows); {
		n := chunk(rows[sent:])
		text, err := encodeRows(rows[sent : sent+n])
		if err != nil {
			return nil, fmt.Errorf("publish events %d to %d of %d: %w", sent, sent+n-1, len(rows), err)
		}
		if err := exec(insertEvents, text); err != nil {
			return nil, fmt.Errorf("publish events %d to %d of %d: %w", sent, sent+n-1, len(rows), err)
		}
		sent += n
	}
	return ids, nil
}

// chunk returns how many of the rows go into the next statement: one at least.
func chunk(rows []row) int {
	size := 0
	for i, r := range rows {
		size += len(r.Payload) + len(r.Headers)
		if i > 0 && (i == chunkEvents || size > chunkBytes) {
			return i
		}
	}
	return len(rows)
}

// encodeRows makes the statement's parameter. HTML escapes would only make it longer.
func encodeRows(rows []row) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(rows); err != nil {
		return "", fmt.Errorf("encode rows: %w", err)
	}
	return text.String(), nil
}
