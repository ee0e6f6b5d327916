package webhook

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// AppendEnvelope appends the envelope format of d to dst:
//
//	{"event_type":…,"event_data":…,"webhook_id":…,"timestamp":…,"attempt":…}
//
// event_data is the payload byte for byte, so that every number arrives as it was written; an event without
// a payload has null. webhook_id is the delivery's id, timestamp the commit time in UTC (RFC 3339,
// microseconds) and attempt counts from 1. Bytes of the event type that are not UTF-8 become U+FFFD. The
// result is valid JSON whenever the payload is.
func AppendEnvelope(dst []byte, d *delivery.Delivery, attempt int) []byte {
	at := d.Event.CommittedAt
	if fault.Bug(fault.BodyChanges) {
		at = time.Now()
	}
	dst = append(dst, `{"event_type":`...)
	dst = gjson.AppendJSONString(dst, d.Event.Type)
	dst = append(dst, `,"event_data":`...)
	if len(d.Event.Payload) == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, d.Event.Payload...)
	}
	dst = append(dst, `,"webhook_id":"`...)
	dst = appendUUID(dst, d.ID)
	dst = append(dst, `","timestamp":"`...)
	dst = appendTimestamp(dst, at)
	dst = append(dst, `","attempt":`...)
	dst = strconv.AppendInt(dst, int64(attempt), 10)
	return append(dst, '}')
}

// appendTimestamp appends t as RFC 3339 in UTC with exactly the microseconds that Postgres keeps, so that a
// timestamp has the same bytes on every attempt. time.RFC3339 is formatted several times faster than a
// layout with a fraction.
func appendTimestamp(dst []byte, t time.Time) []byte {
	t = t.UTC()
	dst = t.AppendFormat(dst, time.RFC3339)
	dst = append(dst[:len(dst)-len("Z")], '.')
	micros := t.Nanosecond() / 1000
	for unit := 100_000; unit > 0; unit /= 10 {
		dst = append(dst, '0'+byte(micros/unit%10))
	}
	return append(dst, 'Z')
}

// envelopeSize is what an envelope takes beside payload and event type, in bytes, with some to spare.
const envelopeSize = 192

// body makes the body of a request.
//
// It is allocated for each request, in one piece, and not pooled. The transport may still be reading it when
// the response is there (a receiver can answer early), so a pooled buffer would need a reader that gives it
// up; and net/http sends headers and body in one write only for the readers of the standard library
// (isKnownInMemoryReader in transfer.go). The second write, and the receiver's second read, cost several
// times what the allocation does.
func (e *endpoint) body(d *delivery.Delivery, attempt int) []byte {
	if e.raw {
		return d.Event.Payload
	}
	size := envelopeSize + len(d.Event.Payload) + len(d.Event.Type)
	return AppendEnvelope(make([]byte, 0, size), d, attempt)
}

// appendUUID appends id in its canonical text form.
func appendUUID(dst []byte, id uuid.UUID) []byte {
	dst = hex.AppendEncode(dst, id[:4])
	for _, part := range [][2]int{{4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, id[part[0]:part[1]])
	}
	return dst
}
