package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/outbox"
)

// pollInterval is the time between two looks at what the relay has recorded, which it does as often.
const pollInterval = 100 * time.Millisecond

// What a test sends unless it is told.
const (
	testType = "webhook.test"
	testData = `{"test": true}`
)

// SendTest sends a made-up event to one webhook and waits until its attempt is recorded, or for so long (Conflict).
func (d *Desk) SendTest(ctx context.Context, id uuid.UUID, eventType string, data json.RawMessage, wait time.Duration) (Call, error) {
	if wait <= 0 {
		return Call{}, invalid("wait", "%s is too short: give a second or more", wait)
	}
	test, err := d.BeginTest(ctx, id, eventType, data)
	if err != nil {
		return Call{}, err
	}
	return test.Await(ctx, wait)
}

// Test is one that is on its way. It holds nothing of what was sent.
type Test struct {
	desk              *Desk
	webhook, delivery uuid.UUID
	asked             time.Time
}

// BeginTest sends a made-up event to one webhook: SendTest without the wait, which whoever holds a large body back for it
// begins without that.
func (d *Desk) BeginTest(ctx context.Context, id uuid.UUID, eventType string, data json.RawMessage) (*Test, error) {
	if eventType == "" {
		eventType = testType
	}
	if data == nil {
		data = json.RawMessage(testData)
	}
	if err := checkTest(eventType, data); err != nil {
		return nil, err
	}
	w, err := d.Webhook(ctx, id)
	if err != nil {
		return nil, err
	}
	if !w.Active {
		return nil, &Error{Kind: Conflict, Message: fmt.Sprintf("webhook %s is not active: activate it first", id)}
	}
	t := &Test{desk: d, webhook: id, asked: time.Now()}
	err = d.db.QueryRow(ctx, `SELECT outbox.send_test(s.id, $3, $4) FROM outbox.subscriptions s
		WHERE s.id = $1 AND ($2::text IS NULL OR s.tenant = $2)`, id, d.who.Tenant, eventType, data).Scan(&t.delivery)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noWebhook(id)
	}
	if err != nil {
		return nil, explained("send a test", about("test_data", refused(err)))
	}
	return t, nil
}

// Await waits until the attempt of a test is recorded, or for so long (Conflict).
func (t *Test) Await(ctx context.Context, wait time.Duration) (Call, error) {
	key, err := t.desk.awaitCall(ctx, t.webhook, t.delivery, t.asked, wait)
	if err != nil {
		return Call{}, err
	}
	calls, err := t.desk.readCalls(ctx, t.webhook, []callKey{key})
	if err != nil || len(calls.Items) == 0 {
		return Call{}, fmt.Errorf("read the call of delivery %s: %w", t.delivery, err)
	}
	return calls.Items[0], nil
}

// checkTest refuses what the database would, and names the field.
func checkTest(eventType string, data json.RawMessage) error {
	for field, event := range map[string]outbox.Event{"event_type": {Type: eventType}, "test_data": {Type: testType, Payload: data}} {
		if err := event.Validate(); err != nil {
			return invalid(field, "%s", validationText(err))
		}
	}
	return nil
}

// awaitCall waits until the attempt of a delivery that was made after asked is recorded.
func (d *Desk) awaitCall(ctx context.Context, id, delivery uuid.UUID, asked time.Time, wait time.Duration) (key callKey, err error) {
	late := &Error{Kind: Conflict, Message: fmt.Sprintf("no attempt of delivery %s was recorded within %s: is a relay running, and is the receiver slow? "+
		"The webhook's calls will show it", delivery, wait)}
	limited, cancel := context.WithTimeoutCause(ctx, wait, late)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		key, err = d.lookForCall(limited, id, delivery, asked)
		switch {
		case err == nil:
			return key, nil
		case limited.Err() == nil && !errors.Is(err, pgx.ErrNoRows):
			return key, fmt.Errorf("wait for the attempt of delivery %s: %w", delivery, err)
		}
		select {
		case <-limited.Done():
			return key, context.Cause(limited)
		case <-ticker.C:
		}
	}
}

// lookForCall returns pgx.ErrNoRows until the attempt is recorded, which happens together with the removal of the delivery
// from the queue: until then that one row is all that is looked at, however many attempts others make. Then it is among the
// newest attempts. The clocks of who asks and who attempts may differ.
func (d *Desk) lookForCall(ctx context.Context, id, delivery uuid.UUID, asked time.Time) (callKey, error) {
	var waits bool
	if err := d.db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM outbox.deliveries WHERE id = $1)", delivery).Scan(&waits); err != nil {
		return callKey{}, err
	}
	if waits {
		return callKey{}, pgx.ErrNoRows
	}
	key := callKey{delivery: delivery}
	err := d.db.QueryRow(ctx, `SELECT attempted_at, attempt FROM outbox.attempts
		WHERE delivery_id = $1 AND subscription_id = $2 AND attempted_at >= $3 ORDER BY attempted_at DESC LIMIT 1`,
		pgx.QueryExecModeCacheDescribe, delivery, id, asked.Add(-clockSkew)).Scan(&key.at, &key.attempt)
	return key, err
}
