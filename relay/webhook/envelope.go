package webhook

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/relay/delivery"
)

// What an envelope takes beside the event's own texts, in bytes, with some to spare.
const (
	envelopeSize   = 192
	envelopeV2Size = envelopeSize + 224
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
	dst = append(dst, `{"event_type":`...)
	dst = gjson.AppendJSONString(dst, d.Event.Type)
	dst = append(dst, `,"event_data":`...)
	dst = appendPayload(dst, d)
	dst = append(dst, `,"webhook_id":"`...)
	dst = appendUUID(dst, d.ID)
	dst = append(dst, `","timestamp":"`...)
	dst = appendTimestamp(dst, committedAt(d))
	dst = append(dst, `","attempt":`...)
	dst = strconv.AppendInt(dst, int64(attempt), 10)
	return append(dst, '}')
}

// appendEnvelopeV2 appends version 2 of the envelope, which says everything that is known of the event:
//
//	{…as version 1…,"version":2,"event_id":…,"key":…,"tenant":…,"source":…,"correlation_id":…,"created_at":…}
//
// key, source and correlation_id are null where the event has none; tenant is a string, empty for the only
// tenant. created_at is the event's own time, in the form of timestamp.
func appendEnvelopeV2(dst []byte, d *delivery.Delivery) []byte {
	e := d.Event
	dst = AppendEnvelope(dst, d, d.Attempts+1)
	dst = append(dst[:len(dst)-len("}")], `,"version":2,"event_id":"`...)
	dst = appendUUID(dst, e.ID)
	dst = append(dst, `","key":`...)
	dst = appendOptional(dst, e.Key)
	dst = append(dst, `,"tenant":`...)
	dst = gjson.AppendJSONString(dst, e.Tenant)
	dst = append(dst, `,"source":`...)
	dst = appendOptional(dst, e.Source)
	dst = append(dst, `,"correlation_id":`...)
	dst = appendOptional(dst, e.CorrelationID)
	dst = append(dst, `,"created_at":"`...)
	dst = appendTimestamp(dst, e.CreatedAt)
	return append(dst, `"}`...)
}

// appendOptional appends a JSON string, or null for what the event does not have.
func appendOptional(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return gjson.AppendJSONString(dst, text)
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

// appendUUID appends id in its canonical text form.
func appendUUID(dst []byte, id uuid.UUID) []byte {
	dst = hex.AppendEncode(dst, id[:4])
	for _, part := range [][2]int{{4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, id[part[0]:part[1]])
	}
	return dst
}
