// Package outbox publishes events from a Go application to the walhook relay.
//
// An event is published inside the same database transaction as the change that it reports:
//
//	tx, err := pool.Begin(ctx)
//	...
//	_, err = tx.Exec(ctx, "INSERT INTO patients (id, name) VALUES ($1, $2)", id, name)
//	...
//	_, err = outbox.Publish(ctx, tx, outbox.Event{Type: "patient.created", Key: id, Payload: patient})
//	...
//	err = tx.Commit(ctx)
//
// Then either both are committed or neither is. Published through a pool or a second connection instead,
// the event is a promise of its own: it can go out although the change was rolled back, or be lost although
// the change was committed. No check can notice this, so keep to the transaction.
//
// Every function here comes twice: for pgx, and with the suffix SQL for database/sql with any Postgres
// driver. All values travel as text parameters with casts in the statement, so that simple, unprepared and
// prepared execution work alike, and with them connection poolers.
package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// The limits of an event, in bytes of UTF-8. The database has the same ones: a row beyond them could stop
// logical decoding for good.
const (
	// MaxPayload is how large the payload and the headers may be together, measured as the JSON text that
	// jsonb prints: no white space but one space after every colon and comma.
	MaxPayload = 10 << 20
	// MaxKey is how long a key may be.
	MaxKey = 1024
	// MaxName is how long a type, tenant, source or correlation id may be.
	MaxName = 255
)

// ErrInvalid is wrapped by every error about an event that the database would refuse. Trying the same
// event again is pointless; the transaction is still usable, because the database was not asked.
var ErrInvalid = errors.New("invalid event")

// Event is something that happened, as the application tells it.
type Event struct {
	// ID identifies the event for good and becomes part of every delivery's id. The zero value lets
	// Publish make a UUIDv7, which is what an id should be: events are partitioned by the time in it.
	ID uuid.UUID

	// Type is the event's dotted name, as patient.created: 1 to MaxName bytes of printable ASCII without
	// spaces and without '*'.
	Type string

	// Payload becomes the deliveries' event_data. A json.RawMessage or a []byte is JSON text and goes as it
	// is, anything else goes through json.Marshal: a Go string becomes a JSON string. Nil becomes {}.
	Payload any

	// Key is the ordering key, usually the aggregate's id: at most MaxKey bytes, empty for none.
	Key string

	// Tenant says whose event it is: only subscriptions of the same tenant see it. At most MaxName bytes.
	Tenant string

	// Source says who produced the event: at most MaxName bytes, empty for none.
	Source string

	// CorrelationID ties the event to what caused it: at most MaxName bytes, empty for none.
	CorrelationID string

	// Headers are metadata carried along, as traceparent. They count towards MaxPayload.
	Headers map[string]string
}

// Validate reports everything for which the database would refuse the event: an error that wraps
// ErrInvalid and names each value and its remedy, or nil. Publish, PublishBatch and Emit call it
// themselves.
func (e Event) Validate() error {
	_, err := e.encode()
	return err
}

// row is an event in the form in which it travels.
type row struct {
	ID            string          `json:"id"`
	Type          string          `json:"type"`
	Payload       json.RawMessage `json:"payload"`
	Key           *string         `json:"key"`
	Tenant        string          `json:"tenant"`
	Source        *string         `json:"source"`
	CorrelationID *string         `json:"correlation_id"`
	Headers       json.RawMessage `json:"headers"`
}

// encode validates the event and makes the row; the id stays empty when the event has none.
func (e Event) encode() (row, error) {
	payload, payloadErr := encodePayload(e.Payload)
	headers, headersErr := encodeHeaders(e.Headers)
	err := errors.Join(
		checkType(e.Type),
		checkText("key", e.Key, MaxKey, "use the aggregate's id or a hash of it"),
		checkText("tenant", e.Tenant, MaxName, "use a shorter name or an id"),
		checkText("source", e.Source, MaxName, "use a shorter name or an id"),
		checkText("correlation id", e.CorrelationID, MaxName, "use a shorter name or an id"),
		payloadErr,
		headersErr,
		checkSize(payload.size+headers.size),
	)
	if err != nil {
		return row{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r := row{
		Type: e.Type, Payload: payload.text, Key: nullable(e.Key), Tenant: e.Tenant,
		Source: nullable(e.Source), CorrelationID: nullable(e.CorrelationID), Headers: headers.text,
	}
	if e.ID != uuid.Nil {
		r.ID = e.ID.String()
	}
	return r, nil
}

// nullable turns the empty string into SQL's NULL.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// checkType holds a type to what can become a request header and is no subscription pattern.
func checkType(name string) error {
	if name == "" {
		return errors.New("the type is empty: name what happened, as in patient.created")
	}
	if len(name) > MaxName {
		return fmt.Errorf("type %s has %d bytes, the most is %d: use a shorter name", quote(name), len(name), MaxName)
	}
	if i := strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '*' }); i >= 0 {
		c, _ := utf8.DecodeRuneInString(name[i:])
		return fmt.Errorf("type %s has %q at byte %d: use printable ASCII without spaces and '*', as in patient.created",
			quote(name), c, i)
	}
	return nil
}

// checkText holds a value to what a text column of the given size takes.
func checkText(what, value string, most int, remedy string) error {
	if len(value) > most {
		return fmt.Errorf("%s %s has %d bytes, the most is %d: %s", what, quote(value), len(value), most, remedy)
	}
	return checkEncoding(what+" "+quote(value), value)
}

// checkEncoding holds a value to what Postgres stores as text; what says which value it is.
func checkEncoding(what, value string) error {
	if !utf8.ValidString(value) {
		return fmt.Errorf("%s is not valid UTF-8: encode it, as in hex or base64", what)
	}
	if strings.Contains(value, "\x00") {
		return fmt.Errorf("%s has a NUL byte, which Postgres cannot store: remove it", what)
	}
	return nil
}

// checkSize bounds what becomes one row of WAL.
func checkSize(size int) error {
	if size > MaxPayload {
		return fmt.Errorf("payload and headers have %d bytes of JSON, the most is %d: store the document and publish a reference to it",
			size, MaxPayload)
	}
	return nil
}

// quote shows a value without filling the log with it.
func quote(value string) string {
	const most = 60
	if len(value) <= most {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%q…", strings.ToValidUTF8(value[:most], ""))
}
