package webhook

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// The formats whose names are needed in several places.
const (
	formatEnvelope = "envelope"
	formatBinary   = "cloudevents-binary"
)

// format is one way of writing deliveries down.
type format struct {
	contentType []string // of a request with one delivery; shared between requests, never changed
	batchType   []string // of an array
	// bare: a request with one delivery carries the payload alone.
	bare bool
	// element appends one delivery, as it is in an array and, unless bare, by itself.
	element func(dst []byte, d *delivery.Delivery) []byte
	// size is what an element takes beside the event's own texts, in bytes, with some to spare.
	size int
	// header adds what of a single delivery stands in headers; nil: nothing does.
	header func(h http.Header, d *delivery.Delivery)
}

var (
	typeJSON             = []string{"application/json"}
	typeCloudEvents      = []string{"application/cloudevents+json"}
	typeCloudEventsBatch = []string{"application/cloudevents-batch+json"}
)

var (
	envelopeV1 = &format{contentType: typeJSON, batchType: typeJSON, size: envelopeSize,
		element: func(dst []byte, d *delivery.Delivery) []byte { return AppendEnvelope(dst, d, d.Attempts+1) }}
	envelopeV2 = &format{contentType: typeJSON, batchType: typeJSON, size: envelopeV2Size, element: appendEnvelopeV2}
)

var formats = map[string]*format{
	"standard":    {contentType: typeJSON, batchType: typeJSON, size: standardSize, element: appendStandard},
	"raw":         {contentType: typeJSON, batchType: typeJSON, bare: true, element: appendPayload, size: len("null,")},
	"cloudevents": {contentType: typeCloudEvents, batchType: typeCloudEventsBatch, size: cloudEventSize, element: appendCloudEvent},
	// The binary mode has no batches. One that was made before the settings changed goes out structured.
	formatBinary: {contentType: typeJSON, batchType: typeCloudEventsBatch, bare: true, size: cloudEventSize,
		element: appendCloudEvent, header: addCloudEvent},
}

// formatOf returns the format that the settings name; no name means envelope, and no version means 1.
func formatOf(set *delivery.Settings) (*format, error) {
	if set.PayloadVersion < 0 || set.PayloadVersion > 2 {
		return nil, errors.New("payload_version " + strconv.Itoa(set.PayloadVersion) + " is not known: use 1 or 2")
	}
	if set.PayloadFormat == "" || set.PayloadFormat == formatEnvelope {
		if set.PayloadVersion == 2 {
			return envelopeV2, nil
		}
		return envelopeV1, nil
	}
	f := formats[set.PayloadFormat]
	if f == nil {
		return nil, errors.New("payload_format " + strconv.Quote(set.PayloadFormat) +
			" is not known: use envelope, standard, cloudevents, cloudevents-binary or raw")
	}
	if set.PayloadFormat == formatBinary && set.Batches() {
		return nil, errors.New("payload_format cloudevents-binary has no batches, and batch_size is " +
			strconv.Itoa(set.BatchSize) + ": use cloudevents, or a batch_size of 1")
	}
	return f, nil
}

// body makes the body of a request with one delivery.
//
// It is allocated for each request, in one piece, and not pooled. The transport may still be reading it when
// the response is there (a receiver can answer early), so a pooled buffer would need a reader that gives it
// up; and net/http sends headers and body in one write only for the readers of the standard library
// (isKnownInMemoryReader in transfer.go). The second write, and the receiver's second read, cost several
// times what the allocation does.
func (f *format) body(d *delivery.Delivery) []byte {
	if f.bare {
		return d.Event.Payload
	}
	return f.element(make([]byte, 0, f.sizeOf(d)), d)
}

// array makes the body of a request with a JSON array of deliveries, in their order.
func (f *format) array(batch []*delivery.Delivery) []byte {
	size := len("[]")
	for _, d := range batch {
		size += f.sizeOf(d)
	}
	dst := append(make([]byte, 0, size), '[')
	for i, d := range batch {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.element(dst, d)
	}
	return append(dst, ']')
}

// sizeOf estimates an element, in bytes. Texts that need escaping make it larger; then the body grows.
func (f *format) sizeOf(d *delivery.Delivery) int {
	e := d.Event
	return f.size + len(e.Payload) + len(e.Type) + len(e.Key) + len(e.Tenant) + len(e.Source) + len(e.CorrelationID)
}

// appendPayload appends the payload byte for byte, so that every number arrives as it was written; an event
// without one has null.
func appendPayload(dst []byte, d *delivery.Delivery) []byte {
	if len(d.Event.Payload) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, d.Event.Payload...)
}

const standardSize = 64

// appendStandard appends the payload structure that Standard Webhooks 1.0.0 recommends:
//
//	{"type":…,"timestamp":…,"data":…}
//
// timestamp is the commit time, so that the bytes are the same on every attempt.
func appendStandard(dst []byte, d *delivery.Delivery) []byte {
	dst = append(dst, `{"type":`...)
	dst = gjson.AppendJSONString(dst, d.Event.Type)
	dst = append(dst, `,"timestamp":"`...)
	dst = appendTimestamp(dst, committedAt(d))
	dst = append(dst, `","data":`...)
	dst = appendPayload(dst, d)
	return append(dst, '}')
}

// committedAt is the time that every format names: it must not differ between attempts.
func committedAt(d *delivery.Delivery) time.Time {
	if fault.Bug(fault.BodyChanges) {
		return time.Now()
	}
	return d.Event.CommittedAt
}
