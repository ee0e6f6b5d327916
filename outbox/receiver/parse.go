package receiver

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// The headers of walhook's requests, in canonical form, and the types of CloudEvents' bodies.
const (
	headerID       = "X-Webhook-Id"
	headerSignedID = "Webhook-Id" // of Standard Webhooks
	headerEvent    = "X-Webhook-Event"
	headerAttempt  = "X-Webhook-Attempt"
	headerBatch    = "X-Webhook-Batch"

	cloudEventsJSON  = "application/cloudevents+json"
	cloudEventsBatch = "application/cloudevents-batch+json"
)

// maxBatch bounds the elements of a batch; a subscription's batch_size is at most a tenth of it.
const maxBatch = 10_000

// mixedTypes is walhook's X-Webhook-Event of a batch whose events differ in type.
const mixedTypes = "batch"

// Parse reads the events of a request: one, or those of a batch in their order. It knows walhook's formats by
// what they look like: CloudEvents by their headers; an envelope and the format of Standard Webhooks by their
// fields, where these agree with the headers; anything else is a raw payload, whose type and id are in
// headers, also in those of GitHub and Shopify. Its errors wrap ErrFormat.
func Parse(header http.Header, body []byte) ([]Event, error) {
	if header.Get("Ce-Specversion") != "" {
		return single(binaryEvent(header, body))
	}
	if header.Get(headerBatch) != "" || mediaType(header) == cloudEventsBatch {
		return parseBatch(header, body)
	}
	return single(parseOne(header, body, IDOf(header)))
}

func single(e Event, err error) ([]Event, error) {
	if err != nil {
		return nil, err
	}
	return []Event{e}, nil
}

func mediaType(h http.Header) string {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type")) // what cannot be parsed is none of those we know
	return media
}

func parseBatch(h http.Header, body []byte) ([]Event, error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		return nil, fmt.Errorf("%w: a batch is a JSON array: %w", ErrFormat, err)
	}
	count := h.Get(headerBatch)
	if len(elements) > maxBatch || count != "" && count != strconv.Itoa(len(elements)) {
		return nil, fmt.Errorf("%w: the batch has %d elements (%s: %q, at most %d)", ErrFormat, len(elements), headerBatch, count, maxBatch)
	}
	events := make([]Event, len(elements))
	for i, element := range elements {
		id := IDOf(h)
		if id != "" && len(elements) > 1 {
			id += "/" + strconv.Itoa(i) // of this batch, in this order; another one has another id
		}
		var err error
		if events[i], err = parseOne(h, element, id); err != nil {
			return nil, fmt.Errorf("element %d of the batch: %w", i, err)
		}
	}
	return events, nil
}

// parseOne reads one event. id is what it has where its format has none.
func parseOne(h http.Header, body []byte, id string) (e Event, err error) {
	var fields map[string]json.RawMessage
	invalid := json.Unmarshal(body, &fields)
	media := mediaType(h)
	switch {
	case media == cloudEventsJSON || media == cloudEventsBatch:
		e, err = structuredEvent(h, body)
	case looksLikeEnvelope(fields, h):
		e, err = decode(body, envelope.event)
	case looksLikeStandard(fields, h):
		e, err = decode(body, standard.event)
	case invalid != nil && media == "application/json" && len(body) > 0 && !json.Valid(body):
		err = fmt.Errorf("%w: the body is no JSON, as its Content-Type says", ErrFormat)
	default:
		e = rawEvent(h, fields, body)
	}
	if e.ID == "" {
		e.ID = id
	}
	if e.Attempt == 0 {
		e.Attempt, _ = strconv.Atoi(h.Get(headerAttempt))
	}
	e.Header = h
	return e, err
}

func decode[F any](body []byte, event func(F) Event) (Event, error) {
	var f F
	if err := json.Unmarshal(body, &f); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return event(f), nil
}

// looksLikeEnvelope: a raw payload may have such fields as well, but not the delivery's id.
func looksLikeEnvelope(fields map[string]json.RawMessage, h http.Header) bool {
	if fields["event_type"] == nil || fields["event_data"] == nil || fields["webhook_id"] == nil {
		return false
	}
	id := h.Get(headerID)
	return id == "" || h.Get(headerBatch) != "" || text(fields["webhook_id"]) == id
}

// looksLikeStandard: here only the type can tell it from a raw payload.
func looksLikeStandard(fields map[string]json.RawMessage, h http.Header) bool {
	if len(fields) != 3 || fields["data"] == nil {
		return false
	}
	if _, err := time.Parse(time.RFC3339, text(fields["timestamp"])); err != nil {
		return false
	}
	kind, name := text(fields["type"]), headerType(h)
	return kind != "" && (name == "" || name == kind)
}

// text is a JSON string's value; empty for anything else.
func text(value json.RawMessage) (s string) {
	_ = json.Unmarshal(value, &s)
	return s
}

// headerType is what the headers say of the type; empty when nothing.
func headerType(h http.Header) string {
	name := h.Get(headerEvent)
	if h.Get(headerBatch) != "" && name == mixedTypes {
		return ""
	}
	if plain, err := url.PathUnescape(name); err == nil {
		return plain // what cannot stand in a header is percent-encoded
	}
	return name
}

// rawEvent: the type of a sender that has no header for it, as Stripe, is where most of them put it.
func rawEvent(h http.Header, fields map[string]json.RawMessage, body []byte) Event {
	kind := headerType(h)
	for _, name := range []string{"X-Github-Event", "X-Shopify-Topic"} {
		if kind == "" && h.Get(headerBatch) == "" {
			kind = h.Get(name)
		}
	}
	if kind == "" && h.Get(headerID) == "" {
		kind = text(fields["type"])
	}
	return Event{Type: kind, Data: body}
}

func structuredEvent(h http.Header, body []byte) (Event, error) {
	var c cloudEvent
	if err := json.Unmarshal(body, &c); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return c.event(h)
}

// binaryEvent reads a CloudEvent's attributes from headers (HTTP Protocol Binding 1.0.2, section 3.1).
func binaryEvent(h http.Header, body []byte) (Event, error) {
	attribute := func(name string) string {
		value := h.Get("Ce-" + name)
		if plain, err := url.PathUnescape(value); err == nil {
			return plain
		}
		return value
	}
	c := cloudEvent{
		SpecVersion: attribute("Specversion"), ID: attribute("Id"), Source: attribute("Source"), Type: attribute("Type"),
		Subject: attribute("Subject"), Tenant: attribute("Tenant"), CorrelationID: attribute("Correlationid"), Data: body,
	}
	if at := attribute("Time"); at != "" {
		var err error
		if c.Time, err = time.Parse(time.RFC3339, at); err != nil {
			return Event{}, fmt.Errorf("%w: ce-time %q is no RFC 3339 time", ErrFormat, at)
		}
	}
	e, err := c.event(h)
	if id := h.Get(headerSignedID); id != "" {
		e.ID = bounded(id) // walhook's are the same, but no signature covers ce-id
	}
	e.Attempt, _ = strconv.Atoi(h.Get(headerAttempt))
	e.Header = h
	return e, err
}
