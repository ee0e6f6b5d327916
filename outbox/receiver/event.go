package receiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// ErrFormat is wrapped by every error about a body that cannot be what its headers say. Trying it again is
// pointless.
var ErrFormat = errors.New("unreadable webhook")

// Event is one event as it was delivered. What a format does not carry is empty.
type Event struct {
	// ID is the delivery's: the same whenever the event comes again. Where an element of a batch has none of its
	// own, it is the batch's with the element's place in it.
	ID string

	// Type is the event's dotted name, as patient.created.
	Type string

	// Data is the payload byte for byte, so that every number has the digits with which it was written. It is
	// JSON, unless the request's Content-Type says otherwise. Handlers share it; it must not be changed.
	Data json.RawMessage

	// Time is when the event was committed, and the same on every attempt.
	Time time.Time

	// Attempt counts from 1; 0 when the request does not say. In a batch it is the highest one where elements
	// don't have their own.
	Attempt int

	// Version is the envelope's, 1 or 2; 0 in all other formats.
	Version int

	// EventID is the event's, which deliveries to other subscriptions share (envelope 2).
	EventID string

	// Key, Tenant, Source and CorrelationID are the event's own (envelope 2, CloudEvents).
	Key, Tenant, Source, CorrelationID string

	// CreatedAt is when the application says that it happened (envelope 2).
	CreatedAt time.Time

	// Header is the request's. It is shared by the events of a batch and must not be changed.
	Header http.Header
}

// Decode is json.Unmarshal of the event's data. Decode into json.Number, or strings, what has more digits than a
// float64 keeps.
func (e Event) Decode(into any) error {
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("data of %s %s: %w", e.Type, e.ID, err)
	}
	return nil
}

// envelope is walhook's own format; version 2 adds the second part.
type envelope struct {
	EventType string          `json:"event_type"`
	EventData json.RawMessage `json:"event_data"`
	WebhookID string          `json:"webhook_id"`
	Timestamp time.Time       `json:"timestamp"`
	Attempt   int             `json:"attempt"`

	Version       int       `json:"version"`
	EventID       string    `json:"event_id"`
	Key           string    `json:"key"`
	Tenant        string    `json:"tenant"`
	Source        string    `json:"source"`
	CorrelationID string    `json:"correlation_id"`
	CreatedAt     time.Time `json:"created_at"`
}

func (v envelope) event() Event {
	return Event{
		ID: v.WebhookID, Type: v.EventType, Data: v.EventData, Time: v.Timestamp, Attempt: v.Attempt, Version: max(v.Version, 1),
		EventID: v.EventID, Key: v.Key, Tenant: v.Tenant, Source: v.Source, CorrelationID: v.CorrelationID, CreatedAt: v.CreatedAt,
	}
}

// standard is the payload that Standard Webhooks recommends. Its id is in a header.
type standard struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

func (s standard) event() Event { return Event{Type: s.Type, Time: s.Timestamp, Data: s.Data} }

// cloudEvent is the JSON format of CloudEvents 1.0.2, with walhook's extensions.
type cloudEvent struct {
	SpecVersion   string          `json:"specversion"`
	ID            string          `json:"id"`
	Source        string          `json:"source"`
	Type          string          `json:"type"`
	Time          time.Time       `json:"time"`
	Subject       string          `json:"subject"`
	Tenant        string          `json:"tenant"`
	CorrelationID string          `json:"correlationid"`
	Data          json.RawMessage `json:"data"`
	DataBase64    []byte          `json:"data_base64"`
}

// event: an id is unique together with its source only, but walhook's are by themselves, and the same as
// X-Webhook-ID.
func (c cloudEvent) event(h http.Header) (Event, error) {
	if c.SpecVersion != "1.0" || c.ID == "" || c.Source == "" || c.Type == "" {
		return Event{}, fmt.Errorf("%w: a CloudEvent needs specversion 1.0, id, source and type", ErrFormat)
	}
	e := Event{
		ID: c.ID, Type: c.Type, Data: c.Data, Time: c.Time, Key: c.Subject, Tenant: c.Tenant, Source: c.Source, CorrelationID: c.CorrelationID,
	}
	if h.Get(headerID) == "" {
		e.ID = c.Source + " " + c.ID
	}
	if len(c.DataBase64) > 0 {
		e.Data = c.DataBase64
	}
	return e, nil
}
